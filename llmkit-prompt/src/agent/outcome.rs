use std::fmt;

use llmkit_core::{LanguageModel, Message, Usage};
use serde::{Deserialize, Serialize};

use super::{Agent, Limit};
use crate::{Error, Result, Traced};

/// How a task went, and all that is needed to go on with it.
///
/// ```
/// use llmkit_prompt::agent::{Agent, Limit, Limits, Outcome, Toolbox, calculator};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new([
///     "Thought: I should reckon.\nAction: calculator\nAction Input: {\"expression\": \"6 * 7\"}",
///     "Thought: That is it.\nFinal Answer: 42",
///     "Thought: Half of 42 is 21.\nFinal Answer: 21",
/// ]);
/// let agent = Agent::new(Toolbox::new([calculator()])?).with_limits(Limits::default().with_steps(1));
///
/// let run = agent.run(&model, "What is 6 times 7?").await?.value;
/// assert_eq!(run.outcome, Outcome::Limit(Limit::Steps { allowed: 1 }));
/// assert_eq!(run.messages.len(), 3);
///
/// // It goes on where it stopped; and then with another question.
/// let run = agent.resume(&model, run.messages).await?.value;
/// assert_eq!(run.answer(), Some("42"));
/// let run = run.continue_with(&agent, &model, "And half of that?").await?.value;
/// assert_eq!(run.into_answer()?, "21");
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AgentRun {
    /// How it ended.
    pub outcome: Outcome,
    /// The answer if there is one; else the best that there is of one, where the agent was to give that.
    pub text: Option<String>,
    /// The conversation: the task, the model's turns, what the tools gave. Every call has its result, so that any model can go on from here.
    /// The agent's own instructions are not among them.
    pub messages: Vec<Message>,
    /// The tokens that were read and written, by agents among the tools too.
    pub usage: Usage,
    /// What it cost, by [`Limits::prices`](super::Limits::prices) and what the tools said.
    pub cost: f64,
    /// The model's turns.
    pub steps: usize,
    /// The calls of tools.
    pub tool_calls: usize,
}

impl AgentRun {
    /// The answer, if the model came to one.
    pub fn answer(&self) -> Option<&str> {
        match self.outcome {
            Outcome::Answered => self.text.as_deref(),
            _ => None,
        }
    }

    /// The answer.
    ///
    /// # Errors
    /// [`Error::Unanswered`] saying how the run ended, if it ended without one.
    pub fn into_answer(self) -> Result<String> {
        match (self.outcome, self.text) {
            (Outcome::Answered, Some(answer)) => Ok(answer),
            (outcome, _) => Err(Error::Unanswered { outcome: Box::new(outcome), steps: self.steps }),
        }
    }

    /// The conversation goes on: `agent`, which may be another, is told `message` and answers from all that was found. Its limits count anew.
    ///
    /// # Errors
    /// As [`Agent::run`].
    pub async fn continue_with(
        self,
        agent: &Agent,
        model: &dyn LanguageModel,
        message: impl Into<String> + Send,
    ) -> Result<Traced<AgentRun>> {
        let mut messages = self.messages;
        messages.push(Message::user(message));
        agent.resume(model, messages).await
    }
}

/// How a task ended.
///
/// ```
/// use llmkit_prompt::agent::{Limit, Outcome};
///
/// let outcome = Outcome::Limit(Limit::Tokens { allowed: 1000, used: 1200 });
/// assert_eq!(outcome.to_string(), "a limit was reached: 1200 tokens are used of 1000");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The model gave its answer.
    Answered,
    /// A limit was reached before.
    Limit(Limit),
    /// The approval ended it.
    Denied {
        /// The tool that was not to be called.
        tool: String,
    },
    /// The caller, or the model's caller, cancelled it.
    Cancelled,
    /// The model failed.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("answered"),
            Self::Limit(limit) => write!(f, "a limit was reached: {limit}"),
            Self::Denied { tool } => write!(f, "it was stopped when it asked for `{tool}`"),
            Self::Cancelled => f.write_str("it was cancelled"),
            Self::Failed { reason } => write!(f, "the model failed: {reason}"),
        }
    }
}
