use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use llmkit_core::{Embedder, Error, Result};

use super::{CacheKey, CacheStore, MemoryStore, Record};

/// An embedder that turns no text into a vector twice. Vectors are kept under the embedder's [identity](Embedder::id), so a store may serve several.
///
/// ```
/// use llmkit_core::Embedder;
/// use llmkit_prompt::cache::CachedEmbedder;
/// use llmkit_prompt::testing::HashEmbedder;
///
/// # pollster::block_on(async {
/// let embedder = CachedEmbedder::new(HashEmbedder::new(16));
/// let texts = ["a dish".to_owned(), "a bowl".to_owned(), "a dish".to_owned()];
/// let vectors = embedder.embed(&texts).await?;
/// assert_eq!(vectors, embedder.embed(&texts).await?);
/// assert_eq!(vectors[0], vectors[2]);
/// # Ok::<(), llmkit_core::Error>(())
/// # }).unwrap();
/// ```
pub struct CachedEmbedder<E> {
    embedder: E,
    store: Box<dyn CacheStore>,
}

impl<E: Embedder> CachedEmbedder<E> {
    /// `embedder` with a [`MemoryStore`].
    pub fn new(embedder: E) -> Self {
        Self { embedder, store: Box::new(MemoryStore::new()) }
    }

    /// Keeps vectors in `store`.
    pub fn with_store(self, store: impl CacheStore + 'static) -> Self {
        Self { store: Box::new(store), ..self }
    }

    fn recall(&self, key: CacheKey) -> Option<Vec<f32>> {
        let record = self.store.get(key).unwrap_or_else(|error| {
            tracing::warn!(%error, "the cache's store failed");
            None
        })?;
        let (numbers, []) = record.bytes.as_chunks::<4>() else { return None };
        let vector: Vec<f32> = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
        (vector.len() == self.embedder.dimensions()).then_some(vector)
    }

    fn keep(&self, key: CacheKey, vector: &[f32]) {
        let bytes = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        if let Err(error) = self.store.put(key, Record::new(bytes)) {
            tracing::warn!(%error, "the cache's store failed");
        }
    }
}

#[async_trait]
impl<E: Embedder> Embedder for CachedEmbedder<E> {
    fn id(&self) -> &str {
        self.embedder.id()
    }

    fn dimensions(&self) -> usize {
        self.embedder.dimensions()
    }

    /// # Errors
    /// As the embedder; also when it gives another number of vectors than texts.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let keys: Vec<CacheKey> = texts.iter().map(|text| CacheKey::of_text(self.id(), text)).collect();
        let mut vectors: HashMap<CacheKey, Vec<f32>> = HashMap::new();
        let (mut missing, mut missing_keys) = (Vec::new(), Vec::new());
        for (key, text) in keys.iter().zip(texts) {
            if vectors.contains_key(key) {
                continue;
            }
            let vector = self.recall(*key).unwrap_or_else(|| {
                missing.push(text.clone());
                missing_keys.push(*key);
                Vec::new()
            });
            vectors.insert(*key, vector);
        }
        if !missing.is_empty() {
            let made = self.embedder.embed(&missing).await?;
            if made.len() != missing.len() {
                let reason =
                    format!("expected a vector for each of {} texts, found {}", missing.len(), made.len());
                return Err(Error::Model { model: self.id().to_owned(), reason });
            }
            for (key, vector) in missing_keys.into_iter().zip(made) {
                self.keep(key, &vector);
                vectors.insert(key, vector);
            }
        }
        Ok(keys.iter().map(|key| vectors[key].clone()).collect())
    }
}

impl<E: Embedder> fmt::Debug for CachedEmbedder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedEmbedder").field("embedder", &self.id()).finish_non_exhaustive()
    }
}
