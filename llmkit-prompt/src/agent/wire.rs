use llmkit_core::{
    ChatRequest, ChatResponse, FinishReason, LanguageModel, Message, Role, ToolCall, ToolCallFormat,
    ToolChoice,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::agent::Prompts;
use super::{Agent, Toolbox, react, text};
use crate::{Error, Result};

/// What begins a turn that holds a tool's result, in the ReAct format.
pub(super) const OBSERVATION: &str = "Observation:";

/// How the model says that it wants a tool.
///
/// The conversation of a run is the same with each: see [`AgentRun::messages`](super::AgentRun::messages).
///
/// ```
/// use llmkit_prompt::agent::{Agent, Protocol, Toolbox, calculator};
///
/// // For a model whose own calls are not to be trusted.
/// let agent = Agent::new(Toolbox::new([calculator()])?).with_protocol(Protocol::ReAct);
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// `Native` for a model that is [capable](llmkit_core::Capabilities::tools) of it, or `ReAct`.
    #[default]
    Auto,
    /// The model's own tool calls.
    Native,
    /// Thoughts, actions and observations as text (Yao et al. 2022), for any model that follows instructions.
    ReAct,
    /// Calls as text in the format that the model was trained on, for a server that doesn't know it: the tools are described in the
    /// instructions, and the calls read out of the answer.
    Text(ToolCallFormat),
}

/// What a reply comes to.
pub(super) enum Reply {
    /// Tools are to be run.
    Calls(Vec<ToolCall>),
    /// The answer.
    Answer(String),
    /// The answer, cut off.
    Cut(String),
    /// Nothing that can be gone on with, for this reason.
    Unreadable(String),
    /// The model was cancelled.
    Cancelled,
    /// The model's server withheld the answer.
    Withheld,
}

/// The turn that goes into the conversation, what it comes to, and what a reader of the trace should know.
pub(super) struct Read {
    pub(super) turn: Message,
    pub(super) reply: Reply,
    pub(super) notes: Vec<String>,
}

/// A protocol that was chosen for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Native,
    ReAct,
    Text(ToolCallFormat),
}

impl Wire {
    pub(super) fn choose(agent: &Agent, model: &dyn LanguageModel) -> Result<Self> {
        let can = agent.tools.is_empty() || model.capabilities().tools;
        match agent.protocol {
            Protocol::Auto | Protocol::Native if can => Ok(Self::Native),
            Protocol::Auto | Protocol::ReAct => Ok(Self::ReAct),
            Protocol::Text(format) => Ok(Self::Text(format)),
            Protocol::Native => Err(Error::Protocol { model: model.name().to_owned() }),
        }
    }

    /// How the prompt `agent/retry` calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::ReAct => "react",
            Self::Text(_) => "text",
        }
    }

    /// What to send for the conversation `messages`; with `last`, for an answer without tools.
    pub(super) fn request(self, agent: &Agent, messages: &[Message], last: bool) -> Result<ChatRequest> {
        match self {
            Self::Native => {
                let (instructions, rest) = instructions(agent, messages);
                let system = (!instructions.is_empty()).then(|| Message::system(instructions));
                let mut request = ChatRequest::new(system.into_iter().chain(rest.iter().cloned()).collect());
                request.tools = agent.tools.definitions();
                if last && !request.tools.is_empty() {
                    request.tool_choice = ToolChoice::None;
                }
                Ok(request)
            }
            Self::ReAct => {
                let mut request = ChatRequest::new(as_react(agent, messages)?);
                request.stop = vec![OBSERVATION.to_owned()];
                Ok(request)
            }
            Self::Text(format) => Ok(ChatRequest::new(text::conversation(agent, format, messages)?)),
        }
    }

    /// Takes in the model's answer, its `step`th.
    pub(super) fn read(self, response: ChatResponse, tools: &Toolbox, step: usize) -> Read {
        let ChatResponse { message, finish_reason, .. } = response;
        let ended = |reply| Read { turn: message.clone(), reply, notes: Vec::new() };
        match finish_reason {
            FinishReason::Cancelled => return ended(Reply::Cancelled),
            FinishReason::ContentFilter => return ended(Reply::Withheld),
            _ => {}
        }
        let cut = finish_reason == FinishReason::Length;
        match self {
            Self::Native => native(message, cut, step),
            Self::ReAct => from_react(message, cut, tools, step),
            Self::Text(format) => native(text::read(format, message, tools), cut, step),
        }
    }
}

