use async_trait::async_trait;
use llmkit_core::Embedder;

use super::{Candidate, ExampleSelector, Query, Selected, Why};
use crate::Result;
use crate::embeddings::{Embeddings, cosine};

/// The examples that mean most nearly what the query means (Liu et al. 2021, <https://arxiv.org/abs/2101.06804>): those whose vectors
/// have the largest cosine with the query's. Equal cosines keep the examples' order.
///
/// The examples' vectors are computed at the first query and kept; clones share them.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot, KnnSelector};
/// use llmkit_prompt::testing::HashEmbedder;
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([
///     json!({"text": "a small bird that sings", "label": "animal"}),
///     json!({"text": "a loud feeling of anger", "label": "feeling"}),
///     json!({"text": "a large bird of prey", "label": "animal"}),
/// ])?;
/// // In earnest: `llmkit_core::embed::SentenceEncoder`, or a remote embedder.
/// let embedder = HashEmbedder::new(256);
/// let few_shot = FewShot::new(examples, "{{ text }}", "{{ label }}")?.with_selector(KnnSelector::new(embedder), 2);
/// let shots = few_shot.select(json!({"text": "a bird of the sea"})).await?;
/// assert_eq!(shots.chosen[1].input, "a large bird of prey");
/// println!("{}", shots.chosen[1].why); // cosine ...
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct KnnSelector {
    embeddings: Embeddings,
    threshold: Option<f64>,
}

impl KnnSelector {
    /// The nearest examples by the vectors of `embedder`.
    pub fn new(embedder: impl Embedder + 'static) -> Self {
        Self { embeddings: Embeddings::new(embedder), threshold: None }
    }

    /// Only examples whose cosine is more than `threshold`, from -1 to 1.
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = Some(threshold);
        self
    }
}

#[async_trait]
impl ExampleSelector for KnnSelector {
    fn name(&self) -> &str {
        "knn"
    }

    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>> {
        let vectors = self.embeddings.of(candidates.iter().map(|candidate| candidate.key)).await?;
        let query = self.embeddings.of_query(query.key).await?;
        let mut scored: Vec<Selected> = candidates
            .iter()
            .zip(&vectors)
            .map(|(candidate, vector)| {
                let cosine = cosine(&query, vector);
                Selected::new(candidate.index, cosine, Why::Similarity { cosine })
            })
            .filter(|selected| self.threshold.is_none_or(|threshold| selected.score > threshold))
            .collect();
        scored.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
        scored.truncate(count);
        Ok(scored)
    }
}
