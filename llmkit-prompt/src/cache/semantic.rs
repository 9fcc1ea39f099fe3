use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use llmkit_core::{
    Capabilities, ChatEvent, ChatRequest, ChatResponse, ChatStream, Embedder, Error, LanguageModel, Result,
    Role,
};

use super::CacheKey;
use super::replay::{free, is_worth_keeping, replay};

/// The questions kept unless told otherwise.
const MAX_ENTRIES: usize = 1000;

/// A model whose answer to a similar question is given again.
///
/// Questions are similar when the cosine of their vectors reaches a threshold. The question is the last turn, the user's; all else (the turns before it,
/// adapter, tools, format, sampling settings) must be the same. Similar is not the same: "in 2023" and "in 2024" are close to most embedders, so choose a
/// high threshold, and look at the [report](Self::chat_with_report). Up to 1,000 questions are kept, the oldest forgotten first; each request looks at all of them.
///
/// ```
/// use llmkit_core::{ChatRequest, Message};
/// use llmkit_prompt::cache::{CacheReport, SemanticCache};
/// use llmkit_prompt::testing::{HashEmbedder, ScriptedModel};
///
/// # pollster::block_on(async {
/// let ask = |text: &str| ChatRequest::new(vec![Message::user(text)]);
/// let model = SemanticCache::new(ScriptedModel::new(["A deep dish."]), HashEmbedder::new(64), 0.9);
/// model.chat_with_report(ask("What is a tureen?")).await?;
/// let (answer, report) = model.chat_with_report(ask("what is a TUREEN")).await?;
/// assert_eq!(answer.message.content, "A deep dish.");
/// assert!(matches!(report, CacheReport::Hit { question, score } if question == "What is a tureen?" && score > 0.99));
/// # Ok::<(), llmkit_core::Error>(())
/// # }).unwrap();
/// ```
pub struct SemanticCache<M> {
    model: M,
    embedder: Box<dyn Embedder>,
    threshold: f32,
    max_entries: usize,
    entries: Arc<Mutex<VecDeque<Entry>>>,
}

struct Entry {
    /// All that must be the same.
    scope: CacheKey,
    /// Of length 1.
    vector: Vec<f32>,
    question: String,
    response: ChatResponse,
}

/// Where an answer of a [`SemanticCache`] comes from.
///
/// ```
/// use llmkit_prompt::cache::CacheReport;
///
/// let report = CacheReport::Miss { nearest: None };
/// assert!(!matches!(report, CacheReport::Hit { .. }));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum CacheReport {
    /// It was given before, to this question.
    Hit {
        /// The question that it answered.
        question: String,
        /// How similar that is, up to 1.
        score: f32,
    },
    /// The model gave it.
    Miss {
        /// The nearest question that was not near enough, and how similar it is.
        nearest: Option<(String, f32)>,
    },
    /// The model gave it, and the request is not for the cache: its last turn is not the user's, it is sampled, or its vector is zero.
    Bypassed,
}

/// What is to be done with a request.
enum Found {
    Answer(ChatResponse, CacheReport),
    Ask { report: CacheReport, keep: Option<Place> },
}

/// Where an answer will be kept.
struct Place {
    scope: CacheKey,
    vector: Vec<f32>,
    question: String,
}

impl<M: LanguageModel> SemanticCache<M> {
    /// `model`, with questions compared by `embedder`; those whose cosine is at least `threshold`, in (0, 1], have the same answer.
    ///
    /// # Panics
    /// If `threshold` is not in (0, 1].
    pub fn new(model: M, embedder: impl Embedder + 'static, threshold: f32) -> Self {
        assert!(threshold > 0.0 && threshold <= 1.0, "expected a threshold in (0, 1], found {threshold}");
        Self {
            model,
            embedder: Box::new(embedder),
            threshold,
            max_entries: MAX_ENTRIES,
            entries: Arc::default(),
        }
    }

    /// Sets the most questions kept. Default 1,000.
    pub fn with_max_entries(self, max_entries: usize) -> Self {
        Self { max_entries, ..self }
    }

