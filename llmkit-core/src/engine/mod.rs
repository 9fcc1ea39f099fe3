//! A local model that serves many callers.
//!
//! An [`Engine`] owns a model and its adapters on a thread of its own, answers one request after another behind a bounded queue, and
//! is a [`LanguageModel`]: whatever speaks that trait runs on it.
//!
//! ```
//! use llmkit_core::engine::{Engine, EngineConfig};
//! use llmkit_core::models::Pretrained;
//! use llmkit_core::{ChatRequest, Device, Message};
//!
//! # fn main() -> llmkit_core::Result<()> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama/gguf/model.gguf");
//! let model = Pretrained::load(path, &Device::from_env()?.resolve()?)?;
//! let engine = Engine::start(model, EngineConfig::new("tiny"))?;
//! let request = ChatRequest { max_tokens: Some(8), ..ChatRequest::new(vec![Message::user("Hello!")]) };
//! // In async code: `engine.chat(request).await`, or `engine.chat_stream(request).await` for the text as it comes.
//! let response = engine.chat_blocking(request)?;
//! assert!(response.usage.completion_tokens <= 8);
//! # Ok(())
//! # }
//! ```
//!
//! A caller who drops the future or stream of an answer cancels it: the work ends with the token or the part of the prompt that is being
//! computed. What a conversation has in common with one that was answered before is not read again.
//!
//! Tools of a request are shown by the model's chat template, and calls in the model's own format come back in
//! [`tool_calls`](crate::Message::tool_calls); what a thinking model writes between `<think>` and `</think>` comes back as
//! [`reasoning`](crate::Message::reasoning). With the feature `constrained`, answers are held to the request's
//! [`response_format`](ChatRequest::response_format) and [`tool_choice`](ChatRequest::tool_choice) while they are written.
//!
//! Adapters come and go while it works ([`Engine::add_adapter`], [`Engine::remove_adapter`]); replacing one is how new weights are swapped
//! in.

mod adapters;
mod config;
#[cfg(feature = "constrained")]
mod forms;
mod memory;
mod turn;
mod worker;

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use async_trait::async_trait;
use futures_core::Stream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use self::adapters::{Adapters, Loaded};
use self::memory::Memory;
use self::turn::Grammars;
use self::worker::{Job, Worker};
use crate::model::{ChatEvent, ChatStream};
use crate::models::Pretrained;
use crate::{
    Adapter, Capabilities, ChatRequest, ChatResponse, Error, FinishReason, LanguageModel, Message, Result,
    Usage,
};

pub use config::EngineConfig;

