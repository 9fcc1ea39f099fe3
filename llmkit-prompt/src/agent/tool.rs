use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use llmkit_core::{ToolDefinition, Usage};
use serde::Serialize;
use serde_json::Value;

use crate::Trace;

/// Something that a model may ask the program to do.
///
/// Most tools are functions: see [`tool`](super::tool). Implement the trait for one whose arguments are known only at run time, such as a tool
/// of another server.
///
/// ```
/// use async_trait::async_trait;
/// use llmkit_core::ToolDefinition;
/// use llmkit_prompt::agent::{Tool, ToolError, ToolOutput};
/// use serde_json::{Value, json};
///
/// struct Dice;
///
/// #[async_trait]
/// impl Tool for Dice {
///     fn definition(&self) -> ToolDefinition {
///         let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
///         ToolDefinition::new("dice", "Throws a die.", nothing)
///     }
///
///     async fn call(&self, _arguments: Value) -> Result<ToolOutput, ToolError> {
///         Ok(ToolOutput::text("4"))
///     }
/// }
///
/// let output = pollster::block_on(Dice.call(json!({}))).unwrap();
/// assert_eq!(output.text, "4");
/// ```
#[async_trait]
pub trait Tool: Send + Sync {
    /// The name, what the tool does, and the JSON schema of its arguments, as the model reads them.
    fn definition(&self) -> ToolDefinition;

    /// How the agent treats the tool; the default is [`ToolPolicy::default`].
    fn policy(&self) -> ToolPolicy {
        ToolPolicy::default()
    }

    /// How many agents deep the tool is: 0 for a plain one, 1 for an agent whose tools are plain.
    fn depth(&self) -> usize {
        0
    }

    /// Does what the model asked for. The future is dropped when the tool's time, or the agent's, is over.
    ///
    /// # Errors
    /// A [`ToolError`], which the model reads: wrong arguments, or a failure that it may work around.
    async fn call(&self, arguments: Value) -> Result<ToolOutput, ToolError>;
}

#[async_trait]
impl<T: Tool + ?Sized> Tool for Arc<T> {
    fn definition(&self) -> ToolDefinition {
        (**self).definition()
    }

    fn policy(&self) -> ToolPolicy {
        (**self).policy()
    }

    fn depth(&self) -> usize {
        (**self).depth()
    }

    async fn call(&self, arguments: Value) -> Result<ToolOutput, ToolError> {
        (**self).call(arguments).await
    }
}

/// How an agent treats a tool.
///
/// ```
/// use std::time::Duration;
/// use llmkit_prompt::agent::ToolPolicy;
///
/// let policy = ToolPolicy::default();
/// assert!(!policy.needs_approval && !policy.read_only && !policy.untrusted);
/// assert_eq!(policy.timeout, Some(Duration::from_secs(60)));
/// assert_eq!(policy.output_limit, 20_000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ToolPolicy {
    /// Whether each call is put to the agent's [`Approval`](super::Approval) first. Default: false.
    pub needs_approval: bool,
    /// Whether the tool changes nothing. Default: false. See [`Ask::Changes`](super::Ask::Changes).
    pub read_only: bool,
    /// Whether the output is text from outside (a web page, a letter, a file) that may hold instructions of its own; it is then delimited and
    /// marked as data. Default: false.
    pub untrusted: bool,
    /// The longest that a call may take. Default: 60 seconds.
    pub timeout: Option<Duration>,
    /// The longest output that the model is shown, in characters; the rest is cut off and the cut is said. Default: 20,000.
    pub output_limit: usize,
}

impl Default for ToolPolicy {
    fn default() -> Self {
        Self {
            needs_approval: false,
            read_only: false,
            untrusted: false,
            timeout: Some(Duration::from_secs(60)),
            output_limit: 20_000,
        }
    }
}

/// What a tool gives back.
///
/// ```
/// use llmkit_prompt::agent::ToolOutput;
///
/// assert_eq!(ToolOutput::text("18 degrees").text, "18 degrees");
/// assert_eq!(ToolOutput::of(&vec![1, 2])?.text, "[1,2]");
/// // A text is given as it is, not as a JSON string.
/// assert_eq!(ToolOutput::of("18 degrees")?.text, "18 degrees");
/// # Ok::<(), llmkit_prompt::agent::ToolError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ToolOutput {
    /// What the model reads.
    pub text: String,
    /// What a model behind the tool did; it becomes part of the agent's trace.
    pub trace: Option<Trace>,
    /// The tokens that a model behind the tool read and wrote; they count towards the agent's limit.
    pub usage: Usage,
    /// What the tool cost, in the currency of the agent's [`Prices`](super::Prices); it counts towards the agent's limit.
    pub cost: f64,
}

impl ToolOutput {
    /// An output that is this text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// An output that is `value`: a text as it is, anything else as JSON on one line.
    ///
    /// # Errors
    /// [`ToolError::Failed`] if `value` is not representable in JSON.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, ToolError> {
        Ok(Self::text(match serde_json::to_value(value)? {
            Value::String(text) => text,
            value => value.to_string(),
        }))
    }

    /// The output with the cost of producing it, in the currency of the agent's [`Prices`](super::Prices).
    pub fn with_cost(mut self, cost: f64) -> Self {
        self.cost = cost;
        self
    }
}

/// Why a tool gave nothing back. The model reads it and may try again.
///
/// Every error turns into one by `?`, with its causes:
///
/// ```
/// use llmkit_prompt::agent::ToolError;
///
/// fn celsius(text: &str) -> Result<f64, ToolError> {
///     Ok(text.parse::<f64>()?)
/// }
/// assert_eq!(celsius("warm").unwrap_err().to_string(), "invalid float literal");
///
/// let error = ToolError::new("the station is down until noon");
/// assert_eq!(error.to_string(), "the station is down until noon");
/// ```
// Like `anyhow::Error`, it is no `std::error::Error`: that is what lets every error become one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolError {
    /// The arguments are not what the tool takes.
    Arguments {
        /// Where in the arguments, as `stops[0].city`; empty for the arguments as a whole.
        path: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The tool ran and failed.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl ToolError {
    /// A failure for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments { path, reason } if path.is_empty() => write!(f, "wrong arguments: {reason}"),
            Self::Arguments { path, reason } => write!(f, "wrong arguments: at `{path}`: {reason}"),
            Self::Failed { reason } => f.write_str(reason),
        }
    }
}

impl<E: StdError> From<E> for ToolError {
    fn from(error: E) -> Self {
        Self::Failed { reason: with_causes(&error) }
    }
}

/// The error's message and those of its causes that it doesn't already contain.
pub(super) fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // A chain is a few long; one that loops must not hang.
    for _ in 0..16 {
        let Some(error) = cause else { break };
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}
