//! Calls as text in a model's own format.

use llmkit_core::{AnswerReader, Message, Role, ToolCall, ToolCallFormat};
use serde_json::{Value, json};

use super::wire::{append, instructions};
use super::{Agent, Toolbox};
use crate::Result;

/// The conversation as a model sees it whose server knows no tools.
pub(super) fn conversation(
    agent: &Agent,
    format: ToolCallFormat,
    messages: &[Message],
) -> Result<Vec<Message>> {
    let tools: Vec<Value> = agent
        .tools
        .iter()
        .map(|entry| json!({ "definition": json!(entry.definition).to_string(), "name": entry.definition.name }))
        .collect();
    let example =
        ToolCall { id: None, name: "function_name".to_owned(), arguments: json!({ "argument": "value" }) };
    let (instructions, rest) = instructions(agent, messages);
    let mut seen = agent.prompts.text.render(json!({
        "instructions": instructions,
        "tools": tools,
        "example": written(format, &[example]),
    }))?;
    for message in rest {
        let turn = match message.role {
            Role::Assistant if !message.tool_calls.is_empty() => {
                let calls = written(format, &message.tool_calls);
                Message::assistant(if message.content.trim().is_empty() {
                    calls
                } else {
                    format!("{}\n{calls}", message.content)
                })
            }
            Role::Tool => Message::user(format!("<tool_response>\n{}\n</tool_response>", message.content)),
            role => Message::new(role, message.content.clone()),
        };
        append(&mut seen, turn);
    }
    Ok(seen)
}

/// The message with the calls that its text holds.
pub(super) fn read(format: ToolCallFormat, message: Message, tools: &Toolbox) -> Message {
    let mut reader = AnswerReader::new().with_calls(format, &tools.definitions());
    reader.push(&message.content);
    reader.finish();
    let Message { content, tool_calls, .. } = reader.into_message();
    Message { content, tool_calls, ..message }
}

fn written(format: ToolCallFormat, calls: &[ToolCall]) -> String {
    let object = |call: &ToolCall, key: &str| json!({ "name": call.name, key: call.arguments }).to_string();
    let each = |write: &dyn Fn(&ToolCall) -> String, between: &str| {
        calls.iter().map(write).collect::<Vec<_>>().join(between)
    };
    match format {
        ToolCallFormat::Llama3 => each(&|call| object(call, "parameters"), "; "),
        ToolCallFormat::Mistral => {
            format!("[TOOL_CALLS] [{}]", each(&|call| object(call, "arguments"), ", "))
        }
        ToolCallFormat::MistralNamed => {
            each(&|call| format!("[TOOL_CALLS]{}[ARGS]{}", call.name, call.arguments), "")
        }
        ToolCallFormat::QwenCoder => {
            let parameter = |(key, value): (&String, &Value)| match value {
                Value::String(text) => format!("<parameter={key}>\n{text}\n</parameter>\n"),
                value => format!("<parameter={key}>\n{value}\n</parameter>\n"),
            };
            let call = |call: &ToolCall| {
                let parameters: String =
                    call.arguments.as_object().into_iter().flatten().map(parameter).collect();
                format!("<tool_call>\n<function={}>\n{parameters}</function>\n</tool_call>", call.name)
            };
            each(&call, "\n")
        }
        // Hermes, and what is like it.
        _ => each(&|call| format!("<tool_call>\n{}\n</tool_call>", object(call, "arguments")), "\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let call = |name: &str, arguments| ToolCall { id: None, name: name.to_owned(), arguments };
        let calls =
            [call("weather", json!({"city": "Lima", "days": 2})), call("now", json!({"zone": "utc"}))];
        for format in [
            ToolCallFormat::Hermes,
            ToolCallFormat::Llama3,
            ToolCallFormat::Mistral,
            ToolCallFormat::MistralNamed,
            ToolCallFormat::QwenCoder,
        ] {
            let text = written(format, &calls);
            let read = read(format, Message::assistant(text.clone()), &Toolbox::default());
            assert_eq!(read.tool_calls, calls, "{format:?}: {text}");
            assert_eq!(read.content, "", "{format:?}: {text}");
        }
    }
}
