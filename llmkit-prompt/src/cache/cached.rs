use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::lock::Mutex as AsyncMutex;
use llmkit_core::{Capabilities, ChatEvent, ChatRequest, ChatResponse, ChatStream, LanguageModel, Result};

use super::replay::{free, is_worth_keeping, replay};
use super::{CacheKey, CacheStore, MemoryStore, Record};

/// A model whose answers are remembered, and given again to the very same request: the same model name, adapter, conversation, tools, format and sampling
/// settings.
///
/// A remembered answer has a [usage](ChatResponse::usage) of zero, for it costs nothing; what it saved is in the [statistics](Self::stats). Requests
/// that are sampled (a temperature above 0 without a seed) ask for different answers, so they go to the model unless
/// [`with_sampled_answers`](Self::with_sampled_answers) says otherwise; one that sets no temperature is taken to mean what it says. Answers that were
/// withheld or cancelled are not kept.
///
/// Of the same requests at the same time, one goes to the model and the others wait for its answer; when it fails or is dropped, the next takes its place.
/// Streams don't wait for each other. A store that fails is a miss and is counted, not an error.
///
/// ```
/// use llmkit_core::{ChatRequest, LanguageModel, Message};
/// use llmkit_prompt::cache::Cached;
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = Cached::new(ScriptedModel::new(["A deep dish."]));
/// let question = ChatRequest::new(vec![Message::user("What is a tureen?")]);
/// let first = model.chat(question.clone()).await?;
/// let second = model.chat(question).await?;
/// assert_eq!(first.message, second.message);
/// assert_eq!((model.stats().hits, model.stats().misses), (1, 1));
/// # Ok::<(), llmkit_core::Error>(())
/// # }).unwrap();
/// ```
pub struct Cached<M> {
    model: M,
    scope: String,
    memory: Arc<Memory>,
    sampled: bool,
    /// One lock for each request that is being answered.
    working: Mutex<HashMap<CacheKey, Arc<AsyncMutex<()>>>>,
}

/// The store and what happened to it; streams hold it until they end.
struct Memory {
    store: Box<dyn CacheStore>,
    ttl: Option<Duration>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
    expired: AtomicU64,
    store_errors: AtomicU64,
    prompt_tokens_saved: AtomicU64,
    completion_tokens_saved: AtomicU64,
}

/// What a cache has done so far.
///
/// ```
/// use llmkit_prompt::cache::Cached;
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let model = Cached::new(ScriptedModel::new(["never asked"]));
/// assert_eq!(model.stats().hits, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Requests answered from memory.
    pub hits: u64,
    /// Requests that went to the model, and whose answers are kept.
    pub misses: u64,
    /// Requests that are not for the cache, such as sampled ones.
    pub bypassed: u64,
    /// Of the misses, those whose answer was there but too old.
    pub expired: u64,
    /// How often the store failed or held what is no answer.
    pub store_errors: u64,
    /// Tokens of prompts that were not read again.
    pub prompt_tokens_saved: u64,
    /// Tokens of answers that were not written again.
    pub completion_tokens_saved: u64,
}

impl<M: LanguageModel> Cached<M> {
    /// `model` with a [`MemoryStore`].
    pub fn new(model: M) -> Self {
        let memory = Memory { store: Box::new(MemoryStore::new()), ttl: None, counts: Counts::default() };
        Self {
            model,
            scope: String::new(),
            memory: Arc::new(memory),
            sampled: false,
            working: Mutex::default(),
        }
    }

    /// Keeps answers in `store`. What was counted so far is forgotten.
    pub fn with_store(self, store: impl CacheStore + 'static) -> Self {
        let memory = Memory { store: Box::new(store), ttl: self.memory.ttl, counts: Counts::default() };
        Self { memory: Arc::new(memory), ..self }
    }

