use std::fmt;

use serde::Serialize;

use super::action::{Actions, CONCAT, DOCUMENT};
use super::parse;
use crate::{Error, Result};

/// A plan: what is done with a document to answer a question, step by step. Each step of it has been checked.
///
/// As text it is one line a step, `k. variable = ACTION(argument, ..) : why`. An argument is [`DOCUMENT`], the variable of an earlier
/// step, or a text in quotes. The number and the reason may be missing, and lines of other text between the steps are passed over.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Plan};
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let actions = Actions::from_yaml(
///     "- {name: FIND, parameters: [CTX, X], definition: Find X in CTX.}\n\
///      - {name: COMPARE, parameters: [CTX, X, Y], definition: Say how X and Y differ in CTX.}",
/// )?;
/// let plan = Plan::parse(
///     r#"
///     1. early = FIND(CTX, "what Anna says in the beginning") : her first opinion
///     2. late = FIND(CTX, "what Anna says in the end") : her last opinion
///     3. change = COMPARE(CTX, early, late) : whether she has changed her mind
///     "#,
///     &actions,
/// )?;
/// assert_eq!(plan.levels(), [vec![0, 1], vec![2]]); // The first two wait for nobody.
/// assert_eq!(plan.answers(), [2]);
///
/// let error = Plan::parse("1. x = FNID(CTX, y)", &actions).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the plan has 2 faults:\n  \
///        line 1, column 8: there is no action `FNID`; did you mean `FIND`?\n  \
///        line 1, column 18: `y` is no variable of an earlier step; put quotes around a text",
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub(super) steps: Vec<Step>,
    #[serde(skip)]
    pub(super) skipped: Vec<usize>,
}

/// A step of a [`Plan`].
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Argument, Plan};
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let plan = Plan::parse(r#"1. both = CONCAT("one", "two") : the answer"#, &Actions::new())?;
/// let step = &plan.steps()[0];
/// assert_eq!((step.variable.as_str(), step.action.as_str(), step.why.as_str()), ("both", "CONCAT", "the answer"));
/// assert_eq!(step.arguments[1], Argument::Text("two".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// The name of what comes out.
    pub variable: String,
    /// What is done: an action of the list, or [`CONCAT`].
    pub action: String,
    /// With what.
    pub arguments: Vec<Argument>,
    /// Why, in the model's words; empty if it gave no reason.
    pub why: String,
}

/// What an action is given.
///
/// ```
/// use llmkit_prompt::pearl::Argument;
///
/// assert_eq!(Argument::Document.to_string(), "CTX");
/// assert_eq!(Argument::Text("say \"no\"".to_owned()).to_string(), r#""say \"no\"""#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Argument {
    /// The document.
    Document,
    /// What came out of an earlier step.
    Variable(String),
    /// These words.
    Text(String),
}

impl Plan {
    /// Reads a plan and checks every step against `actions` and the steps before it.
    ///
    /// A plan has at most 64 steps and 65,536 bytes, an argument at most 2,000 characters.
    ///
    /// # Errors
    /// [`Error::Plan`] with everything that is wrong, in the order of the text.
    pub fn parse(text: &str, actions: &Actions) -> Result<Self> {
        parse::plan(text, actions).map_err(|problems| Error::Plan { problems })
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The lines of the text, from 1, that were passed over because they are no steps.
    pub fn skipped_lines(&self) -> &[usize] {
        &self.skipped
    }

    /// The indices of the steps that step `index` waits for, in order.
    ///
    /// # Panics
    /// If there is no such step.
    pub fn needs(&self, index: usize) -> Vec<usize> {
        let step = &self.steps[index];
        (0..index).filter(|earlier| step.uses(&self.steps[*earlier].variable)).collect()
    }

    /// The indices of the steps by level: those of a level need only what lies in levels before it.
    pub fn levels(&self) -> Vec<Vec<usize>> {
        let mut level_of: Vec<usize> = Vec::new();
        let mut levels: Vec<Vec<usize>> = Vec::new();
        for index in 0..self.steps.len() {
            let level = self.needs(index).iter().map(|earlier| level_of[*earlier] + 1).max().unwrap_or(0);
            level_of.push(level);
            if levels.len() == level {
                levels.push(Vec::new());
            }
            levels[level].push(index);
        }
        levels
    }

    /// The indices of the steps whose outcome no other step uses: together they answer the question.
    pub fn answers(&self) -> Vec<usize> {
        let used = |step: &Step| self.steps.iter().any(|other| other.uses(&step.variable));
        (0..self.steps.len()).filter(|index| !used(&self.steps[*index])).collect()
    }
}

impl Step {
    fn uses(&self, variable: &str) -> bool {
        self.arguments.iter().any(|argument| matches!(argument, Argument::Variable(name) if name == variable))
    }

