use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{Adapter, Error, Result};

/// The longest queue.
const MOST_QUEUED: usize = 1 << 20;

/// How an [`Engine`](super::Engine) works.
#[derive(Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// The model's name, for logs and errors.
    pub name: String,
    /// How many requests may wait, from 1 to 1,048,576; default 32.
    pub queue: usize,
    /// How many conversations are remembered, so that their beginnings need not be read again; default 4; the one that is being answered is among
    /// them. Each keeps its keys and values: see [`MemoryPlan`](crate::models::MemoryPlan).
    pub remembered: usize,
    /// What a request's [`adapter`](crate::ChatRequest::adapter) may name at first; see [`Engine::add_adapter`](super::Engine::add_adapter).
    pub adapters: BTreeMap<String, Arc<dyn Adapter>>,
}

impl EngineConfig {
    /// The defaults for a model called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), queue: 32, remembered: 4, adapters: BTreeMap::new() }
    }

    /// Sets [`queue`](Self::queue).
    pub fn with_queue(self, queue: usize) -> Self {
        Self { queue, ..self }
    }

    /// Sets [`remembered`](Self::remembered).
    pub fn with_remembered(self, remembered: usize) -> Self {
        Self { remembered, ..self }
    }

    /// Adds an adapter that requests can name.
    pub fn with_adapter(mut self, name: impl Into<String>, adapter: Arc<dyn Adapter>) -> Self {
        self.adapters.insert(name.into(), adapter);
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Generation`] naming the one that is out of range.
    pub fn validate(&self) -> Result<()> {
        match self.queue {
            1..=MOST_QUEUED => Ok(()),
            found => Err(Error::Generation {
                setting: "queue",
                expected: "from 1 to 1048576 requests",
                found: found.to_string(),
            }),
        }
    }
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EngineConfig")
            .field("name", &self.name)
            .field("queue", &self.queue)
            .field("remembered", &self.remembered)
            .field("adapters", &self.adapters.keys())
            .finish()
    }
}
