use std::pin::Pin;

use futures_core::Stream;
use serde::{Deserialize, Serialize};

use crate::{Message, Result};

/// The events of an answer, as [`LanguageModel::chat_stream`](crate::LanguageModel::chat_stream) gives them.
pub type ChatStream = Pin<Box<dyn Stream<Item = Result<ChatEvent>> + Send>>;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ChatEvent {
    /// More of the answer's text.
    Text(String),
    /// More of what a thinking model thinks before it answers; not part of the text.
    Reasoning(String),
    /// The answer is over; this is all of it.
    Done(ChatResponse),
}

/// A model's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// The assistant's turn.
    pub message: Message,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// What it took.
    pub usage: Usage,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn, or a stop text appeared.
    Stop,
    /// The token limit was reached.
    Length,
    /// The model asks for tools to be run.
    ToolCalls,
    /// The model's server withheld the answer or the rest of it.
    ContentFilter,
    /// The caller cancelled.
    Cancelled,
}

/// Tokens read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// Tokens of the prompt that were remembered from before and not read again.
    #[serde(default)]
    pub cached_tokens: usize,
}