    /// The call alone: `ACTION(argument, ..)`.
    pub fn call(&self) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(ToString::to_string).collect();
        format!("{}({})", self.action, arguments.join(", "))
    }

    /// Whether this joins texts and asks no model.
    pub fn is_concat(&self) -> bool {
        self.action == CONCAT
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            write!(f, "{}. {} = {}", index + 1, step.variable, step.call())?;
            if !step.why.is_empty() {
                write!(f, " : {}", step.why)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document => f.write_str(DOCUMENT),
            Self::Variable(name) => f.write_str(name),
            Self::Text(text) => {
                f.write_str("\"")?;
                for letter in text.chars() {
                    match letter {
                        '"' => f.write_str("\\\"")?,
                        '\\' => f.write_str("\\\\")?,
                        '\n' => f.write_str("\\n")?,
                        letter => write!(f, "{letter}")?,
                    }
                }
                f.write_str("\"")
            }
        }
    }
}

/// A fault of a plan.
///
/// ```
/// use llmkit_prompt::Error;
/// use llmkit_prompt::pearl::{Actions, Plan};
///
/// let Err(Error::Plan { problems }) = Plan::parse("x = SING(CTX)", &Actions::new()) else { panic!() };
/// assert_eq!((problems[0].line, problems[0].column), (1, 5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlanProblem {
    /// The line of the text, from 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub fault: PlanFault,
}

impl fmt::Display for PlanProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.fault)
    }
}

/// What can be wrong in a plan.
///
/// ```
/// use llmkit_prompt::Error;
/// use llmkit_prompt::pearl::{Actions, Plan, PlanFault};
///
/// let Err(Error::Plan { problems }) = Plan::parse("I don't know.", &Actions::new()) else { panic!() };
/// assert_eq!(problems[0].fault, PlanFault::NoSteps);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlanFault {
    /// No line is a step.
    #[error("there is no step; write each as `variable = ACTION(argument, ..) : why`")]
    NoSteps,
    /// The line begins as a step and goes on as none.
    #[error("expected {expected}, found {found}")]
    Syntax {
        /// What may stand here.
        expected: String,
        /// What does.
        found: String,
    },
    /// No action has this name.
    #[error("there is no action `{name}`{}", did_you_mean(.suggestion.as_deref()))]
    UnknownAction {
        /// The name.
        name: String,
        /// The action that was probably meant.
        suggestion: Option<String>,
    },
    /// The action is given too many arguments or too few.
    #[error("`{signature}` is given {found} argument{}", if *.found == 1 { "" } else { "s" })]
    Arity {
        /// The action and its parameters.
        signature: String,
        /// How many arguments it is given.
        found: usize,
    },
    /// The argument is no variable of an earlier step.
    #[error("`{name}` is no variable of an earlier step{}; put quotes around a text", did_you_mean(.suggestion.as_deref()).trim_end_matches('?'))]
    Undefined {
        /// The argument.
        name: String,
        /// The variable that was probably meant.
        suggestion: Option<String>,
    },
    /// The argument is what the step itself defines.
    #[error("`{name}` is what this step defines, so it cannot use it")]
    SelfReference {
        /// The variable.
        name: String,
    },
    /// The document is given where it must not be.
    #[error("CONCAT joins texts and outcomes; the document itself is no part of an answer")]
    DocumentInConcat,
    /// The variable has been defined by an earlier step.
    #[error("`{name}` is defined in line {line} already: choose another name")]
    Redefined {
        /// The variable.
        name: String,
        /// The line of its first definition, from 1.
        line: usize,
    },
    /// An earlier step does the same.
    #[error("line {line} does the same: use its variable `{variable}`")]
    Repeated {
        /// The variable of that step.
        variable: String,
        /// Its line, from 1.
        line: usize,
    },
    /// Something is too long.
    #[error("{what} has more than {limit}")]
    TooLong {
        /// What: the plan, a line, an argument.
        what: String,
        /// How much is allowed, with its unit.
        limit: String,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
