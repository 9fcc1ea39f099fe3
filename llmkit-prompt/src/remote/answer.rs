//! A server's answer, whole or in pieces, as a [`ChatResponse`].

use llmkit_core::{ChatEvent, ChatResponse, FinishReason, Message, Role, ToolCall, Usage};
use serde_json::{Value, json};

use super::failure::{Failure, QUOTE, ServerError};
use super::secrets::Secrets;

/// The most calls in one answer.
const MAX_CALLS: usize = 256;

/// An answer as it is put together.
#[derive(Debug, Default)]
pub(super) struct Answer {
    content: String,
    reasoning: String,
    calls: Vec<PartialCall>,
    finish: Option<String>,
    refused: bool,
    usage: Usage,
    /// Whether there was a choice, which an answer must have.
    begun: bool,
}

#[derive(Debug, Default)]
struct PartialCall {
    index: Option<u64>,
    id: Option<String>,
    name: String,
    /// The text of the arguments, or all of them from servers that write an object.
    arguments: String,
}

impl Answer {
    /// Adds an answer that came as a whole.
    pub(super) fn add_whole(&mut self, answer: &Value, secrets: &Secrets) -> Result<(), Failure> {
        self.add(answer, secrets).map(|_| ())
    }

    /// Adds a piece of an answer, or all of it, and gives what it says.
    ///
    /// # Errors
    /// The error that the server reports in place of a piece, or that it is no piece of an answer.
    pub(super) fn add(&mut self, piece: &Value, secrets: &Secrets) -> Result<Vec<ChatEvent>, Failure> {
        if let Some(error) = piece.get("error").filter(|error| !error.is_null()) {
            return Err(reported(error, secrets));
        }
        let choices = piece.get("choices").and_then(Value::as_array);
        if let Some(usage) = piece.get("usage").filter(|usage| usage.is_object()) {
            self.usage = read_usage(usage);
        }
        let Some(choices) = choices else {
            // A piece that holds the usage alone may have no choices at all.
            if piece.get("usage").is_some_and(Value::is_object) {
                return Ok(Vec::new());
            }
            return Err(Failure::new(format!(
                "the answer has no `choices`: is this an OpenAI-compatible server? It says: {}",
                secrets.quote(&piece.to_string(), QUOTE)
            )));
        };
        let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        let Some(choice) = choices.iter().find(first) else { return Ok(Vec::new()) };
        self.begun = true;
        let mut events = Vec::new();
        let said =
            [choice.get("delta"), choice.get("message")].into_iter().flatten().find(|said| said.is_object());
        if let Some(said) = said {
            self.add_said(said, &mut events)?;
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            if reason == "insufficient_system_resource" {
                return Err(
                    Failure::new("the server ran out of resources midway: try again later").transient()
                );
            }
            self.finish = Some(reason.to_owned());
        }
        Ok(events)
    }

