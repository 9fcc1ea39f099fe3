//! A conversation as OpenAI's interface takes it, with each provider's differences.

use llmkit_core::{ChatRequest, Message, ResponseFormat, Role, ToolChoice};
use serde_json::{Map, Value, json};

use super::Provider;
use super::strict::strict_schema;

/// The body of a chat request to `model`. `extra` is the user's own and has the last word.
pub(super) fn chat_body(
    provider: Provider,
    model: &str,
    request: &ChatRequest,
    extra: &Map<String, Value>,
    stream: bool,
) -> Value {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("model", Some(model.into()));
    set("messages", Some(messages(provider, &request.messages)));
    set(provider.max_tokens(), request.max_tokens.map(Value::from));
    set("temperature", request.temperature.map(short));
    set("top_p", request.top_p.map(short));
    set("stop", Some(json!(request.stop)).filter(|_| !request.stop.is_empty()));
    set("seed", request.seed.map(Value::from));
    if !request.tools.is_empty() {
        set("tools", Some(json!(request.tools)));
        set("tool_choice", tool_choice(&request.tool_choice));
    }
    set("response_format", response_format(provider, &request.response_format));
    if stream {
        set("stream", Some(true.into()));
        set("stream_options", Some(json!({"include_usage": true})));
    }
    for (name, value) in extra {
        body.insert(name.clone(), value.clone());
    }
    Value::Object(body)
}

/// A number with the digits that were written: 0.7, not the 0.699999988079071 that it is as a double.
fn short(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn tool_choice(choice: &ToolChoice) -> Option<Value> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some("none".into()),
        ToolChoice::Required => Some("required".into()),
        ToolChoice::Tool(name) => Some(json!({"type": "function", "function": {"name": name}})),
    }
}

fn response_format(provider: Provider, format: &ResponseFormat) -> Option<Value> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::Json => Some(json!({"type": "json_object"})),
        // The one form that both of llama.cpp's servers understand.
        ResponseFormat::JsonSchema { schema, .. } if provider == Provider::LlamaCpp => {
            Some(json!({"type": "json_object", "schema": schema}))
        }
        ResponseFormat::JsonSchema { name, schema } => {
            let strict = if provider == Provider::OpenAi { strict_schema(schema) } else { None };
            let schema = match strict {
                Some(schema) => json!({"name": identifier(name), "schema": schema, "strict": true}),
                None => json!({"name": identifier(name), "schema": schema}),
            };
            Some(json!({"type": "json_schema", "json_schema": schema}))
        }
    }
}

/// A schema's name of the characters that servers allow, at most 64.
fn identifier(name: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let name: String =
        name.chars().take(64).map(|character| if allowed(character) { character } else { '_' }).collect();
    if name.is_empty() { "answer".to_owned() } else { name }
}

fn messages(provider: Provider, messages: &[Message]) -> Value {
    let last_question = messages.iter().rposition(|message| message.role == Role::User);
    // Calls whose answers have not come yet, by name and id: models that give no ids get theirs here.
    let mut open: Vec<(&str, String)> = Vec::new();
    let mut turns = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let mut turn = Map::new();
        turn.insert("role".to_owned(), json!(message.role));
        turn.insert("content".to_owned(), message.content.as_str().into());
        if !message.tool_calls.is_empty() {
            let calls = message.tool_calls.iter().enumerate().map(|(number, call)| {
                let id = call.id.clone().unwrap_or_else(|| format!("call_{index}_{number}"));
                open.push((&call.name, id.clone()));
                let arguments = match &call.arguments {
                    // Servers refuse a conversation with arguments that are no JSON object, even if a model wrote them.
                    Value::String(text) if serde_json::from_str::<Map<String, Value>>(text).is_err() => {
                        json!({ "unreadable": text }).to_string()
                    }
                    Value::String(text) => text.clone(),
                    Value::Null => "{}".to_owned(),
                    arguments => arguments.to_string(),
                };
                json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
            });
            turn.insert("tool_calls".to_owned(), calls.collect());
            if message.content.is_empty() {
                turn.insert("content".to_owned(), Value::Null);
            }
        }
        if message.role == Role::Tool {
            let position = open.iter().position(|(name, id)| match (&message.tool_call_id, &message.name) {
                (Some(wanted), _) => id == wanted,
                (None, Some(wanted)) => name == wanted,
                (None, None) => true,
            });
            let id = position.map(|position| open.remove(position).1);
            let id = message.tool_call_id.clone().or(id);
            turn.insert("tool_call_id".to_owned(), id.map_or(Value::Null, Value::from));
        }
        // Its documentation: thoughts go back while tools are called for them, and not once the user has asked something else.
        let thinks = provider == Provider::DeepSeek && last_question.is_none_or(|last| index > last);
        if let Some(reasoning) = message.reasoning.as_ref().filter(|_| thinks) {
            turn.insert("reasoning_content".to_owned(), reasoning.as_str().into());
        }
        turns.push(Value::Object(turn));
    }
    turns.into()
}

#[cfg(test)]
mod tests {
    use llmkit_core::{ToolCall, ToolDefinition};

    use super::*;

    fn body(provider: Provider, request: &ChatRequest) -> Value {
        chat_body(provider, "m", request, &Map::new(), false)
    }

