//! Spans with the names of OpenTelemetry's semantic conventions for generative AI.

use llmkit_core::{ChatRequest, ChatResponse};
use serde_json::to_value;
use tracing::field::Empty;
use tracing::{Span, info_span};

/// The span of one call of a model.
pub(crate) fn chat(model: &str, step: &str, request: &ChatRequest) -> Span {
    let span = info_span!(
        "chat",
        otel.name = format!("chat {model}"),
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
        step,
        gen_ai.operation.name = "chat",
        gen_ai.request.model = model,
        gen_ai.request.max_tokens = Empty,
        gen_ai.request.temperature = Empty,
        gen_ai.request.top_p = Empty,
        gen_ai.request.seed = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        gen_ai.response.finish_reasons = Empty,
    );
    if let Some(max_tokens) = request.max_tokens {
        span.record("gen_ai.request.max_tokens", max_tokens);
    }
    if let Some(temperature) = request.temperature {
        span.record("gen_ai.request.temperature", temperature);
    }
    if let Some(top_p) = request.top_p {
        span.record("gen_ai.request.top_p", top_p);
    }
    if let Some(seed) = request.seed {
        span.record("gen_ai.request.seed", seed);
    }
    span
}

/// Records how the call ended.
pub(crate) fn answered(span: &Span, answer: &llmkit_core::Result<ChatResponse>) {
    match answer {
        Ok(response) => {
            span.record("gen_ai.usage.input_tokens", response.usage.prompt_tokens);
            span.record("gen_ai.usage.output_tokens", response.usage.completion_tokens);
            if let Ok(reason) = to_value(response.finish_reason) {
                span.record("gen_ai.response.finish_reasons", reason.as_str());
            }
        }
        Err(error) => {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", tracing::field::display(error));
        }
    }
}
