use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::EngineConfig;
use super::memory::{Memory, Reading};
use crate::generate::generate;
use crate::model::ChatEvent;
use crate::models::{CachedModel, Pretrained};
use crate::nn::KvCache;
use crate::{Adapter, ChatRequest, ChatResponse, Error, Message, NoAdapter, Result, Usage};

/// A request and where its answer goes. Nobody waits for the answer any more when the other end is gone.
#[derive(Debug)]
pub(super) struct Job {
    request: ChatRequest,
    events: UnboundedSender<Result<ChatEvent>>,
}

impl Job {
    /// The answer's text is at most as long as the request allows, so its channel needs no bound.
    pub(super) fn new(request: ChatRequest) -> (Self, UnboundedReceiver<Result<ChatEvent>>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { request, events }, receiver)
    }
}

/// What runs on the engine's thread: answers jobs in the order in which they came.
pub(super) struct Worker {
    pretrained: Pretrained,
    config: EngineConfig,
    memory: Memory,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    pub(super) fn new(pretrained: Pretrained, config: EngineConfig, stopping: Arc<AtomicBool>) -> Self {
        let memory = Memory::new(config.remembered);
        Self { pretrained, config, memory, stopping }
    }

    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            if job.events.is_closed() {
                continue;
            }
            // What a job leaves behind if it panics is a conversation that is not remembered.
            let answer = catch_unwind(AssertUnwindSafe(|| self.answer(&job))).unwrap_or_else(|panic| {
                let reason = panic.downcast_ref::<String>().map(String::as_str);
                let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied());
                let reason = format!("it panicked: {}", reason.unwrap_or("no reason given"));
                Err(Error::Model { model: self.config.name.clone(), reason })
            });
            // It fails when the caller has gone, to whom it then makes no difference.
            let _ = job.events.send(answer.map(ChatEvent::Done));
        }
    }

    fn answer(&mut self, job: &Job) -> Result<ChatResponse> {
        let request = &job.request;
        let adapter: Arc<dyn Adapter> = match &request.adapter {
            None => Arc::new(NoAdapter),
            Some(name) => {
                self.config.adapters.get(name).cloned().ok_or_else(|| self.no_such_adapter(name))?
            }
        };
        let Pretrained { model, tokenizer, chat_template, generation } = &self.pretrained;
        let config = generation.for_request(request);
        let prompt = chat_template.render(&request.messages, true)?;
        // The template writes the special tokens itself.
        let prompt = tokenizer.encode(&prompt, false)?;
        if prompt.is_empty() {
            return Err(Error::Generation {
                setting: "messages",
                expected: "a conversation that the chat template turns into text",
                found: "none".into(),
            });
        }

        let name = request.adapter.as_deref();
        let (cache, known) = match self.memory.recall(name, &prompt) {
            Some(recalled) => recalled,
            None => (KvCache::new(model.num_blocks()), 0),
        };
        let cached = CachedModel::with_cache(model.as_ref(), adapter.as_ref(), cache);
        let mut next = Reading::new(cached, known);
        let mut decoder = tokenizer.decode_stream(true);
        let generated = generate(&mut next, &mut decoder, &prompt, &config, &mut |event| {
            let text = event.text();
            if !text.is_empty() {
                let _ = job.events.send(Ok(ChatEvent::Text(text.to_owned())));
            }
            if job.events.is_closed() || self.stopping.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let (read, cache) = next.finish();
        let generated = generated?;
        self.memory.keep(request.adapter.clone(), read, cache);
        Ok(ChatResponse {
            usage: Usage { cached_tokens: known, ..generated.usage() },
            finish_reason: generated.finish_reason,
            message: Message::assistant(generated.text),
        })
    }

    fn no_such_adapter(&self, name: &str) -> Error {
        let known: Vec<_> = self.config.adapters.keys().cloned().collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let reason = format!("it has no adapter `{name}`; it has: {known}");
        Error::Model { model: self.config.name.clone(), reason }
    }
}
