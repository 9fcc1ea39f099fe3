use std::fmt;
use std::time::Duration;

use llmkit_core::ToolCall;
use serde::{Deserialize, Serialize};

use super::Decision;
use crate::Trace;

/// One call of a tool, as it stands in the trace.
///
/// ```
/// use llmkit_prompt::agent::{Agent, ToolResult, Toolbox, calculator};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new([
///     "Thought: I should reckon.\nAction: calculator\nAction Input: {\"expression\": \"6 * 7\"}",
///     "Thought: That is it.\nFinal Answer: 42",
/// ]);
/// let agent = Agent::new(Toolbox::new([calculator()])?);
/// let trace = agent.run(&model, "What is 6 times 7?").await?.trace;
/// let run = trace.tools().next().unwrap();
/// assert_eq!(run.call.name, "calculator");
/// assert_eq!(run.result, ToolResult::Output { text: "42".to_owned(), characters: 2 });
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolRun {
    /// What the model asked for.
    pub call: ToolCall,
    /// What the approval said; none where nobody was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What came of it.
    pub result: ToolResult,
    /// What a model behind the tool did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Trace>,
    /// How long the tool ran.
    pub elapsed: Duration,
}

/// What came of a call. Written with `{}` it is what the model is told.
///
/// ```
/// use llmkit_prompt::agent::ToolResult;
///
/// let cut = ToolResult::Output { text: "Once upon".to_owned(), characters: 40_000 };
/// assert_eq!(cut.to_string(), "Once upon\n[cut off: the first 9 of 40000 characters]");
/// assert!(!cut.failed());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolResult {
    /// The tool gave something back.
    Output {
        /// What the model is shown of it.
        text: String,
        /// The length of the whole, in characters.
        characters: usize,
    },
    /// The tool, or the reading of its arguments, failed.
    Failed {
        /// What happened.
        reason: String,
    },
    /// The tool ran out of its time and was dropped.
    TimedOut {
        /// The time that it had.
        after: Duration,
    },
    /// The tool panicked.
    Panicked {
        /// The panic's message.
        reason: String,
    },
    /// The tool didn't run.
    NotRun {
        /// Why.
        reason: String,
    },
}

impl ToolResult {
    /// Whether there is no output.
    pub fn failed(&self) -> bool {
        !matches!(self, Self::Output { .. })
    }
}

impl fmt::Display for ToolResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output { text, characters } => {
                f.write_str(text)?;
                let shown = text.chars().count();
                if shown < *characters {
                    write!(f, "\n[cut off: the first {shown} of {characters} characters]")?;
                }
                Ok(())
            }
            Self::Failed { reason } => write!(f, "Error: {reason}"),
            Self::TimedOut { after } => write!(f, "Error: the tool took longer than {after:?}"),
            Self::Panicked { reason } => write!(f, "Error: the tool broke down: {reason}"),
            Self::NotRun { reason } => write!(f, "Not run: {reason}"),
        }
    }
}