    /// Forgets answers that are older. Default: none is too old. Set after [`with_store`](Self::with_store), before the first request.
    ///
    /// # Panics
    /// If a stream of this cache is still being read.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        Arc::get_mut(&mut self.memory).expect("no stream is being read").ttl = Some(ttl);
        self
    }

    /// Sets what tells this model from others of its name, such as its address or the date of its weights. Default empty.
    pub fn with_scope(self, scope: impl Into<String>) -> Self {
        Self { scope: scope.into(), ..self }
    }

    /// Remembers sampled answers too: every sample of a request is then the first one.
    pub fn with_sampled_answers(self) -> Self {
        Self { sampled: true, ..self }
    }

    /// What the cache has done so far.
    pub fn stats(&self) -> CacheStats {
        let counts = &self.memory.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CacheStats {
            hits: read(&counts.hits),
            misses: read(&counts.misses),
            bypassed: read(&counts.bypassed),
            expired: read(&counts.expired),
            store_errors: read(&counts.store_errors),
            prompt_tokens_saved: read(&counts.prompt_tokens_saved),
            completion_tokens_saved: read(&counts.completion_tokens_saved),
        }
    }

    /// The key of a request, unless it is not for the cache.
    fn key(&self, request: &ChatRequest) -> Option<CacheKey> {
        let sampled =
            request.temperature.is_some_and(|temperature| temperature > 0.0) && request.seed.is_none();
        if sampled && !self.sampled {
            add(&self.memory.counts.bypassed, 1);
            return None;
        }
        let model = format!("{}\n{}", self.model.name(), self.scope);
        Some(CacheKey::of_chat(&model, request))
    }

    fn working(&self) -> MutexGuard<'_, HashMap<CacheKey, Arc<AsyncMutex<()>>>> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn get(&self, key: CacheKey) -> Option<ChatResponse> {
        let record = self.checked(self.store.get(key))??;
        if record.is_older_than(self.ttl) {
            add(&self.counts.expired, 1);
            return None;
        }
        let response = self.checked(serde_json::from_slice(&record.bytes).map_err(Into::into))?;
        let (response, usage) = free(response);
        add(&self.counts.hits, 1);
        add(&self.counts.prompt_tokens_saved, usage.prompt_tokens as u64);
        add(&self.counts.completion_tokens_saved, usage.completion_tokens as u64);
        tracing::debug!(%key, "answered from the cache");
        Some(response)
    }

    fn put(&self, key: CacheKey, response: &ChatResponse) {
        add(&self.counts.misses, 1);
        if is_worth_keeping(response) {
            let bytes = serde_json::to_vec(response).map_err(Into::into);
            self.checked(bytes.and_then(|bytes| self.store.put(key, Record::new(bytes))));
        }
    }

    fn checked<T>(&self, result: std::io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                add(&self.counts.store_errors, 1);
                tracing::warn!(%error, "the cache's store failed");
            })
            .ok()
    }
}

fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}

/// Removes a request's lock when the last one that waits for it is gone.
struct Waiting<'a, M: LanguageModel> {
    cache: &'a Cached<M>,
    key: CacheKey,
    /// None only while it is dropped.
    lock: Option<Arc<AsyncMutex<()>>>,
}

impl<M: LanguageModel> Drop for Waiting<'_, M> {
    fn drop(&mut self) {
        let mut working = self.cache.working();
        // Given up under the map's lock, so that of two that end at once the second sees that only the map's is left.
        self.lock = None;
        if working.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            working.remove(&self.key);
        }
    }
}

#[async_trait]
impl<M: LanguageModel> LanguageModel for Cached<M> {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn provider(&self) -> &str {
        self.model.provider()
    }

    fn capabilities(&self) -> Capabilities {
        self.model.capabilities()
    }

    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        let Some(key) = self.key(&request) else { return self.model.chat(request).await };
        let lock = self.working().entry(key).or_default().clone();
        let waiting = Waiting { cache: self, key, lock: Some(lock) };
        let _turn = waiting.lock.as_ref().expect("it is there until this is dropped").lock().await;
        if let Some(response) = self.memory.get(key) {
            return Ok(response);
        }
        let response = self.model.chat(request).await?;
        self.memory.put(key, &response);
        Ok(response)
    }

    async fn chat_stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let Some(key) = self.key(&request) else { return self.model.chat_stream(request).await };
        if let Some(response) = self.memory.get(key) {
            return Ok(replay(response));
        }
        let memory = self.memory.clone();
        let stream = self.model.chat_stream(request).await?;
        Ok(Box::pin(stream.inspect(move |event| {
            if let Ok(ChatEvent::Done(response)) = event {
                memory.put(key, response);
            }
        })))
    }
}

impl<M: LanguageModel> fmt::Debug for Cached<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("model", &self.name())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
