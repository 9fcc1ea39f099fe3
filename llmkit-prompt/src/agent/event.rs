use llmkit_core::ToolCall;

use super::{Outcome, ToolRun};

/// What an agent is doing, as [`Agent::on_event`](super::Agent::on_event) tells it.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use llmkit_prompt::agent::{Agent, AgentEvent, Toolbox, calculator};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new([
///     "Thought: I should reckon.\nAction: calculator\nAction Input: {\"expression\": \"6 * 7\"}",
///     "Thought: That is it.\nFinal Answer: 42",
/// ]);
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let log = Arc::clone(&seen);
/// let agent = Agent::new(Toolbox::new([calculator()])?).on_event(move |event| match event {
///     AgentEvent::ToolStarted(call) => log.lock().unwrap().push(format!("{} {}", call.name, call.arguments)),
///     AgentEvent::ToolFinished(run) => log.lock().unwrap().push(run.result.to_string()),
///     _ => {}
/// });
/// agent.run(&model, "What is 6 times 7?").await?;
/// assert_eq!(*seen.lock().unwrap(), ["calculator {\"expression\":\"6 * 7\"}", "42"]);
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// The model's turn begins.
    Step {
        /// Which, from 1.
        step: usize,
    },
    /// The model wrote more text. Where its calls are text too, they are part of it.
    Text(String),
    /// The model thought more, apart from its text.
    Reasoning(String),
    /// The model's reply could not be read, and it was told so.
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// A tool begins to run.
    ToolStarted(ToolCall),
    /// A call is over, whether the tool ran or not.
    ToolFinished(ToolRun),
    /// The agent is done.
    Finished(Outcome),
}
