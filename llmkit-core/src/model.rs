//! What applications speak: local and remote models alike, behind async, object-safe traits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_core::Stream;
use serde::{Deserialize, Serialize};

use crate::{Message, Result};

/// A model that answers conversations.
#[async_trait]
pub trait LanguageModel: Send + Sync {
    /// The model's name, for logs and errors.
    fn name(&self) -> &str;

    /// Answers the conversation in `request`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when the model cannot answer, [`Error::Generation`](crate::Error::Generation) when a
    /// setting is out of range.
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse>;

    /// Answers the conversation in `request` and hands over the text as it comes; dropping the stream cancels the answer. The last event of
    /// an answer that succeeds is [`ChatEvent::Done`].
    ///
    /// A model that can't stream gives its answer at once.
    ///
    /// # Errors
    /// As [`chat`](Self::chat), here or out of the stream.
    async fn chat_stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let response = self.chat(request).await?;
        let text = ChatEvent::Text(response.message.content.clone());
        Ok(Box::pin(AtOnce(VecDeque::from([text, ChatEvent::Done(response)]))))
    }
}

/// The events of an answer, as [`LanguageModel::chat_stream`] gives them.
pub type ChatStream = Pin<Box<dyn Stream<Item = Result<ChatEvent>> + Send>>;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// More of the answer's text.
    Text(String),
    /// The answer is over; this is all of it.
    Done(ChatResponse),
}

/// Events that are there already.
struct AtOnce(VecDeque<ChatEvent>);

impl Stream for AtOnce {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// A model that turns texts into vectors.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Identifies the model; an index built with one identity cannot be searched with another.
    fn id(&self) -> &str;

    /// The length of each vector.
    fn dimensions(&self) -> usize;

    /// One vector for each text, in order.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when the model fails.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>>;
}

/// A model that scores how well documents answer a query.
#[async_trait]
pub trait Reranker: Send + Sync {
    /// One score for each document, in order; higher is better. The scale is the model's own.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when the model fails.
    async fn rerank(&self, query: &str, documents: &[String]) -> Result<Vec<f32>>;
}

/// A conversation to be answered, and how. Unset settings take the model's own defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation so far; its last turn is usually the user's.
    pub messages: Vec<Message>,
    /// The longest answer, in tokens.
    pub max_tokens: Option<usize>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus sampling: the smallest set of tokens with this probability mass, in (0, 1].
    pub top_p: Option<f32>,
    /// Texts at which the answer ends; they are not part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Fixes sampling.
    pub seed: Option<u64>,
    /// The adapter that answers, by the name under which the model has it; none for the model as it is.
    #[serde(default)]
    pub adapter: Option<String>,
}

impl ChatRequest {
    /// Asks for an answer to `messages` with the model's own settings.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
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
