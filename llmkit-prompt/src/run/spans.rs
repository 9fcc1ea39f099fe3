//! Spans with the names of OpenTelemetry's semantic conventions for generative AI (version 1.41).
//!
//! `tracing` has no lists, so those attributes that are lists there are JSON texts here. Texts of prompts and answers are recorded only
//! where [`Run::with_content`](crate::Run::with_content) asks for it, and messages of errors never, since they may quote them.

use std::sync::OnceLock;

use llmkit_core::{ChatRequest, ChatResponse, FinishReason, LanguageModel, Message, ResponseFormat, Role};
use serde_json::{Value, json};
use tracing::field::Empty;
use tracing::{Span, debug_span, info_span};

use crate::Error;

/// The span of a piece's work, in which the spans of its calls and parts lie.
pub(crate) fn piece(name: &str) -> Span {
    info_span!(
        "piece",
        otel.name = format!("invoke_workflow {name}"),
        otel.kind = "internal",
        otel.status_code = Empty,
        error.type = Empty,
        gen_ai.operation.name = "invoke_workflow",
        gen_ai.workflow.name = name,
    )
}

use crate::agent::ToolResult;

/// The span of one call of a model.
pub(crate) fn chat(parent: &Span, model: &dyn LanguageModel, step: &str, request: &ChatRequest) -> Span {
    let (name, provider) = (model.name(), model.provider());
    let span = info_span!(
        parent: parent,
        "chat",
        otel.name = format!("chat {name}"),
        // A model of this process is called inside it.
        otel.kind = if provider == LOCAL { "internal" } else { "client" },
        otel.status_code = Empty,
        error.type = Empty,
        step,
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = provider,
        gen_ai.output.type = Empty,
        gen_ai.request.model = name,
        gen_ai.request.max_tokens = request.max_tokens,
        gen_ai.request.temperature = request.temperature.map(f64::from),
        gen_ai.request.top_p = request.top_p.map(f64::from),
        gen_ai.request.seed = request.seed,
        gen_ai.request.stop_sequences = Empty,
        gen_ai.response.model = Empty,
        gen_ai.response.finish_reasons = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        gen_ai.usage.cache_read.input_tokens = Empty,
        gen_ai.input.messages = Empty,
        gen_ai.output.messages = Empty,
    );
    if !request.stop.is_empty() {
        span.record("gen_ai.request.stop_sequences", json!(request.stop).to_string());
    }
    if request.response_format != ResponseFormat::Text {
        span.record("gen_ai.output.type", "json");
    }
    span
}

/// What [`LanguageModel::provider`] says of a model in this process.
const LOCAL: &str = "llmkit";