    /// Answers as [`chat`](LanguageModel::chat) does, and says where the answer comes from.
    ///
    /// # Errors
    /// As the model or the embedder.
    pub async fn chat_with_report(&self, request: ChatRequest) -> Result<(ChatResponse, CacheReport)> {
        match self.find(&request).await? {
            Found::Answer(response, report) => Ok((response, report)),
            Found::Ask { report, keep } => {
                let response = self.model.chat(request).await?;
                if let Some(place) = keep {
                    keep_in(&self.entries, place, &response, self.max_entries);
                }
                Ok((response, report))
            }
        }
    }

    async fn find(&self, request: &ChatRequest) -> Result<Found> {
        let bypassed = Found::Ask { report: CacheReport::Bypassed, keep: None };
        let sampled =
            request.temperature.is_some_and(|temperature| temperature > 0.0) && request.seed.is_none();
        let Some(last) = request.messages.last().filter(|last| last.role == Role::User && !sampled) else {
            return Ok(bypassed);
        };
        let question = last.content.clone();
        let mut rest = request.clone();
        rest.messages.pop();
        let scope = CacheKey::of("semantic", &(self.model.name(), self.embedder.id(), rest));
        let mut vectors = self.embedder.embed(std::slice::from_ref(&question)).await?;
        let vector = vectors.pop().unwrap_or_default();
        if vector.len() != self.embedder.dimensions() {
            let reason = format!(
                "expected a vector of {} dimensions, found {}",
                self.embedder.dimensions(),
                vector.len()
            );
            return Err(Error::Model { model: self.embedder.id().to_owned(), reason });
        }
        let Some(vector) = unit(vector) else { return Ok(bypassed) };
        let entries = lock(&self.entries);
        let scored = entries
            .iter()
            .filter(|entry| entry.scope == scope)
            .map(|entry| (entry, dot(&entry.vector, &vector)));
        let nearest = scored.max_by(|a, b| a.1.total_cmp(&b.1));
        Ok(match nearest {
            Some((entry, score)) if score >= self.threshold => {
                tracing::debug!(score, question = entry.question, "answered from the semantic cache");
                let report = CacheReport::Hit { question: entry.question.clone(), score };
                Found::Answer(free(entry.response.clone()).0, report)
            }
            nearest => {
                let nearest = nearest.map(|(entry, score)| (entry.question.clone(), score));
                Found::Ask {
                    report: CacheReport::Miss { nearest },
                    keep: Some(Place { scope, vector, question }),
                }
            }
        })
    }
}

fn keep_in(entries: &Mutex<VecDeque<Entry>>, place: Place, response: &ChatResponse, most: usize) {
    if !is_worth_keeping(response) {
        return;
    }
    let Place { scope, vector, question } = place;
    let mut entries = lock(entries);
    entries.push_back(Entry { scope, vector, question, response: response.clone() });
    while entries.len() > most {
        entries.pop_front();
    }
}

fn lock(entries: &Mutex<VecDeque<Entry>>) -> MutexGuard<'_, VecDeque<Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The vector at length 1; none where it has no direction.
fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = dot(&vector, &vector).sqrt();
    if !length.is_finite() || length == 0.0 {
        return None;
    }
    vector.iter_mut().for_each(|value| *value /= length);
    Some(vector)
}

#[async_trait]
impl<M: LanguageModel> LanguageModel for SemanticCache<M> {
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
        Ok(self.chat_with_report(request).await?.0)
    }

    async fn chat_stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let mut keep = match self.find(&request).await? {
            Found::Answer(response, _) => return Ok(replay(response)),
            Found::Ask { keep, .. } => keep,
        };
        let (entries, most) = (self.entries.clone(), self.max_entries);
        let stream = self.model.chat_stream(request).await?;
        Ok(Box::pin(stream.inspect(move |event| {
            if let Ok(ChatEvent::Done(response)) = event
                && let Some(place) = keep.take()
            {
                keep_in(&entries, place, response, most);
            }
        })))
    }
}

impl<M: LanguageModel> fmt::Debug for SemanticCache<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemanticCache")
            .field("model", &self.name())
            .field("embedder", &self.embedder.id())
            .field("threshold", &self.threshold)
            .field("entries", &lock(&self.entries).len())
            .finish_non_exhaustive()
    }
}
