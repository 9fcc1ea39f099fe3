use async_trait::async_trait;
use llmkit_core::{Embedder, Result};
use sha2::{Digest, Sha256};
use unicode_segmentation::UnicodeSegmentation;

/// An embedder without a model: each word of a text adds one to a dimension that its hash chooses, and the vector is brought to length 1. Texts
/// with words in common are similar; a text without words is all zeros.
///
/// ```
/// use llmkit_core::Embedder;
/// use llmkit_prompt::testing::HashEmbedder;
///
/// # pollster::block_on(async {
/// let embedder = HashEmbedder::new(64);
/// let vectors = embedder.embed(&["a deep dish".to_owned(), "A DISH, deep!".to_owned()]).await?;
/// assert_eq!(vectors[0], vectors[1]);
/// # Ok::<(), llmkit_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct HashEmbedder {
    id: String,
    dimensions: usize,
}

impl HashEmbedder {
    /// An embedder of vectors of this length.
    ///
    /// # Panics
    /// If `dimensions` is 0.
    pub fn new(dimensions: usize) -> Self {
        assert!(dimensions > 0, "expected at least 1 dimension, found 0");
        Self { id: format!("hash-{dimensions}"), dimensions }
    }

    fn dimension(&self, word: &str) -> usize {
        let hash = Sha256::digest(word.to_lowercase().as_bytes());
        let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        (number % self.dimensions as u64) as usize
    }
}

#[async_trait]
impl Embedder for HashEmbedder {
    fn id(&self) -> &str {
        &self.id
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let embed = |text: &String| {
            let mut vector = vec![0.0_f32; self.dimensions];
            for word in text.unicode_words() {
                vector[self.dimension(word)] += 1.0;
            }
            let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            if length > 0.0 {
                vector.iter_mut().for_each(|value| *value /= length);
            }
            vector
        };
        Ok(texts.iter().map(embed).collect())
    }
}