    fn add_said(&mut self, said: &Value, events: &mut Vec<ChatEvent>) -> Result<(), Failure> {
        let (mut text, mut thoughts) = (String::new(), String::new());
        for name in ["reasoning_content", "reasoning", "thinking"] {
            if let Some(reasoning) = said.get(name).and_then(Value::as_str) {
                thoughts.push_str(reasoning);
                break;
            }
        }
        match said.get("content") {
            Some(Value::String(content)) => text.push_str(content),
            Some(Value::Array(parts)) => {
                for part in parts {
                    match part.get("text") {
                        Some(Value::String(content)) => text.push_str(content),
                        _ => thoughts.push_str(&thought(part)),
                    }
                }
            }
            _ => {}
        }
        if let Some(refusal) =
            said.get("refusal").and_then(Value::as_str).filter(|refusal| !refusal.is_empty())
        {
            self.refused = true;
            text.push_str(refusal);
        }
        let calls = said.get("tool_calls").and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            self.add_call(call)?;
        }
        if !thoughts.is_empty() {
            self.reasoning.push_str(&thoughts);
            events.push(ChatEvent::Reasoning(thoughts));
        }
        if !text.is_empty() {
            self.content.push_str(&text);
            events.push(ChatEvent::Text(text));
        }
        Ok(())
    }

    /// Calls come in pieces that name their place; the first piece of each has the id and the name. Some servers send whole calls that all claim the
    /// same place, or none: another id there, or a whole call after a whole call, is another call.
    fn add_call(&mut self, call: &Value) -> Result<(), Failure> {
        let index = call.get("index").and_then(Value::as_u64);
        let id = call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let function = call.get("function").unwrap_or(call);
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        let arguments = match function.get("arguments") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(arguments) => arguments.to_string(),
        };
        let continues = |open: &PartialCall| {
            open.index == index
                && match id {
                    Some(id) => open.id.as_deref().is_none_or(|other| other == id),
                    None => true,
                }
                // Without an id and a place, a name begins a call.
                && (id.is_some() || index.is_some() || name.is_empty())
                // What has a whole object for arguments is not continued.
                && (name.is_empty() || !is_whole(&arguments) || !is_whole(&open.arguments))
        };
        let full = self.calls.len() == MAX_CALLS;
        match self.calls.iter_mut().rev().find(|open| continues(open)) {
            Some(open) => {
                if open.id.is_none() {
                    open.id = id.map(str::to_owned);
                }
                // Some servers repeat the whole name with every piece, some send it in pieces.
                if open.name != name {
                    open.name.push_str(name);
                }
                open.arguments.push_str(&arguments);
            }
            None if full => {
                return Err(Failure::new(format!("the answer has more than {MAX_CALLS} tool calls")));
            }
            None => self.calls.push(PartialCall {
                index,
                id: id.map(str::to_owned),
                name: name.to_owned(),
                arguments,
            }),
        }
        Ok(())
    }

    /// Whether the server has said why the answer ended.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// How much has come, for the error that says that the rest will not.
    pub(super) fn so_far(&self) -> String {
        let calls = if self.calls.is_empty() {
            String::new()
        } else {
            format!(" and {} tool calls", self.calls.len())
        };
        format!("{} characters of text{calls}", self.content.chars().count())
    }

    /// The answer, now that all of it is there.
    pub(super) fn finish(self) -> Result<ChatResponse, Failure> {
        if !self.begun {
            return Err(Failure::new("the answer has no choices, so no text").transient());
        }
        let calls: Vec<ToolCall> = self.calls.into_iter().map(whole_call).collect();
        let finish_reason = match self.finish.as_deref() {
            _ if self.refused => FinishReason::ContentFilter,
            Some("length" | "max_tokens" | "model_length") => FinishReason::Length,
            Some("content_filter" | "safety") => FinishReason::ContentFilter,
            Some("abort" | "cancelled") => FinishReason::Cancelled,
            // Several servers end a turn of calls with "stop".
            _ if !calls.is_empty() => FinishReason::ToolCalls,
            Some(
                "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" | "tool_calls" | "function_call",
            ) => FinishReason::Stop,
            other => {
                tracing::warn!(
                    finish_reason = other,
                    "the server gives no known reason for the end of its answer"
                );
                FinishReason::Stop
            }
        };
        let message = Message {
            reasoning: Some(self.reasoning).filter(|reasoning| !reasoning.is_empty()),
            tool_calls: calls,
            ..Message::new(Role::Assistant, self.content)
        };
        Ok(ChatResponse { message, finish_reason, usage: self.usage })
    }
}

/// An error that stands where an answer should.
pub(super) fn reported(error: &Value, secrets: &Secrets) -> Failure {
    let said = ServerError::from_value(&json!({"error": error}), secrets);
    let code = said.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
    let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let status = status.filter(|status| (400..600).contains(status));
    let retry = status.is_some_and(|status| matches!(status, 408 | 409 | 429 | 500..=599));
    Failure { status, retry, ..Failure::new(format!("the server reports an error{code}: {}", said.message)) }
}

/// The text of a part of a message that holds thoughts: `{"type": "thinking", "thinking": ".."}`, or a list of texts in its place.
fn thought(part: &Value) -> String {
    match part.get("thinking") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        _ => String::new(),
    }
}

/// Whether a text is a JSON object. It is asked for every piece, so a long text, which no server repeats, isn't read.
fn is_whole(arguments: &str) -> bool {
    const LONGEST: usize = 16 << 10;
    arguments.len() <= LONGEST && serde_json::from_str::<serde_json::Map<String, Value>>(arguments).is_ok()
}

fn whole_call(call: PartialCall) -> ToolCall {
    let PartialCall { id, name, arguments, .. } = call;
    let arguments = match arguments.trim() {
        // A tool without parameters.
        "" => json!({}),
        // What does not parse stays a text, for the tool to judge.
        text => serde_json::from_str(text).unwrap_or(Value::String(arguments)),
    };
    ToolCall { id, name, arguments }
}