    #[test]
    fn settings_are_written_only_where_set_and_with_the_digits_given() {
        let plain = ChatRequest::new(vec![Message::user("Hi")]);
        let expected = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        assert_eq!(body(Provider::Other, &plain), expected);

        let request = ChatRequest {
            max_tokens: Some(5),
            temperature: Some(0.7),
            top_p: Some(0.95),
            stop: vec!["\n".to_owned()],
            seed: Some(3),
            ..plain
        };
        let sent = body(Provider::Vllm, &request);
        assert_eq!(
            sent.to_string().split_once(r#","max_tokens":"#).unwrap().1,
            r#"5,"temperature":0.7,"top_p":0.95,"stop":["\n"],"seed":3}"#
        );
        assert_eq!(body(Provider::OpenAi, &request)["max_completion_tokens"], 5);

        let extra = json!({"temperature": 1, "reasoning_effort": "low"});
        let sent = chat_body(Provider::OpenAi, "m", &request, extra.as_object().unwrap(), true);
        assert_eq!((&sent["temperature"], &sent["reasoning_effort"]), (&json!(1), &json!("low")));
        assert_eq!(
            (&sent["stream"], &sent["stream_options"]),
            (&json!(true), &json!({"include_usage": true}))
        );
    }

    #[test]
    fn tools_and_formats_take_each_providers_form() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
        let mut request = ChatRequest::new(vec![Message::user("Hi")]);
        request.tools = vec![ToolDefinition::new("add", "Adds", schema.clone())];
        request.tool_choice = ToolChoice::Tool("add".to_owned());
        request.response_format =
            ResponseFormat::JsonSchema { name: "a sum".to_owned(), schema: schema.clone() };
        let sent = body(Provider::OpenAi, &request);
        assert_eq!(sent["tools"][0]["function"]["name"], "add");
        assert_eq!(sent["tool_choice"], json!({"type": "function", "function": {"name": "add"}}));
        assert_eq!(
            sent["response_format"],
            json!({"type": "json_schema", "json_schema": {"name": "a_sum", "schema": schema, "strict": true}})
        );
        assert_eq!(
            body(Provider::LlamaCpp, &request)["response_format"],
            json!({"type": "json_object", "schema": schema})
        );
        request.tool_choice = ToolChoice::Auto;
        assert!(body(Provider::OpenAi, &request).get("tool_choice").is_none());
        request.response_format = ResponseFormat::Json;
        assert_eq!(body(Provider::DeepSeek, &request)["response_format"], json!({"type": "json_object"}));
    }

    #[test]
    fn arguments_that_are_no_object_are_sent_within_one() {
        let call = |arguments: &str| ToolCall {
            id: Some("1".to_owned()),
            name: "add".to_owned(),
            arguments: Value::from(arguments),
        };
        let calls = vec![call("{\"a\": 1"), call("{\"a\": 1}"), call("[1]")];
        let request = ChatRequest::new(vec![Message::assistant("").with_tool_calls(calls)]);
        let sent = body(Provider::Vllm, &request);
        let sent: Vec<&str> = (0..3)
            .map(|call| sent["messages"][0]["tool_calls"][call]["function"]["arguments"].as_str().unwrap())
            .collect();
        assert_eq!(sent, [r#"{"unreadable":"{\"a\": 1"}"#, r#"{"a": 1}"#, r#"{"unreadable":"[1]"}"#]);
    }

    #[test]
    fn calls_without_ids_get_some_and_their_answers_the_same() {
        let call = |id: Option<&str>, name: &str| ToolCall {
            id: id.map(str::to_owned),
            name: name.to_owned(),
            arguments: json!({"a": 1}),
        };
        let calls = vec![call(None, "add"), call(Some("x"), "mul"), call(None, "add")];
        let request = ChatRequest::new(vec![
            Message::user("Hi"),
            Message::assistant("").with_tool_calls(calls.clone()),
            Message::tool(&calls[1], "2"),
            Message::tool(&calls[0], "3"),
            Message::tool(&calls[2], "4"),
        ]);
        let sent = body(Provider::OpenAi, &request);
        let turns = sent["messages"].as_array().unwrap();
        assert_eq!(turns[1]["content"], Value::Null);
        assert_eq!(turns[1]["tool_calls"][0]["id"], "call_1_0");
        assert_eq!(turns[1]["tool_calls"][0]["function"]["arguments"], r#"{"a":1}"#);
        let ids: Vec<&Value> = turns[2..].iter().map(|turn| &turn["tool_call_id"]).collect();
        assert_eq!(ids, ["x", "call_1_0", "call_1_2"]);
    }

    #[test]
    fn thoughts_go_back_to_deepseek_only_while_it_works_on_the_question() {
        let thought = |text: &str| Message::assistant(text).with_reasoning("hm");
        let request =
            ChatRequest::new(vec![Message::user("1"), thought("a"), Message::user("2"), thought("b")]);
        let sent = body(Provider::DeepSeek, &request);
        assert!(sent["messages"][1].get("reasoning_content").is_none());
        assert_eq!(sent["messages"][3]["reasoning_content"], "hm");
        assert!(body(Provider::OpenAi, &request)["messages"][3].get("reasoning_content").is_none());
    }
}