/// Records how a call of the model `model` ended.
pub(crate) fn answered(span: &Span, model: &str, answer: &llmkit_core::Result<ChatResponse>) {
    match answer {
        Ok(response) => {
            let usage = response.usage;
            span.record("gen_ai.response.model", model);
            span.record(
                "gen_ai.response.finish_reasons",
                json!([reason(response.finish_reason)]).to_string(),
            );
            span.record("gen_ai.usage.input_tokens", usage.prompt_tokens);
            span.record("gen_ai.usage.output_tokens", usage.completion_tokens);
            if usage.cached_tokens > 0 {
                span.record("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens);
            }
        }
        Err(error) => failed(span, &core_kind(error)),
    }
}

/// Records what was said, which happens only on demand.
pub(crate) fn said(span: &Span, asked: &[Message], answer: Option<&ChatResponse>) {
    let input: Vec<Value> =
        asked.iter().map(|message| json!({ "role": message.role, "parts": parts(message) })).collect();
    span.record("gen_ai.input.messages", Value::from(input).to_string());
    if let Some(response) = answer {
        let output = json!([{
            "role": response.message.role,
            "parts": parts(&response.message),
            "finish_reason": reason(response.finish_reason),
        }]);
        span.record("gen_ai.output.messages", output.to_string());
    }
}

/// Whether the environment asks for content, by the variable that other languages' instrumentations read.
pub(crate) fn content_by_environment() -> bool {
    static ASKED: OnceLock<bool> = OnceLock::new();
    *ASKED.get_or_init(|| {
        std::env::var("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
            .is_ok_and(|value| asks_for_content(&value))
    })
}

fn asks_for_content(value: &str) -> bool {
    ["true", "1", "span_only", "span_and_event"].iter().any(|known| value.trim().eq_ignore_ascii_case(known))
}

/// The span of filling a prompt's holes.
pub(crate) fn render(prompt: &str) -> Span {
    debug_span!(
        "render",
        otel.name = format!("render {prompt}"),
        otel.kind = "internal",
        otel.status_code = Empty,
        error.type = Empty,
        gen_ai.prompt.name = prompt,
    )
}

/// The span of choosing `count` of `candidates` examples.
pub(crate) fn select(selector: &str, candidates: usize, count: usize) -> Span {
    info_span!(
        "select",
        otel.name = format!("select {selector}"),
        otel.kind = "internal",
        otel.status_code = Empty,
        error.type = Empty,
        selector,
        candidates,
        count,
    )
}

/// The span of reading an answer as something: JSON, a list, a table.
pub(crate) fn parse(kind: &str) -> Span {
    debug_span!(
        "parse",
        otel.name = format!("parse {kind}"),
        otel.kind = "internal",
        otel.status_code = Empty,
        error.type = Empty,
        kind,
    )
}

/// The span of running a tool.
pub(crate) fn tool(name: &str, id: Option<&str>) -> Span {
    info_span!(
        "execute_tool",
        otel.name = format!("execute_tool {name}"),
        otel.kind = "internal",
        otel.status_code = Empty,
        error.type = Empty,
        gen_ai.operation.name = "execute_tool",
        gen_ai.tool.name = name,
        gen_ai.tool.call.id = id,
        gen_ai.tool.type = "function",
    )
}

/// Records how the call of a tool ended.
pub(crate) fn tool_done(span: &Span, result: &ToolResult) {
    let kind = match result {
        ToolResult::Output { .. } => return,
        ToolResult::Failed { .. } => "failed",
        ToolResult::TimedOut { .. } => "timeout",
        ToolResult::Panicked { .. } => "panic",
        ToolResult::NotRun { .. } => "not_run",
    };
    failed(span, kind);
}

/// Marks a span's work as failed; `kind` is one of few words, not a message.
pub(crate) fn failed(span: &Span, kind: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}

/// Does `work` in a span, and marks it where that fails.
pub(crate) fn within<T>(span: Span, work: impl FnOnce() -> crate::Result<T>) -> crate::Result<T> {
    let result = span.in_scope(work);
    ended(&span, result)
}

/// Marks the work as failed where it has failed.
pub(crate) fn ended<T>(span: &Span, result: crate::Result<T>) -> crate::Result<T> {
    if let Err(error) = &result {
        failed(span, &kind(error));
    }
    result
}

/// The kind of an error in few words: an HTTP status where there is one.
pub(crate) fn kind(error: &Error) -> String {
    match error {
        Error::Model(error) => core_kind(error),
        Error::Syntax { .. } | Error::Render { .. } | Error::NotAMap { .. } | Error::MissingValues { .. } => {
            "render".to_owned()
        }
        Error::Parse { .. } => "parse".to_owned(),
        Error::Answer { .. } => "answer".to_owned(),
        Error::NoAnswer { .. } => "no_answer".to_owned(),
        Error::AllSamplesFailed { .. } => "all_samples_failed".to_owned(),
        Error::NotVerified { .. } => "not_verified".to_owned(),
        Error::Setting { .. } => "setting".to_owned(),
        _ => "_OTHER".to_owned(),
    }
}

fn core_kind(error: &llmkit_core::Error) -> String {
    match error {
        llmkit_core::Error::Remote { status: Some(status), .. } => status.to_string(),
        llmkit_core::Error::Remote { .. } => "remote".to_owned(),
        llmkit_core::Error::Model { .. } => "model".to_owned(),
        llmkit_core::Error::Generation { .. } => "generation".to_owned(),
        _ => "_OTHER".to_owned(),
    }
}

/// As OpenAI's API and the conventions' examples spell it.
fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::Cancelled => "cancelled",
    }
}

/// A message in the shape of the conventions' JSON schema.
fn parts(message: &Message) -> Vec<Value> {
    if message.role == Role::Tool {
        return vec![json!({
            "type": "tool_call_response",
            "id": message.tool_call_id,
            "response": message.content,
        })];
    }
    let mut parts = Vec::new();
    if let Some(thoughts) = &message.reasoning {
        parts.push(json!({ "type": "reasoning", "content": thoughts }));
    }
    if !message.content.is_empty() {
        parts.push(json!({ "type": "text", "content": message.content }));
    }
    for call in &message.tool_calls {
        parts.push(json!({
            "type": "tool_call",
            "id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_recorded_only_for_the_values_that_ask_for_it_in_spans() {
        for value in ["true", "True", "SPAN_ONLY", "span_and_event"] {
            assert!(asks_for_content(value), "{value}");
        }
        for value in ["", "false", "0", "NO_CONTENT", "event_only"] {
            assert!(!asks_for_content(value), "{value}");
        }
    }

    #[test]
    fn an_error_is_of_few_kinds() {
        let remote = |status| llmkit_core::Error::Remote {
            model: "m".to_owned(),
            reason: "no".to_owned(),
            status,
            retry_after: None,
            source: None,
        };
        assert_eq!(kind(&remote(Some(429)).into()), "429");
        assert_eq!(kind(&remote(None).into()), "remote");
    }
}
