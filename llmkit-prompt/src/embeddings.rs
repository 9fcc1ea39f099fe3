//! Vectors of texts, computed once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use futures_util::lock::Mutex;
use llmkit_core::Embedder;

use crate::{Error, Result};

/// The most texts that an embedder is given at once.
const BATCH: usize = 256;
/// So many vectors more than are asked for at once may be kept.
const SPARE: usize = 65_536;

/// An embedder that remembers the vectors of the texts that it is asked for again and again.
#[derive(Clone)]
pub(crate) struct Embeddings {
    embedder: Arc<dyn Embedder>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// The embedder that made the vectors.
    id: Option<String>,
    /// Of length one, or zero where the embedder gave zeros.
    vectors: HashMap<String, Arc<[f32]>>,
}

impl fmt::Debug for Embeddings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embeddings").field("embedder", &self.embedder.id()).finish_non_exhaustive()
    }
}

impl Embeddings {
    pub(crate) fn new(embedder: impl Embedder + 'static) -> Self {
        Self { embedder: Arc::new(embedder), kept: Arc::default() }
    }

    /// The vectors of `texts`, in order, from memory where they are there. Callers at the same time wait for each other, so that no text
    /// is computed twice.
    pub(crate) async fn of<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Arc<[f32]>>> {
        let texts: Vec<&str> = texts.into_iter().collect();
        let mut kept = self.kept.lock().await;
        let id = self.embedder.id();
        if kept.id.as_deref().is_some_and(|before| before != id) {
            return Err(Error::Embedding {
                embedder: id.to_owned(),
                expected: format!(
                    "the embedder `{}`, which made the vectors so far",
                    kept.id.as_deref().unwrap_or_default()
                ),
                found: "another one: start with a fresh selector or memory".to_owned(),
            });
        }
        kept.id = Some(id.to_owned());
        let mut seen = HashSet::new();
        let missing: Vec<&str> = texts
            .iter()
            .filter(|text| !kept.vectors.contains_key(**text) && seen.insert(**text))
            .copied()
            .collect();
        for batch in missing.chunks(BATCH) {
            for (text, vector) in batch.iter().zip(self.compute(batch).await?) {
                kept.vectors.insert((*text).to_owned(), vector.into());
            }
        }
        let found = texts.iter().map(|text| kept.vectors[*text].clone()).collect();
        if kept.vectors.len() > 2 * texts.len() + SPARE {
            let wanted: HashSet<&str> = texts.into_iter().collect();
            kept.vectors.retain(|text, _| wanted.contains(text.as_str()));
        }
        Ok(found)
    }

    /// The vector of one text that is not worth remembering, such as a query.
    pub(crate) async fn of_query(&self, text: &str) -> Result<Vec<f32>> {
        Ok(self.compute(&[text]).await?.remove(0))
    }

    async fn compute(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let owned: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut vectors = self.embedder.embed(&owned).await?;
        let error = |expected: String, found: String| {
            Err(Error::Embedding { embedder: self.embedder.id().to_owned(), expected, found })
        };
        if vectors.len() != texts.len() {
            return error(format!("{} vectors, one a text", texts.len()), vectors.len().to_string());
        }
        for (vector, text) in vectors.iter_mut().zip(texts) {
            if vector.len() != self.embedder.dimensions() {
                return error(
                    format!("{} numbers a vector", self.embedder.dimensions()),
                    vector.len().to_string(),
                );
            }
            let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            if !length.is_finite() {
                let text: String = text.chars().take(40).collect();
                return error("finite numbers".to_owned(), format!("infinity or NaN for `{text}`"));
            }
            if length > 0.0 {
                vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
        }
        Ok(vectors)
    }
}

/// The cosine of the angle between two vectors of length one; 0 where one of them is zero.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as SyncMutex;

    use async_trait::async_trait;

    use super::*;

    /// Writes down what it is asked for.
    #[derive(Default)]
    struct Recorder {
        asked: SyncMutex<Vec<String>>,
        vector: Vec<f32>,
    }

    #[async_trait]
    impl Embedder for Recorder {
        fn id(&self) -> &str {
            "recorder"
        }

        fn dimensions(&self) -> usize {
            2
        }

        async fn embed(&self, texts: &[String]) -> llmkit_core::Result<Vec<Vec<f32>>> {
            self.asked.lock().unwrap().extend(texts.to_vec());
            Ok(texts.iter().map(|_| self.vector.clone()).collect())
        }
    }

    fn embeddings(vector: &[f32]) -> (Arc<Recorder>, Embeddings) {
        let recorder = Arc::new(Recorder { vector: vector.to_vec(), ..Recorder::default() });
        (recorder.clone(), Embeddings { embedder: recorder, kept: Arc::default() })
    }

    #[test]
    fn each_text_is_computed_once_and_vectors_have_length_one() {
        let (recorder, embeddings) = embeddings(&[3.0, 4.0]);
        pollster::block_on(async {
            let (first, second) =
                futures_util::future::join(embeddings.of(["a", "b", "a"]), embeddings.of(["b", "c"])).await;
            assert_eq!(first.unwrap().len(), 3);
            assert_eq!(*second.unwrap()[1], [0.6, 0.8]);
        });
        assert_eq!(*recorder.asked.lock().unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn what_is_no_longer_asked_for_is_forgotten_at_some_point() {
        let (_, embeddings) = embeddings(&[3.0, 4.0]);
        let texts: Vec<String> = (0..2 * SPARE).map(|n| n.to_string()).collect();
        pollster::block_on(async {
            embeddings.of(texts.iter().map(String::as_str)).await.unwrap();
            embeddings.of(["new"]).await.unwrap();
            assert_eq!(embeddings.kept.lock().await.vectors.len(), 1);
        });
    }

    #[test]
    fn vectors_of_another_length_and_nan_are_errors_and_zero_is_like_nothing() {
        for (vector, message) in [
            (&[1.0][..], "embedder `recorder`: expected 2 numbers a vector, found 1"),
            (&[1.0, f32::NAN], "embedder `recorder`: expected finite numbers, found infinity or NaN for `a`"),
        ] {
            let error = pollster::block_on(embeddings(vector).1.of(["a"])).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let zero = pollster::block_on(embeddings(&[0.0, 0.0]).1.of_query("a")).unwrap();
        assert_eq!(cosine(&zero, &[0.6, 0.8]), 0.0);
    }
}