fn native(mut turn: Message, cut: bool, step: usize) -> Read {
    turn.role = Role::Assistant;
    let mut notes = Vec::new();
    let reply = if !turn.tool_calls.is_empty() {
        number(&mut turn.tool_calls, step);
        if cut {
            notes.push("the turn was cut off at the model's longest length".to_owned());
        }
        Reply::Calls(turn.tool_calls.clone())
    } else if cut {
        Reply::Cut(turn.content.clone())
    } else if turn.content.trim().is_empty() {
        Reply::Unreadable("it is empty".to_owned())
    } else {
        Reply::Answer(turn.content.clone())
    };
    Read { turn, reply, notes }
}

/// Gives an id to each call that has none or another's, so that results can be told apart.
fn number(calls: &mut [ToolCall], step: usize) {
    for index in 0..calls.len() {
        let (before, rest) = calls.split_at_mut(index);
        let call = &mut rest[0];
        let is_own = call
            .id
            .as_ref()
            .is_some_and(|id| !id.is_empty() && before.iter().all(|other| other.id.as_ref() != Some(id)));
        if !is_own {
            call.id = Some(format!("call_{step}_{}", index + 1));
        }
    }
}

fn from_react(message: Message, cut: bool, tools: &Toolbox, step: usize) -> Read {
    let text = message.content.clone();
    let unreadable = |reason: String, notes| Read {
        turn: Message { tool_calls: Vec::new(), ..Message::assistant(text.clone()) },
        reply: Reply::Unreadable(reason),
        notes,
    };
    let react::Step { thought, next, notes } = match react::parse(&text) {
        Ok(step) => step,
        Err(reason) if cut => {
            return unreadable(format!("it was cut off at the model's longest length; {reason}"), Vec::new());
        }
        Err(reason) => return unreadable(reason, Vec::new()),
    };
    let (name, input) = match next {
        react::Next::Answer(answer) => {
            let mut turn = Message::assistant(answer.clone());
            turn.reasoning = (!thought.is_empty()).then_some(thought);
            let reply = if cut { Reply::Cut(answer) } else { Reply::Answer(answer) };
            return Read { turn, reply, notes };
        }
        // Half of an input may mean something else than the whole.
        react::Next::Action { .. } if cut => {
            return unreadable("it was cut off at the model's longest length".to_owned(), notes);
        }
        react::Next::Action { name, input } => (name, input),
    };
    let mut notes = notes;
    // Whether there is such a tool is not for the protocol to judge; nor is the input of one that isn't there.
    let parameters = tools.find(&name).map_or_else(|| json!({}), |entry| entry.definition.parameters.clone());
    let arguments = match react::arguments(&input, &parameters) {
        Ok((arguments, note)) => {
            notes.extend(note);
            arguments
        }
        // The tool says what it takes.
        Err(_) => Value::String(input),
    };
    let call = ToolCall { id: Some(format!("call_{step}_1")), name, arguments };
    let turn = Message::assistant(thought).with_tool_calls(vec![call.clone()]);
    Read { turn, reply: Reply::Calls(vec![call]), notes }
}

#[derive(Serialize)]
struct ToolView<'a> {
    name: &'a str,
    description: &'a str,
    parameters: String,
    arguments: Vec<ArgumentView<'a>>,
}

#[derive(Serialize)]
struct ArgumentView<'a> {
    name: &'a str,
    r#type: String,
    description: &'a str,
    required: bool,
}

