use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use llmkit_core::{LanguageModel, ToolDefinition};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Agent, Tool, ToolError, ToolOutput, ToolPolicy};
use crate::schema;
use crate::{Error, Result};

/// An agent that is a tool of another; made by [`Agent::as_tool`].
///
/// Its trace becomes part of the other's, and its tokens and cost count towards the other's limits.
///
/// ```
/// use std::sync::Arc;
/// use llmkit_prompt::agent::{Agent, Toolbox, calculator};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let clerk = Arc::new(ScriptedModel::new([
///     "Thought: I reckon.\nAction: calculator\nAction Input: {\"expression\": \"3 * 14\"}",
///     "Thought: Done.\nFinal Answer: 42 euros",
/// ]));
/// let clerk = Agent::new(Toolbox::new([calculator()])?).as_tool(clerk, "clerk", "Answers questions about prices.")?;
///
/// let chief = ScriptedModel::new([
///     "Thought: The clerk knows.\nAction: clerk\nAction Input: {\"task\": \"What do 3 bowls cost?\"}",
///     "Thought: Done.\nFinal Answer: Three bowls cost 42 euros.",
/// ]);
/// let run = Agent::new(Toolbox::new([clerk])?).run(&chief, "What do 3 bowls cost?").await?;
/// assert_eq!(run.value.answer(), Some("Three bowls cost 42 euros."));
/// // The calls of both.
/// assert_eq!(run.trace.calls().count(), 4);
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct AgentTool {
    agent: Agent,
    model: Arc<dyn LanguageModel>,
    definition: ToolDefinition,
    policy: ToolPolicy,
    depth: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Task {
    /// What is to be done or found out, with all that one needs to know for it.
    task: String,
}

impl AgentTool {
    /// How many agents may stand above one another as tools.
    pub const DEEPEST: usize = 4;

    pub(super) fn new(
        agent: Agent,
        model: Arc<dyn LanguageModel>,
        name: String,
        description: String,
    ) -> Result<Self> {
        let depth = agent.tools.depth() + 1;
        if depth > Self::DEEPEST {
            return Err(Error::Tool {
                tool: name,
                expected: format!("at most {} agents one above the other", Self::DEEPEST),
                found: depth.to_string(),
            });
        }
        let definition = ToolDefinition::new(name, description, schema::of_type::<Task>());
        // The agent has limits of its own.
        let policy = ToolPolicy { timeout: None, ..ToolPolicy::default() };
        Ok(Self { agent, model, definition, policy, depth })
    }

    /// The tool with this policy in place of one without a time limit.
    pub fn with_policy(mut self, policy: ToolPolicy) -> Self {
        self.policy = policy;
        self
    }
}

#[async_trait]
impl Tool for AgentTool {
    fn definition(&self) -> ToolDefinition {
        self.definition.clone()
    }

    fn policy(&self) -> ToolPolicy {
        self.policy.clone()
    }

    fn depth(&self) -> usize {
        self.depth
    }

    async fn call(&self, arguments: Value) -> Result<ToolOutput, ToolError> {
        let Task { task } = serde_json::from_value(arguments)
            .map_err(|error| ToolError::Arguments { path: String::new(), reason: error.to_string() })?;
        let run = self.agent.run(self.model.as_ref(), task).await?;
        let (usage, cost) = (run.value.usage, run.value.cost);
        let text = match (run.value.answer(), &run.value.text) {
            (Some(answer), _) => answer.to_owned(),
            (None, Some(text)) => format!("No answer ({}). As far as it came: {text}", run.value.outcome),
            (None, None) => format!("No answer ({}).", run.value.outcome),
        };
        Ok(ToolOutput { trace: Some(run.trace), usage, cost, ..ToolOutput::text(text) })
    }
}

impl fmt::Debug for AgentTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentTool")
            .field("definition", &self.definition)
            .field("agent", &self.agent)
            .field("model", &self.model.name())
            .finish_non_exhaustive()
    }
}
