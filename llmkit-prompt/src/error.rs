use std::path::PathBuf;
use std::{fmt, io};

/// What can go wrong with a prompt. Each message says where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The template is not valid Jinja.
    #[error("{template}:{line}: the template does not parse: {reason}")]
    Syntax {
        /// The template's name.
        template: String,
        /// The line of the fault, from 1.
        line: usize,
        /// What the parser expected.
        reason: String,
        /// The engine's own error.
        #[source]
        source: Box<minijinja::Error>,
    },
    /// The template refers to another one that is not there, not allowed, or includes itself.
    #[error("{template}:{line}: cannot `{statement}`: {reason}")]
    Reference {
        /// The template's name.
        template: String,
        /// The line of the statement, from 1.
        line: usize,
        /// The statement: `"include"`, `"import"`, `"from"` or `"extends"`.
        statement: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A template or a file is longer than any that people write.
    #[error("{what} has {found} bytes; at most {allowed} are read: put data into variables")]
    Oversized {
        /// What is too long.
        what: String,
        /// Its length in bytes.
        found: usize,
        /// The greatest length in bytes.
        allowed: usize,
    },
    /// A template has more names than any that people write.
    #[error("{template} has {found} names; at most {allowed} are followed: put data into lists and maps")]
    ManyNames {
        /// The template's name.
        template: String,
        /// How many names it has.
        found: usize,
        /// The greatest number.
        allowed: usize,
    },
    /// A tag of a template is longer than any that people write.
    #[error(
        "{template}:{line}: the tag has {found} words and signs, {allowed} are allowed: put data into variables"
    )]
    LongTag {
        /// The template's name.
        template: String,
        /// The line of the tag, from 1.
        line: usize,
        /// How many words and signs the tag has.
        found: usize,
        /// How many it may have.
        allowed: usize,
    },
    /// The template and its declared variables disagree. All disagreements are listed.
    #[error("the variables of `{prompt}` and their declaration disagree:{}", lines(problems))]
    Variables {
        /// The prompt's name.
        prompt: String,
        /// Every disagreement, in the order of the text, then of the declaration.
        problems: Vec<VariableProblem>,
    },
    /// The values do not form a map from variable names to values.
    #[error("`{prompt}` is rendered from a struct or a map with one entry a variable, found {found}")]
    NotAMap {
        /// The prompt's name.
        prompt: String,
        /// The kind of value that was given.
        found: String,
    },
    /// Variables were given no value. All are listed.
    #[error("`{prompt}` lacks values for {}; given: {}", quoted(missing), quoted(given))]
    MissingValues {
        /// The prompt's name.
        prompt: String,
        /// The variables without a value, in declared order.
        missing: Vec<String>,
        /// The names that were given.
        given: Vec<String>,
    },
    /// A prompt has no variable of this name.
    #[error(
        "`{prompt}` has no variable `{name}`{}; its variables: {}",
        suggested(suggestion.as_deref()),
        quoted(variables)
    )]
    NoSuchVariable {
        /// The prompt's name.
        prompt: String,
        /// The name that it was asked for.
        name: String,
        /// The variable that was probably meant.
        suggestion: Option<String>,
        /// The variables that it has.
        variables: Vec<String>,
    },
    /// A value cannot be kept in a prompt, because it cannot be written as JSON.
    #[error("the value for `{name}` of `{prompt}` cannot be written as JSON: {source}")]
    Value {
        /// The prompt's name.
        prompt: String,
        /// The variable.
        name: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A rendered prompt has more tokens than allowed.
    #[error(
        "`{prompt}` takes {tokens} tokens, {allowed} are allowed; the largest variables: {}",
        sizes(largest)
    )]
    TooLong {
        /// The prompt's name.
        prompt: String,
        /// How many tokens it has.
        tokens: usize,
        /// How many were allowed.
        allowed: usize,
        /// The up to three variables that take most, with their tokens, the largest first.
        largest: Vec<(String, usize)>,
    },
    /// The template can nest values deeply, and the thread with a deep stack that it needs could not do its work.
    #[error("`{template}` needs a thread with a deep stack: {reason}")]
    Stack {
        /// The template's name.
        template: String,
        /// What happened.
        reason: String,
    },
    /// Rendering failed: an attribute is not there, a filter refused its input, or the work ran over
    /// [`FUEL`](crate::FUEL).
    #[error("{template}:{line}: cannot render: {reason}")]
    Render {
        /// The template's name.
        template: String,
        /// The line being rendered, from 1; 0 where the engine knows none.
        line: usize,
        /// What happened.
        reason: String,
        /// The engine's own error.
        #[source]
        source: Box<minijinja::Error>,
    },
    /// A prompt's file is malformed.
    #[error("{file}:{line}: {reason}")]
    PromptFile {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// Files of a folder of prompts are malformed. All faults are listed.
    #[error("{} holds files that are no prompts:{}", folder.display(), faults(problems))]
    PromptFolder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with which file.
        problems: Vec<Error>,
    },
    /// There is no prompt of this name and version.
    #[error("there is no prompt `{name}`{}", alternatives(version.as_deref(), suggestion.as_deref(), versions))]
    UnknownPrompt {
        /// The name that was asked for.
        name: String,
        /// The version that was asked for.
        version: Option<String>,
        /// The name that was probably meant.
        suggestion: Option<String>,
        /// The versions that there are of this name.
        versions: Vec<String>,
    },
    /// A folder of prompts cannot be watched.
    #[error("cannot watch {}: {reason}", folder.display())]
    Watch {
        /// The folder.
        folder: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A prompt that should take the place of another wants variables that it won't be given.
    #[error(
        "`{prompt}` can't be used here: it wants {}, but will be given {} only",
        quoted(wanted),
        quoted(supplied)
    )]
    NotSupplied {
        /// The prompt's name.
        prompt: String,
        /// The variables that nobody supplies.
        wanted: Vec<String>,
        /// Those that are supplied.
        supplied: Vec<String>,
    },
    /// Worked examples cannot be used.
    #[error("{origin}:{number}: {reason}")]
    Example {
        /// The file, or what else they come from.
        origin: String,
        /// The line or, where there are no lines, the example, from 1.
        number: usize,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A selector of examples broke its contract.
    #[error("the selector `{selector}`: expected {expected}, found {found}")]
    Selection {
        /// The selector's name.
        selector: String,
        /// What a selector must give back.
        expected: String,
        /// What it gave back.
        found: String,
    },
    /// A setting is out of range.
    #[error("{setting}: expected {expected}, found {found}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What would be accepted.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// An embedder's vectors cannot be used.
    #[error("embedder `{embedder}`: expected {expected}, found {found}")]
    Embedding {
        /// The embedder's identity.
        embedder: String,
        /// What was needed.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A conversation cannot be remembered as it was asked for.
    #[error("memory `{memory}`: expected {expected}, found {found}")]
    Memory {
        /// The memory, or the file of a conversation.
        memory: String,
        /// What was needed.
        expected: String,
        /// What was there.
        found: String,
    },
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: `"read"`, `"write"`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A tool doesn't fit into a toolbox.
    #[error("tool `{tool}`: expected {expected}, found {found}")]
    Tool {
        /// The tool's name.
        tool: String,
        /// What a toolbox takes.
        expected: String,
        /// What the tool is.
        found: String,
    },
    /// An agent was to use tool calls that its model doesn't have.
    #[error(
        "`{model}` has no tool calls of its own: expected a model with the capability `tools`, or an agent with \
         `Protocol::Auto` or `Protocol::ReAct`"
    )]
    Protocol {
        /// The model's name.
        model: String,
    },
    /// An agent came to no answer. What it did is in its [`AgentRun`](crate::agent::AgentRun).
    #[error("the agent came to no answer in {steps} turns: {outcome}")]
    Unanswered {
        /// How it ended.
        outcome: Box<crate::agent::Outcome>,
        /// The model's turns.
        steps: usize,
    },
    /// A piece has no prompt for this purpose.
    #[error("there is no prompt `{purpose}` to replace here; there are {}", quoted(known))]
    NoSuchPrompt {
        /// What was to be replaced.
        purpose: String,
        /// The names of those that can be.
        known: Vec<String>,
    },
    /// A model failed to answer.
    #[error(transparent)]
    Model(#[from] llmkit_core::Error),
    /// A method of reasoning found no answer of the expected form in what the model wrote.
    #[error(
        "{method}: expected {expected} in the model's reply, found none{}; the reply ends: {}",
        if *cut_off { " (it was cut off at the longest answer allowed: raise `max_tokens`)" } else { "" },
        tail(text)
    )]
    NoAnswer {
        /// The method.
        method: String,
        /// What was looked for.
        expected: &'static str,
        /// The reply.
        text: String,
        /// Whether the reply ended because it was as long as allowed.
        cut_off: bool,
    },
    /// No sample of a method that votes gave an answer.
    #[error("{method}: none of {} samples gave an answer; the first: {source}", reasons.len())]
    AllSamplesFailed {
        /// The method.
        method: String,
        /// Why, sample by sample.
        reasons: Vec<String>,
        /// The first sample's error.
        #[source]
        source: Box<Error>,
    },
    /// A verifier accepted neither an answer nor any revision of it.
    #[error("no answer was accepted; the best is `{answer}`, of which the verifier says: {feedback}")]
    NotVerified {
        /// The best answer.
        answer: String,
        /// What the verifier says about it.
        feedback: String,
    },
    /// A text cannot be cut into pieces as small as asked for.
    #[error("cannot cut into pieces of {max_tokens} tokens: {text:?} alone takes {needed}; allow more")]
    ChunkTooSmall {
        /// The tokens that a piece may have.
        max_tokens: usize,
        /// The tokens of the smallest piece.
        needed: usize,
        /// That piece.
        text: String,
    },
    /// A document does not fit into what a model reads at once.
    #[error(
        "prompt and answer take {tokens} tokens and may have {context}: cut the document, or take a strategy that does"
    )]
    DocumentTooLong {
        /// The tokens of the prompt, with the document, and of the longest answer.
        tokens: usize,
        /// The tokens that both may have together.
        context: usize,
    },
    /// What a model reads at once does not even hold the prompt without the document.
    #[error(
        "the prompt without a document and the answer need {needed} of {context} tokens: allow more, or a shorter answer"
    )]
    NoRoom {
        /// The tokens that prompt and answer may have together.
        context: usize,
        /// What they need before there is any document.
        needed: usize,
    },
    /// Texts that are made into one do not become fewer.
    #[error(
        "after {levels} levels there still are {left} texts to be made one, with {room} tokens for them in a prompt: \
         allow a longer context, shorter answers or more levels"
    )]
    TooManyLevels {
        /// How many texts there are.
        left: usize,
        /// How many levels there were.
        levels: usize,
        /// The tokens for the texts in a prompt.
        room: usize,
    },
    /// An action of a [`pearl`](crate::pearl) list is unusable.
    #[error("action `{action}`: {reason}")]
    Action {
        /// Its name, or its text as far as it was read.
        action: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of [`pearl`](crate::pearl) actions or demonstrations is unusable.
    #[error("the file is no list of {expected}: {reason}")]
    PearlFile {
        /// What was wanted.
        expected: &'static str,
        /// What is there instead, with its line.
        reason: String,
    },
    /// A [`pearl::Plan`](crate::pearl::Plan) is faulty. All faults are listed.
    #[error("the plan has {} fault{}:{}", problems.len(), if problems.len() == 1 { "" } else { "s" }, lines(problems))]
    Plan {
        /// Everything that is wrong, in the order of the text.
        problems: Vec<crate::pearl::PlanProblem>,
    },
    /// A [`minutes::Transcript`](crate::minutes::Transcript) is unusable.
    #[error("the transcript is unusable: {reason}")]
    Transcript {
        /// What is wrong with it.
        reason: String,
    },
    /// A model gave no answer that could be used, however often it was asked.
    #[error("{} attempts gave no {wanted}: {}; the last answer: {}", reasons.len(), reasons.join("; "), tail(text))]
    Answer {
        /// What was wanted.
        wanted: String,
        /// What was wrong, attempt by attempt.
        reasons: Vec<String>,
        /// The last answer.
        text: String,
    },
    /// A check refused an answer. The message is shown to the model.
    #[error("{reason}")]
    Refused {
        /// Why, in the check's words.
        reason: String,
    },
    /// A model's answer is not what was asked for. The message can be shown to the model.
    #[error("expected {expected}, found {found}{}", at(place.as_deref()))]
    Parse {
        /// What should have been there.
        expected: String,
        /// What is there instead.
        found: String,
        /// Where: the path of a field, a row and column; none for the whole text.
        place: Option<String>,
    },
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One disagreement between a template and its declared variables.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VariableProblem {
    /// The template uses a variable that is not declared.
    Undeclared {
        /// The template's name.
        template: String,
        /// The line of the first use, from 1.
        line: usize,
        /// The variable as the template spells it.
        name: String,
        /// The declared variable that was probably meant.
        suggestion: Option<String>,
    },
    /// A declared variable is used nowhere.
    Unused {
        /// The variable.
        name: String,
    },
    /// A variable is declared more than once.
    Repeated {
        /// The variable.
        name: String,
    },
    /// A template uses a field that the variable's type does not have.
    UnknownField {
        /// The template's name.
        template: String,
        /// The line, from 1.
        line: usize,
        /// The expression up to the field, as the template spells it.
        path: String,
        /// The field that was probably meant.
        suggestion: Option<String>,
        /// The fields that there are.
        known: Vec<String>,
    },
    /// A declared variable has the name of one of the engine's functions, which it would hide.
    Reserved {
        /// The variable.
        name: String,
    },
}

impl fmt::Display for VariableProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undeclared { template, line, name, suggestion: Some(meant) } => {
                write!(f, "{template}:{line}: `{name}` is not declared; did you mean `{meant}`?")
            }
            Self::Undeclared { template, line, name, suggestion: None } => {
                write!(f, "{template}:{line}: `{name}` is not declared: declare it or remove it")
            }
            Self::UnknownField { template, line, path, suggestion: Some(meant), .. } => {
                write!(f, "{template}:{line}: `{path}` is no field; did you mean `{meant}`?")
            }
            Self::UnknownField { template, line, path, suggestion: None, known } => {
                write!(f, "{template}:{line}: `{path}` is no field; there are: {}", quoted(known))
            }
            Self::Unused { name } => {
                write!(f, "`{name}` is declared and never used: use it or do not declare it")
            }
            Self::Repeated { name } => write!(f, "`{name}` is declared more than once"),
            Self::Reserved { name } => write!(f, "`{name}` is a function of the engine: choose another name"),
        }
    }
}

fn lines(problems: &[impl fmt::Display]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

fn at(place: Option<&str>) -> String {
    place.map(|place| format!(" at {place}")).unwrap_or_default()
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn suggested(suggestion: Option<&str>) -> String {
    suggestion.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default()
}

fn sizes(slots: &[(String, usize)]) -> String {
    if slots.is_empty() {
        return "none".to_owned();
    }
    slots.iter().map(|(name, tokens)| format!("`{name}` ({tokens})")).collect::<Vec<_>>().join(", ")
}

/// The last 200 characters of a reply, on one line.
fn tail(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = words.chars().count();
    if length == 0 {
        return "(it is empty)".to_owned();
    }
    let cut = if length > 200 { ".. " } else { "" };
    format!("{cut}{}", words.chars().skip(length.saturating_sub(200)).collect::<String>())
}

fn faults(problems: &[Error]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

fn alternatives(version: Option<&str>, suggestion: Option<&str>, versions: &[String]) -> String {
    match (version, suggestion) {
        (Some(version), _) if !versions.is_empty() => {
            format!(" of version {version}; there are: {}", versions.join(", "))
        }
        (_, Some(meant)) => format!("; did you mean `{meant}`?"),
        _ => String::new(),
    }
}
