//! Agents: a model that works on a task with tools, within limits, and with a full record.
//!
//! A tool is a function of typed arguments ([`tool`], [`sync_tool`]); its schema comes from the type, and what a model gets wrong about the
//! arguments goes back to it with the place of the fault. An [`Agent`] lets a model call the tools of a [`Toolbox`] until it answers: by the
//! model's own tool calls where it has them, by text (ReAct) elsewhere. [`Limits`] bound turns, calls, tokens, time and cost;
//! [`Approval`] puts calls to a person or a rule first; whatever happens, an [`AgentRun`] holds all that was done, and can be gone on with.
//!
//! ```
//! use std::time::Duration;
//! use llmkit_prompt::agent::{Agent, Decision, Limits, Question, Toolbox, calculator, tool};
//! use llmkit_prompt::testing::ScriptedModel;
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Order {
//!     /// What to buy.
//!     item: String,
//!     /// How many.
//!     count: u32,
//! }
//!
//! # pollster::block_on(async {
//! let order = tool("order", "Buys something.", |args: Order| async move {
//!     Ok(format!("{} x {} ordered", args.count, args.item))
//! });
//! let tools = Toolbox::new([calculator(), order.with_approval()])?;
//!
//! fn frugal(question: &Question<'_>) -> Decision {
//!     match question.call.arguments["count"].as_u64() {
//!         Some(..=3) => Decision::Allow,
//!         _ => Decision::deny("at most 3 at a time"),
//!     }
//! }
//! let agent = Agent::new(tools)
//!     .with_system("You run a kitchen.")
//!     .with_approval(frugal)
//!     .with_limits(Limits::default().with_steps(8).with_time(Duration::from_secs(60)));
//!
//! # let model = ScriptedModel::new([
//! #     "Thought: I order them.\nAction: order\nAction Input: {\"item\": \"tureen\", \"count\": 12}",
//! #     "Thought: Fewer, then.\nAction: order\nAction Input: {\"item\": \"tureen\", \"count\": 3}",
//! #     "Thought: Done.\nFinal Answer: I could order 3.",
//! # ]);
//! let run = agent.run(&model, "We need twelve tureens.").await?;
//! let results: Vec<String> = run.trace.tools().map(|tool| tool.result.to_string()).collect();
//! assert_eq!(results, ["Not run: it was denied: at most 3 at a time", "3 x tureen ordered"]);
//! assert_eq!(run.value.into_answer()?, "I could order 3.");
//! # Ok::<(), llmkit_prompt::Error>(())
//! # }).unwrap();
//! ```

// The folder is named after what it is about, and so is the file of its main type.
#[allow(clippy::module_inception)]
mod agent;
mod approval;
mod calculator;
mod clock;
mod drive;
mod event;
mod execute;
mod fn_tool;
mod limits;
mod outcome;
mod react;
mod sub_agent;
mod suggest;
mod text;
mod tool;
mod tool_run;
mod toolbox;
mod wire;

pub use agent::Agent;
pub use approval::{AllowList, Approval, Ask, Decision, Denied, Question};
pub use calculator::calculator;
pub use clock::{current_time, current_time_by};
pub use event::AgentEvent;
pub use fn_tool::{FnTool, NoArguments, sync_tool, tool};
pub use limits::{Limit, Limits, Prices};
pub use outcome::{AgentRun, Outcome};
pub use sub_agent::AgentTool;
pub use tool::{Tool, ToolError, ToolOutput, ToolPolicy};
pub use tool_run::{ToolResult, ToolRun};
pub use toolbox::Toolbox;
pub use wire::Protocol;