/// A model on its own thread. Clones share it; with the last of them the thread ends.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    queue: usize,
    capabilities: Capabilities,
    adapters: Arc<Adapters>,
    /// None only while the engine is being dropped.
    jobs: Option<mpsc::Sender<Job>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread, which takes `pretrained` over.
    ///
    /// # Errors
    /// [`Error::Generation`] when a setting is out of range, [`Error::Model`] when no thread can be started.
    pub fn start(pretrained: Pretrained, config: EngineConfig) -> Result<Self> {
        config.validate()?;
        let (jobs, incoming) = mpsc::channel(config.queue);
        let stopping = Arc::new(AtomicBool::new(false));
        let EngineConfig { name, queue, remembered, adapters } = config;
        let memory = Memory::new(remembered, pretrained.model.config());
        let adapters = Arc::new(Adapters::new(adapters, memory));
        let capabilities = Capabilities::new()
            .with_tools(pretrained.chat_template.tool_calls().is_some())
            .with_json_schema(cfg!(feature = "constrained"))
            .with_context_tokens(pretrained.model.max_positions());
        let worker = Worker {
            name: name.clone(),
            pretrained,
            adapters: adapters.clone(),
            stopping: stopping.clone(),
            grammars: Grammars::default(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("llmkit engine {name}"))
            .spawn(move || worker.run(incoming))
            .map_err(|error| Error::Model {
                model: name.clone(),
                reason: format!("its thread cannot be started: {error}"),
            })?;
        Ok(Self {
            shared: Arc::new(Shared {
                name,
                queue,
                capabilities,
                adapters,
                jobs: Some(jobs),
                stopping,
                thread: Some(thread),
            }),
        })
    }

    /// Lets requests name `adapter` from now on. Gives back the adapter that had the name before, if there was one.
    ///
    /// Requests that were made already keep the adapter that they found. What was remembered of conversations with the one that is
    /// replaced is dropped.
    pub fn add_adapter(
        &self,
        name: impl Into<String>,
        adapter: Arc<dyn Adapter>,
    ) -> Option<Arc<dyn Adapter>> {
        self.shared.adapters.insert(name.into(), adapter)
    }

    /// Takes an adapter away and gives it back, if there is one called `name`.
    ///
    /// Requests that were made already finish with it. What was remembered of conversations with it is dropped.
    pub fn remove_adapter(&self, name: &str) -> Option<Arc<dyn Adapter>> {
        self.shared.adapters.remove(name)
    }

    /// The names of the adapters that requests can name, sorted.
    pub fn adapters(&self) -> Vec<String> {
        self.shared.adapters.names()
    }

    /// Begins an answer, or refuses at once where the queue is full.
    ///
    /// # Errors
    /// [`Error::Model`] when the queue is full or the engine has stopped. What is wrong with the request comes out of the stream.
    pub fn try_chat_stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let (job, events) = self.job(request);
        self.jobs()?.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => self.failed(format!(
                "{} requests are waiting, as many as its queue holds; try again later",
                self.shared.queue
            )),
            TrySendError::Closed(_) => self.stopped(),
        })?;
        Ok(Box::pin(self.events(events)))
    }

    /// Answers from synchronous code.
    ///
    /// # Errors
    /// As [`chat`](LanguageModel::chat).
    ///
    /// # Panics
    /// If called from asynchronous code, which it would block.
    pub fn chat_blocking(&self, request: ChatRequest) -> Result<ChatResponse> {
        self.chat_blocking_with(request, &mut |_| ControlFlow::Continue(()))
    }

    /// Answers from synchronous code and hands over the text as it comes; `on_text` may break to cancel the answer, which is then the text so
    /// far, without its usage.
    ///
    /// # Errors
    /// As [`chat`](LanguageModel::chat).
    ///
    /// # Panics
    /// If called from asynchronous code, which it would block.
    pub fn chat_blocking_with(
        &self,
        request: ChatRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ChatResponse> {
        let (job, mut events) = self.job(request);
        self.jobs()?.blocking_send(job).map_err(|_| self.stopped())?;
        let mut so_far = String::new();
        loop {
            match events.blocking_recv() {
                Some(Ok(ChatEvent::Text(text))) => {
                    so_far += &text;
                    if on_text(&text).is_break() {
                        return Ok(ChatResponse {
                            message: Message::assistant(so_far),
                            finish_reason: FinishReason::Cancelled,
                            usage: Usage::default(),
                        });
                    }
                }
                Some(Ok(ChatEvent::Reasoning(_))) => {}
                Some(Ok(ChatEvent::Done(response))) => return Ok(response),
                Some(Err(error)) => return Err(error),
                None => return Err(self.stopped()),
            }
        }
    }

    fn job(&self, request: ChatRequest) -> (Job, UnboundedReceiver<Result<ChatEvent>>) {
        let adapter = request.adapter.as_deref().map(|name| self.adapter(name)).transpose();
        Job::new(request, adapter)
    }

    fn adapter(&self, name: &str) -> Result<Loaded> {
        self.shared.adapters.get(name).ok_or_else(|| {
            let known = self.adapters();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            self.failed(format!("it has no adapter `{name}`; it has: {known}"))
        })
    }

    fn jobs(&self) -> Result<&mpsc::Sender<Job>> {
        self.shared.jobs.as_ref().ok_or_else(|| self.stopped())
    }

    fn events(&self, events: UnboundedReceiver<Result<ChatEvent>>) -> Events {
        Events { events, stopped: Some(self.stopped()) }
    }

    fn stopped(&self) -> Error {
        self.failed("its engine has stopped".to_owned())
    }

    fn failed(&self, reason: String) -> Error {
        Error::Model { model: self.shared.name.clone(), reason }
    }
}

#[async_trait]
impl LanguageModel for Engine {
    fn name(&self) -> &str {
        &self.shared.name
    }

    /// Tools where the model's chat template shows them in a way that is known; answers held to a schema with the feature `constrained`; the
    /// model's context.
    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        let (job, mut events) = self.job(request);
        self.jobs()?.send(job).await.map_err(|_| self.stopped())?;
        loop {
            match events.recv().await {
                Some(Ok(ChatEvent::Text(_) | ChatEvent::Reasoning(_))) => {}
                Some(Ok(ChatEvent::Done(response))) => return Ok(response),
                Some(Err(error)) => return Err(error),
                None => return Err(self.stopped()),
            }
        }
    }

    async fn chat_stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let (job, events) = self.job(request);
        self.jobs()?.send(job).await.map_err(|_| self.stopped())?;
        Ok(Box::pin(self.events(events)))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // The thread ends when nobody can send any more.
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(model = self.name, "the engine's thread panicked");
        }
    }
}

/// The events of one answer. An engine that stops before the end is an error, not an end.
struct Events {
    events: UnboundedReceiver<Result<ChatEvent>>,
    /// What to report if the channel ends early; none once the answer is over.
    stopped: Option<Error>,
}

impl Stream for Events {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.stopped.is_none() {
            return Poll::Ready(None);
        }
        self.events.poll_recv(context).map(|event| {
            let event = event.or_else(|| self.stopped.take().map(Err))?;
            if !matches!(event, Ok(ChatEvent::Text(_) | ChatEvent::Reasoning(_))) {
                self.stopped = None;
            }
            Some(event)
        })
    }
}
