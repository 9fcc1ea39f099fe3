use std::fmt;

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
    #[error("`{prompt}` takes {tokens} tokens, {allowed} are allowed; the largest variables: {}", sizes(largest))]
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
    #[error("{file} is not a prompt: {reason}")]
    PromptFile {
        /// The file.
        file: String,
        /// What is wrong, and what was expected.
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
    /// A model failed to answer.
    #[error(transparent)]
    Model(#[from] llmkit_core::Error),
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

fn lines(problems: &[VariableProblem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
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