fn read_usage(usage: &Value) -> Usage {
    let number =
        |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    let cached = number(usage.pointer("/prompt_tokens_details/cached_tokens"));
    Usage {
        prompt_tokens: number(usage.get("prompt_tokens")).unwrap_or(0),
        completion_tokens: number(usage.get("completion_tokens")).unwrap_or(0),
        // DeepSeek's name for it.
        cached_tokens: cached.or(number(usage.get("prompt_cache_hit_tokens"))).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[Value]) -> Result<(Vec<ChatEvent>, ChatResponse), Failure> {
        let (mut answer, mut events) = (Answer::default(), Vec::new());
        for piece in pieces {
            events.extend(answer.add(piece, &Secrets::default())?);
        }
        Ok((events, answer.finish()?))
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}], "usage": null})
    }

    fn end(reason: &str) -> Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    }

    #[test]
    fn text_and_thoughts_come_in_pieces_and_the_usage_last() {
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}});
        let (events, response) = read(&[
            delta(json!({"role": "assistant", "content": ""})),
            delta(json!({"reasoning_content": "hm"})),
            delta(json!({"content": "Hel"})),
            json!({"choices": [{"index": 1, "delta": {"content": "another"}}]}),
            delta(json!({"content": "lo"})),
            end("length"),
            usage,
        ])
        .unwrap();
        let text = |text: &str| ChatEvent::Text(text.to_owned());
        assert_eq!(events, [ChatEvent::Reasoning("hm".to_owned()), text("Hel"), text("lo")]);
        assert_eq!(response.message, Message::assistant("Hello").with_reasoning("hm"));
        assert_eq!(response.finish_reason, FinishReason::Length);
        assert_eq!(response.usage, Usage { prompt_tokens: 7, completion_tokens: 2, cached_tokens: 4 });
    }

    #[test]
    fn calls_are_put_together_however_servers_cut_them() {
        let call = |id: Option<&str>, name: &str, arguments: Value| ToolCall {
            id: id.map(str::to_owned),
            name: name.to_owned(),
            arguments,
        };
        let calls = |pieces: &[Value]| read(pieces).unwrap().1.message.tool_calls;
        // OpenAI: pieces by place, interleaved.
        let openai = calls(&[
            delta(
                json!({"tool_calls": [{"index": 0, "id": "x", "function": {"name": "add", "arguments": ""}}]}),
            ),
            delta(
                json!({"tool_calls": [{"index": 1, "id": "y", "function": {"name": "mul", "arguments": "{\"a\""}}]}),
            ),
            delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"b\": 2}"}}]})),
            delta(json!({"tool_calls": [{"index": 1, "function": {"arguments": ": 1}"}}]})),
            end("tool_calls"),
        ]);
        let expected = [call(Some("x"), "add", json!({"b": 2})), call(Some("y"), "mul", json!({"a": 1}))];
        assert_eq!(openai, expected);
        // Whole calls that all claim the first place, with ids and without.
        let piece = |id: Option<&str>, name: &str, arguments: &str| {
            delta(
                json!({"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": arguments}}]}),
            )
        };
        let ids = calls(&[piece(Some("x"), "add", "{\"b\": 2}"), piece(Some("y"), "mul", "{\"a\": 1}")]);
        assert_eq!(ids, expected);
        let none = calls(&[piece(None, "add", "{\"b\": 2}"), piece(None, "add", "{\"b\": 3}")]);
        assert_eq!(none, [call(None, "add", json!({"b": 2})), call(None, "add", json!({"b": 3}))]);
        // Objects for arguments, no place, no id; a name alone.
        let objects = calls(&[delta(
            json!({"tool_calls": [{"function": {"name": "add", "arguments": {"b": 2}}}, {"function": {"name": "now"}}]}),
        )]);
        assert_eq!(objects, [call(None, "add", json!({"b": 2})), call(None, "now", json!({}))]);
        // A name with every piece.
        let again = calls(&[piece(Some("x"), "add", "{\"b\""), piece(Some("x"), "add", ": 2}")]);
        assert_eq!(again, [call(Some("x"), "add", json!({"b": 2}))]);
        // What is not JSON is for the tool to judge.
        assert_eq!(calls(&[piece(Some("x"), "add", "{b}")]), [call(Some("x"), "add", json!("{b}"))]);
    }

    #[test]
    fn calls_that_end_with_stop_are_calls_and_a_refusal_is_a_filter() {
        let whole = |message: Value, reason: &str| {
            let answer = json!({"choices": [{"message": message, "finish_reason": reason}]});
            read(&[answer]).unwrap().1
        };
        let calls = json!({"content": null, "tool_calls": [{"id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
        let response = whole(calls, "stop");
        assert_eq!(response.finish_reason, FinishReason::ToolCalls);
        assert_eq!(response.message.tool_calls[0].id, None);
        let refusal = whole(json!({"content": null, "refusal": "No."}), "stop");
        assert_eq!(
            (refusal.finish_reason, refusal.message.content.as_str()),
            (FinishReason::ContentFilter, "No.")
        );
        let parts = json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Yes"}]});
        assert_eq!(whole(parts, "stop").message, Message::assistant("Yes").with_reasoning("hm"));
        for (reason, expected) in [
            ("stop", FinishReason::Stop),
            ("eos_token", FinishReason::Stop),
            ("content_filter", FinishReason::ContentFilter),
            ("abort", FinishReason::Cancelled),
            ("whim", FinishReason::Stop),
        ] {
            assert_eq!(whole(json!({"content": "x"}), reason).finish_reason, expected, "{reason}");
        }
    }

    #[test]
    fn errors_in_place_of_answers_are_errors() {
        let error = read(&[json!({"error": {"message": "overloaded", "code": 503}})]).unwrap_err();
        assert_eq!((error.status, error.retry), (Some(503), true));
        assert!(error.reason.contains("overloaded"), "{}", error.reason);
        assert!(read(&[json!({"error": "no"})]).unwrap_err().reason.ends_with(": no"));
        assert!(read(&[json!({"hello": 1})]).unwrap_err().reason.contains("no `choices`"));
        assert!(read(&[json!({"choices": []})]).unwrap_err().reason.contains("no choices"));
        assert!(read(&[json!(7)]).is_err());
    }
}
