use futures_util::stream;
use llmkit_core::{ChatEvent, ChatResponse, ChatStream, FinishReason, Usage};

/// A remembered answer as a stream.
pub(super) fn replay(response: ChatResponse) -> ChatStream {
    let mut events = Vec::new();
    if let Some(reasoning) = &response.message.reasoning {
        events.push(Ok(ChatEvent::Reasoning(reasoning.clone())));
    }
    if !response.message.content.is_empty() {
        events.push(Ok(ChatEvent::Text(response.message.content.clone())));
    }
    events.push(Ok(ChatEvent::Done(response)));
    Box::pin(stream::iter(events))
}

/// Whether an answer is complete enough to be given again.
pub(super) fn is_worth_keeping(response: &ChatResponse) -> bool {
    matches!(response.finish_reason, FinishReason::Stop | FinishReason::Length | FinishReason::ToolCalls)
}

/// The answer as it is given again: it costs nothing.
pub(super) fn free(response: ChatResponse) -> (ChatResponse, Usage) {
    let usage = response.usage;
    (ChatResponse { usage: Usage::default(), ..response }, usage)
}
