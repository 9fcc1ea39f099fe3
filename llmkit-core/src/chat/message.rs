use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who speaks in a [`Message`]. Serialised in lower case, as chat templates expect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that hold for the whole conversation.
    System,
    /// The person, or the program, that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// One turn of a conversation, in the shape that Hugging Face chat templates and OpenAI's API share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "AnyMessage")]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; empty where the turn is tool calls only (`null` is read as empty).
    pub content: String,
    /// What the model thought before it spoke, apart from `content`; templates of thinking models decide how much of it is shown.
    /// Read from `reasoning_content`, `thinking` or `reasoning`, the first of them that is there, and written as `reasoning_content`.
    #[serde(rename = "reasoning_content", skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The calls that an assistant turn makes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// For [`Role::Tool`]: the call that this answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// For [`Role::Tool`]: the tool's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A model's request that a tool be run.
///
/// Serialised as `{"id": .., "type": "function", "function": {"name": .., "arguments": ..}}`, which is what chat templates read. The flat
/// `{"name": .., "arguments": ..}` that models write is read too, and so are arguments that are JSON inside a string.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "AnyToolCall", into = "WrappedToolCall")]
pub struct ToolCall {
    /// Identifies the call; the tool's answer repeats it.
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// The arguments, as a JSON object.
    pub arguments: Value,
}

impl Message {
    /// A turn of `role` that says `content`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// A system turn.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// A user turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// An assistant turn.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// A tool's answer to `call`.
    pub fn tool(call: &ToolCall, content: impl Into<String>) -> Self {
        Self {
            tool_call_id: call.id.clone(),
            name: Some(call.name.clone()),
            ..Self::new(Role::Tool, content)
        }
    }

    /// The turn with this as the thoughts before it.
    pub fn with_reasoning(mut self, reasoning: impl Into<String>) -> Self {
        self.reasoning = Some(reasoning.into());
        self
    }

    /// The turn with these tool calls in place of its own.
    pub fn with_tool_calls(mut self, tool_calls: Vec<ToolCall>) -> Self {
        self.tool_calls = tool_calls;
        self
    }
}

/// A turn as others write it.
#[derive(Deserialize)]
struct AnyMessage {
    role: Role,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

impl From<AnyMessage> for Message {
    fn from(message: AnyMessage) -> Self {
        Self {
            role: message.role,
            content: message.content.unwrap_or_default(),
            reasoning: message.reasoning_content.or(message.thinking).or(message.reasoning),
            tool_calls: message.tool_calls.unwrap_or_default(),
            tool_call_id: message.tool_call_id,
            name: message.name,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Serialize)]
struct WrappedToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    r#type: &'static str,
    function: Function,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AnyToolCall {
    Wrapped {
        #[serde(default)]
        id: Option<String>,
        function: Function,
    },
    Flat {
        #[serde(default)]
        id: Option<String>,
        #[serde(flatten)]
        function: Function,
    },
}

impl From<AnyToolCall> for ToolCall {
    fn from(call: AnyToolCall) -> Self {
        let (AnyToolCall::Wrapped { id, function } | AnyToolCall::Flat { id, function }) = call;
        // OpenAI's API writes the arguments as a string; what does not parse stays one, for the tool to judge.
        let arguments = match function.arguments {
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            arguments => arguments,
        };
        Self { id, name: function.name, arguments }
    }
}

impl From<ToolCall> for WrappedToolCall {
    fn from(call: ToolCall) -> Self {
        let function = Function { name: call.name, arguments: call.arguments };
        Self { id: call.id, r#type: "function", function }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn tool_calls_are_read_in_every_shape_and_written_wrapped() {
        let call = ToolCall { id: Some("7".to_owned()), name: "add".to_owned(), arguments: json!({"a": 1}) };
        let wrapped =
            json!({"id": "7", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}});
        let as_string =
            json!({"id": "7", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}});
        let flat = json!({"id": "7", "name": "add", "arguments": {"a": 1}});
        for shape in [&wrapped, &as_string, &flat] {
            assert_eq!(from_value::<ToolCall>(shape.clone()).unwrap(), call, "{shape}");
        }
        assert_eq!(to_value(&call).unwrap(), wrapped);
    }

    #[test]
    fn a_turn_without_text_is_empty() {
        let message: Message = from_value(json!({"role": "assistant", "content": null})).unwrap();
        assert_eq!(message, Message::assistant(""));
        let tool: Message =
            from_value(json!({"role": "tool", "content": "3", "tool_call_id": "7", "name": "add"})).unwrap();
        let call = ToolCall { id: Some("7".to_owned()), name: "add".to_owned(), arguments: json!({}) };
        assert_eq!(tool, Message::tool(&call, "3"));
    }

    #[test]
    fn thoughts_are_read_under_each_of_their_names() {
        let expected = Message::assistant("4").with_reasoning("two and two");
        for name in ["reasoning_content", "thinking", "reasoning"] {
            let message: Message =
                from_value(json!({"role": "assistant", "content": "4", name: "two and two"})).unwrap();
            assert_eq!(message, expected, "{name}");
        }
        let both = json!({"role": "assistant", "content": "4", "reasoning": "b", "reasoning_content": "two and two"});
        assert_eq!(from_value::<Message>(both).unwrap(), expected);
        assert_eq!(to_value(&expected).unwrap()["reasoning_content"], "two and two");
    }
}
