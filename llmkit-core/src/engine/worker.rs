use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::adapters::{Adapters, Loaded};
use super::memory::Reading;
use super::turn::{Grammars, Turn, number_calls};
use crate::generate;
use crate::model::ChatEvent;
use crate::models::{CachedModel, Pretrained};
use crate::nn::KvCache;
use crate::{Adapter, AnswerPart, ChatRequest, ChatResponse, Error, FinishReason, NoAdapter, Result, Usage};

/// A request and where its answer goes. Nobody waits for the answer any more when the other end is gone.
pub(super) struct Job {
    request: ChatRequest,
    /// What the request's adapter was when it was made; a request keeps it, whatever becomes of the name.
    adapter: Result<Option<Loaded>>,
    events: UnboundedSender<Result<ChatEvent>>,
}

impl Job {
    /// The answer's text is at most as long as the request allows, so its channel needs no bound.
    pub(super) fn new(
        request: ChatRequest,
        adapter: Result<Option<Loaded>>,
    ) -> (Self, UnboundedReceiver<Result<ChatEvent>>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { request, adapter, events }, receiver)
    }
}

/// What runs on the engine's thread: answers jobs in the order in which they came.
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) pretrained: Pretrained,
    pub(super) adapters: Arc<Adapters>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) grammars: Grammars,
}

impl Worker {
    pub(super) fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            if job.events.is_closed() {
                continue;
            }
            let Job { request, adapter, events } = job;
            // What a job leaves behind if it panics is a conversation that is not remembered.
            let answer = catch_unwind(AssertUnwindSafe(|| self.answer(&request, adapter?, &events)))
                .unwrap_or_else(|panic| {
                    let reason = panic.downcast_ref::<String>().map(String::as_str);
                    let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied());
                    let reason = format!("it panicked: {}", reason.unwrap_or("no reason given"));
                    Err(Error::Model { model: self.name.clone(), reason })
                });
            // It fails when the caller has gone, to whom it then makes no difference.
            let _ = events.send(answer.map(ChatEvent::Done));
        }
    }

    fn answer(
        &self,
        request: &ChatRequest,
        loaded: Option<Loaded>,
        events: &UnboundedSender<Result<ChatEvent>>,
    ) -> Result<ChatResponse> {
        let (id, adapter): (_, Arc<dyn Adapter>) = match loaded {
            None => (None, Arc::new(NoAdapter)),
            Some(Loaded { id, adapter }) => (Some(id), adapter),
        };
        let model = &self.pretrained.model;
        let Turn { prompt, config, mut decoder, mut reader, mut constraint } =
            Turn::new(request, &self.pretrained, &self.grammars)?;

        let mut memory = self.adapters.memory();
        let recalled = memory.recall(id, &prompt, config.max_new_tokens);
        memory.make_room();
        // Others may forget a conversation while this one goes on.
        drop(memory);
        let (cache, known) = recalled.unwrap_or_else(|| (KvCache::new(model.num_blocks()), 0));
        let cached = CachedModel::with_cache(model.as_ref(), adapter.as_ref(), cache);
        let mut next = Reading::new(cached, known);
        let send = |parts: Vec<AnswerPart>| {
            for part in parts {
                let event = match part {
                    AnswerPart::Text(text) => ChatEvent::Text(text),
                    AnswerPart::Reasoning(text) => ChatEvent::Reasoning(text),
                    // Calls come with the whole answer.
                    _ => continue,
                };
                let _ = events.send(Ok(event));
            }
        };
        let constraint: Option<&mut dyn generate::Constraint> = match &mut constraint {
            Some(constraint) => Some(constraint.as_mut()),
            None => None,
        };
        let generated = generate::run(&mut next, &mut decoder, &prompt, &config, constraint, &mut |event| {
            send(reader.push(event.text()));
            if events.is_closed() || self.stopping.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let (read, cache) = next.finish();
        let generated = generated?;
        let mut memory = self.adapters.memory();
        if id.is_none_or(|id| self.adapters.has(id)) {
            memory.keep(id, read, cache);
        }
        drop(memory);
        if self.stopping.load(Ordering::Relaxed) && generated.finish_reason == FinishReason::Cancelled {
            let reason = "its engine has stopped before the answer was complete".to_owned();
            return Err(Error::Model { model: self.name.clone(), reason });
        }
        send(reader.finish());
        let mut message = reader.into_message();
        number_calls(&request.messages, &mut message);
        let finish_reason = match generated.finish_reason {
            FinishReason::Stop if !message.tool_calls.is_empty() => FinishReason::ToolCalls,
            reason => reason,
        };
        Ok(ChatResponse {
            usage: Usage { cached_tokens: known, ..generated.usage() },
            finish_reason,
            message,
        })
    }
}
