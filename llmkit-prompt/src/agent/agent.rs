use std::fmt;
use std::future::{self, Future};
use std::sync::Arc;

use llmkit_core::{LanguageModel, Message};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::drive::Drive;
use super::{AgentEvent, AgentRun, AgentTool, Approval, Ask, Denied, Limits, Protocol, Toolbox};
use crate::typed::Typed;
use crate::{ChatPrompt, Error, Result, Run, Traced, builtin};

/// A model that works on a task with tools, turn by turn, until it answers or a limit is reached.
///
/// A model that has tool calls of its own uses them; any other is taught to write its steps as text (ReAct, Yao et al. 2022). The
/// agent itself is plain data: it can be shared, and run on any model, any number of times at once. Dropping a run's future stops
/// all that it started.
///
/// ```
/// use llmkit_prompt::agent::{Agent, Toolbox, tool};
/// use llmkit_prompt::testing::ScriptedModel;
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Weather {
///     /// The city's name in English.
///     city: String,
/// }
///
/// # pollster::block_on(async {
/// let weather = tool("weather", "Says what the weather is like.", |args: Weather| async move {
///     Ok(format!("18 degrees and rain in {}", args.city))
/// });
/// let agent = Agent::new(Toolbox::new([weather])?).with_system("Answer in one sentence.");
///
/// # let model = ScriptedModel::new([
/// #     "Thought: I need the weather.\nAction: weather\nAction Input: {\"city\": \"Lima\"}",
/// #     "Thought: It rains.\nFinal Answer: Yes, it rains in Lima.",
/// # ]);
/// let run = agent.run(&model, "Do I need an umbrella in Lima?").await?;
/// println!("{}", run.trace);
/// assert_eq!(run.value.into_answer()?, "Yes, it rains in Lima.");
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Agent {
    pub(super) system: Option<String>,
    pub(super) tools: Toolbox,
    pub(super) protocol: Protocol,
    pub(super) limits: Limits,
    pub(super) approval: Arc<dyn Approval>,
    pub(super) ask: Ask,
    pub(super) last_answer: bool,
    pub(super) prompts: Prompts,
    pub(super) listener: Option<Arc<dyn Fn(AgentEvent) + Send + Sync>>,
}

#[derive(Clone)]
pub(super) struct Prompts {
    pub(super) react: ChatPrompt,
    pub(super) text: ChatPrompt,
    pub(super) retry: ChatPrompt,
    pub(super) last_answer: ChatPrompt,
    pub(super) untrusted: ChatPrompt,
    pub(super) value: ChatPrompt,
}

impl Agent {
    /// An agent with these tools, and the defaults of [`Limits`], [`Protocol`] and [`Ask`].
    pub fn new(tools: Toolbox) -> Self {
        Self {
            system: None,
            tools,
            protocol: Protocol::default(),
            limits: Limits::default(),
            approval: Arc::new(Denied),
            ask: Ask::default(),
            last_answer: false,
            prompts: Prompts {
                react: builtin::prompt("agent/react"),
                text: builtin::prompt("agent/text"),
                retry: builtin::prompt("agent/retry"),
                last_answer: builtin::prompt("agent/last_answer"),
                untrusted: builtin::prompt("agent/untrusted"),
                value: builtin::prompt("agent/value"),
            },
            listener: None,
        }
    }

    /// The agent with these instructions, which the model reads first. Default: none.
    pub fn with_system(mut self, system: impl Into<String>) -> Self {
        self.system = Some(system.into());
        self
    }

    /// The agent with this way of calling tools. Default: [`Protocol::Auto`].
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// The agent with these limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The agent that asks `approval` about calls that need it. Default: [`Denied`].
    pub fn with_approval(mut self, approval: impl Approval + 'static) -> Self {
        self.approval = Arc::new(approval);
        self
    }

    /// The agent that asks about these calls. Default: [`Ask::Flagged`].
    pub fn with_ask(mut self, ask: Ask) -> Self {
        self.ask = ask;
        self
    }

    /// The agent that, when its turns, its calls of tools or its unreadable replies reach their limit, asks once more for the best answer that
    /// the findings allow. It is the run's [`text`](AgentRun::text); the outcome stays the limit. Default: no such call.
    pub fn with_last_answer(mut self) -> Self {
        self.last_answer = true;
        self
    }

    /// The agent with another prompt in place of the built-in one of the same purpose:
    ///
    /// | prompt | variables | |
    /// |---|---|---|
    /// | `agent/react` | `instructions`, `tools` | [`Protocol::ReAct`]; a tool has `name`, `description`, `parameters` (JSON text) and `arguments` |
    /// | `agent/text` | `instructions`, `tools`, `example` | [`Protocol::Text`] |
    /// | `agent/retry` | `reason`, `format` | when a reply can't be read; `format` is `react`, `text` or `native` |
    /// | `agent/last_answer` | `limit` | see [`with_last_answer`](Self::with_last_answer) |
    /// | `agent/untrusted` | `tool`, `output` (already marked) | see [`ToolPolicy::untrusted`](super::ToolPolicy::untrusted) |
    /// | `agent/value` | `task`, `answer` | see [`run_typed`](Self::run_typed) |
    ///
    /// ```
    /// use llmkit_prompt::agent::{Agent, Toolbox};
    /// use llmkit_prompt::{ChatPrompt, Role};
    ///
    /// let prompt = ChatPrompt::new("mine", [(Role::User, "Stop ({{ limit }}). Your conclusion?")], ["limit"])?;
    /// let agent = Agent::new(Toolbox::default()).with_last_answer().with_prompt("agent/last_answer", prompt)?;
    /// # Ok::<(), llmkit_prompt::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants other variables, [`Error::NoSuchPrompt`](crate::Error::NoSuchPrompt)
    /// if the agent has none for this purpose.
    pub fn with_prompt(mut self, purpose: &str, prompt: ChatPrompt) -> Result<Self> {
        let (place, supplied): (_, &[&str]) = match purpose {
            "agent/react" => (&mut self.prompts.react, &["instructions", "tools"]),
            "agent/text" => (&mut self.prompts.text, &["instructions", "tools", "example"]),
            "agent/retry" => (&mut self.prompts.retry, &["reason", "format"]),
            "agent/last_answer" => (&mut self.prompts.last_answer, &["limit"]),
            "agent/untrusted" => (&mut self.prompts.untrusted, &["tool", "output"]),
            "agent/value" => (&mut self.prompts.value, &["task", "answer"]),
            _ => {
                let known = builtin::names().filter(|name| name.starts_with("agent/"));
                return Err(Error::NoSuchPrompt {
                    purpose: purpose.to_owned(),
                    known: known.map(str::to_owned).collect(),
                });
            }
        };
        *place = prompt.supplied_by(supplied)?;
        Ok(self)
    }

    /// The agent that tells `listener` what it is doing, as it does it. The model's answers are then streamed.
    pub fn on_event(mut self, listener: impl Fn(AgentEvent) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// The tools.
    pub fn tools(&self) -> &Toolbox {
        &self.tools
    }

    /// Works on `task`.
    ///
    /// Whatever happens once the work has begun is the run's [`outcome`](AgentRun::outcome), with all that was done until then.
    ///
    /// # Errors
    /// [`Error::Protocol`](crate::Error::Protocol) if the model can't be used in the way that was asked for, and errors of the
    /// [prompts](Self::with_prompt) that were put in.
    pub async fn run(
        &self,
        model: &dyn LanguageModel,
        task: impl Into<String> + Send,
    ) -> Result<Traced<AgentRun>> {
        self.resume(model, vec![Message::user(task)]).await
    }

    /// Works on from a conversation: that of an earlier run, or one that begins otherwise than with one question. Calls in it that have no
    /// result yet are run first. The limits count anew.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn resume(
        &self,
        model: &dyn LanguageModel,
        messages: Vec<Message>,
    ) -> Result<Traced<AgentRun>> {
        self.run_until(model, messages, future::pending()).await
    }

    /// Works on from a conversation until `cancel` is over: then what is under way is dropped, and the run ends as
    /// [`Outcome::Cancelled`](super::Outcome::Cancelled) with all that was done.
    ///
    /// ```
    /// use llmkit_core::Message;
    /// use llmkit_prompt::agent::{Agent, Outcome, Toolbox};
    /// use llmkit_prompt::testing::ScriptedModel;
    ///
    /// # pollster::block_on(async {
    /// let model = ScriptedModel::new(["never said"]);
    /// // Here: at once. Elsewhere: a signal, a timer, the other end of a channel.
    /// let cancel = std::future::ready(());
    /// let messages = vec![Message::user("Count to a million.")];
    /// let run = Agent::new(Toolbox::default()).run_until(&model, messages, cancel).await?;
    /// assert_eq!(run.value.outcome, Outcome::Cancelled);
    /// # Ok::<(), llmkit_prompt::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(
        &self,
        model: &dyn LanguageModel,
        messages: Vec<Message>,
        cancel: impl Future<Output = ()> + Send,
    ) -> Result<Traced<AgentRun>> {
        let run = Run::new("agent", model);
        let value = Drive::new(self, &run, messages, cancel)?.finish().await?;
        Ok(run.finish(value))
    }

    /// Works on from a conversation as a part of a larger piece.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_in(&self, run: &Run<'_>, messages: Vec<Message>) -> Result<AgentRun> {
        Drive::new(self, run, messages, future::pending())?.finish().await
    }

    /// Works on `task`, and then asks the model for its answer as a value, in one more call (or more, if what comes is no such value). Gives
    /// the run, and the value or why there is none.
    ///
    /// ```
    /// use llmkit_prompt::agent::{Agent, Toolbox, calculator};
    /// use llmkit_prompt::testing::ScriptedModel;
    /// use llmkit_prompt::typed::Typed;
    ///
    /// # pollster::block_on(async {
    /// let model = ScriptedModel::new([
    ///     "Action: calculator\nAction Input: {\"expression\": \"6 * 7\"}",
    ///     "Final Answer: It is 42.",
    ///     "42",
    /// ]);
    /// let agent = Agent::new(Toolbox::new([calculator()])?);
    /// let (run, value) = agent.run_typed(&model, "What is 6 times 7?", &Typed::<u32>::new()).await?.value;
    /// assert_eq!((run.answer(), value?), (Some("It is 42."), 42));
    /// # Ok::<(), llmkit_prompt::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_typed<T: JsonSchema + DeserializeOwned + Send>(
        &self,
        model: &dyn LanguageModel,
        task: impl Into<String> + Send,
        typed: &Typed<T>,
    ) -> Result<Traced<(AgentRun, Result<T>)>> {
        let task = task.into();
        let run = Run::new("agent", model);
        let done = self.run_in(&run, vec![Message::user(task.as_str())]).await?;
        let Some(answer) = done.answer() else {
            let error = Error::Unanswered { outcome: Box::new(done.outcome.clone()), steps: done.steps };
            return Ok(run.finish((done, Err(error))));
        };
        let question = self.prompts.value.render(json!({ "task": task, "answer": answer }))?;
        let part = run.part("value");
        let value = typed.run_in(&part, question).await;
        run.include(part);
        Ok(run.finish((done, value)))
    }

    /// The agent as a tool of another: its one argument is the task.
    ///
    /// # Errors
    /// [`Error::Tool`](crate::Error::Tool) if it is more than [`AgentTool::DEEPEST`] agents deep.
    pub fn as_tool(
        self,
        model: Arc<dyn LanguageModel>,
        name: impl Into<String>,
        description: impl Into<String>,
    ) -> Result<AgentTool> {
        AgentTool::new(self, model, name.into(), description.into())
    }

    pub(super) fn tell(&self, event: impl FnOnce() -> AgentEvent) {
        if let Some(listener) = &self.listener {
            listener(event());
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("system", &self.system)
            .field("tools", &self.tools)
            .field("protocol", &self.protocol)
            .field("limits", &self.limits)
            .field("ask", &self.ask)
            .finish_non_exhaustive()
    }
}
