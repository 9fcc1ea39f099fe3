use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_core::Stream;

use super::{Capabilities, ChatEvent, ChatRequest, ChatResponse, ChatStream};
use crate::Result;

/// A model that answers conversations.
#[async_trait]
pub trait LanguageModel: Send + Sync {
    /// The model's name, for logs and errors.
    fn name(&self) -> &str;

    /// Who runs the model, as OpenTelemetry's attribute `gen_ai.provider.name` has it: `openai`, `deepseek`. The default is `llmkit`, which
    /// is this process.
    fn provider(&self) -> &str {
        "llmkit"
    }

    /// What the model does by itself. The default is nothing beyond text.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Answers the conversation in `request`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when the model cannot answer, [`Error::Generation`](crate::Error::Generation) when a
    /// setting is out of range or asks for what the model is not [capable](Self::capabilities) of, [`Error::Remote`](crate::Error::Remote)
    /// when the model is behind a network that fails.
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

/// Passes a trait's methods on to what a pointer points to, so that a shared model is a model.
macro_rules! through_pointers {
    ($(<$T:ident> $pointer:ty),+) => {$(
        #[async_trait]
        impl<$T: LanguageModel + ?Sized> LanguageModel for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn provider(&self) -> &str {
                (**self).provider()
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
                (**self).chat(request).await
            }

            async fn chat_stream(&self, request: ChatRequest) -> Result<ChatStream> {
                (**self).chat_stream(request).await
            }
        }

        #[async_trait]
        impl<$T: Embedder + ?Sized> Embedder for $pointer {
            fn id(&self) -> &str {
                (**self).id()
            }

            fn dimensions(&self) -> usize {
                (**self).dimensions()
            }

            async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
                (**self).embed(texts).await
            }
        }
    )+};
}

through_pointers!(<T> &T, <T> Arc<T>, <T> Box<T>);