/// The conversation as a model that writes ReAct sees it.
fn as_react(agent: &Agent, messages: &[Message]) -> Result<Vec<Message>> {
    let tools: Vec<ToolView<'_>> = agent
        .tools
        .iter()
        .map(|entry| {
            let definition = &entry.definition;
            ToolView {
                name: &definition.name,
                description: &definition.description,
                parameters: definition.parameters.to_string(),
                arguments: argument_views(&definition.parameters),
            }
        })
        .collect();
    let (instructions, rest) = instructions(agent, messages);
    let Prompts { react, .. } = &agent.prompts;
    let mut seen = react.render(json!({ "instructions": instructions, "tools": tools }))?;
    for (index, message) in rest.iter().enumerate() {
        let turns = match message.role {
            Role::Assistant if message.tool_calls.is_empty() => {
                let next = rest.get(index + 1);
                vec![Message::assistant(final_turn(message, next))]
            }
            Role::Assistant => {
                let step = |call: &ToolCall| {
                    let arguments = match &call.arguments {
                        Value::String(text) => text.clone(),
                        arguments => arguments.to_string(),
                    };
                    format!("Action: {}\nAction Input: {arguments}", call.name)
                };
                let steps: Vec<String> = message.tool_calls.iter().map(step).collect();
                let thought = match message.content.trim() {
                    "" => String::new(),
                    thought => format!("Thought: {thought}\n"),
                };
                vec![Message::assistant(thought + &steps.join("\n"))]
            }
            Role::Tool => vec![Message::user(format!("Observation: {}", message.content))],
            Role::System | Role::User => vec![Message::new(message.role, message.content.clone())],
        };
        turns.into_iter().for_each(|turn| append(&mut seen, turn));
    }
    Ok(seen)
}

/// The agent's instructions and those of the conversation, and the rest of the conversation: templates allow one system turn, at the start.
pub(super) fn instructions<'a>(agent: &Agent, messages: &'a [Message]) -> (String, &'a [Message]) {
    let (own, rest) = match messages.split_first() {
        Some((first, rest)) if first.role == Role::System => (Some(first.content.as_str()), rest),
        _ => (None, messages),
    };
    let all: Vec<&str> = agent.system.as_deref().into_iter().chain(own).collect();
    (all.join("\n\n"), rest)
}

/// Many templates want the roles to take turns.
pub(super) fn append(seen: &mut Vec<Message>, turn: Message) {
    match seen.last_mut() {
        Some(last) if last.role == turn.role => {
            last.content.push('\n');
            last.content.push_str(&turn.content);
        }
        _ => seen.push(turn),
    }
}

/// An assistant's turn that calls nothing: an answer, or a reply that could not be read and stands as it was written.
fn final_turn(message: &Message, next: Option<&Message>) -> String {
    let refused = next.is_some_and(|next| next.role == Role::User && next.content.starts_with(OBSERVATION));
    if refused {
        return message.content.clone();
    }
    match message.reasoning.as_deref() {
        Some(thought) => format!("Thought: {thought}\nFinal Answer: {}", message.content),
        None => format!("Final Answer: {}", message.content),
    }
}

fn argument_views(parameters: &Value) -> Vec<ArgumentView<'_>> {
    let required: Vec<&str> = parameters
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let Some(properties) = parameters.get("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    properties
        .iter()
        .map(|(name, schema)| ArgumentView {
            name,
            r#type: type_name(schema),
            description: schema.get("description").and_then(Value::as_str).unwrap_or_default(),
            required: required.contains(&name.as_str()),
        })
        .collect()
}

/// The type of a value in few words; what has no short name is given as its schema.
fn type_name(schema: &Value) -> String {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        return format!("one of {}", values.join(", "));
    }
    let named =
        |kind: &Value| kind.as_str().filter(|kind| !matches!(*kind, "object" | "array")).map(str::to_owned);
    match schema.get("type") {
        // An optional argument may simply be left out.
        Some(Value::Array(kinds)) => {
            let kinds: Vec<&Value> = kinds.iter().filter(|kind| *kind != "null").collect();
            match kinds.as_slice() {
                [kind] => named(kind),
                _ => None,
            }
        }
        Some(kind) => named(kind),
        None => None,
    }
    .unwrap_or_else(|| {
        let mut schema = schema.clone();
        if let Value::Object(schema) = &mut schema {
            schema.remove("description");
        }
        schema.to_string()
    })
}
