use async_trait::async_trait;
use llmkit_core::Embedder;

use super::{Candidate, ExampleSelector, Query, Selected, Why};
use crate::embeddings::{Embeddings, cosine};
use crate::{Error, Result};

/// Examples that are near the query and unlike each other: maximal marginal relevance (Carbonell and Goldstein 1998; for examples, Ye et al.
/// 2022, <https://arxiv.org/abs/2211.13892>).
///
/// With q the query and C those chosen so far, the next example is
///
/// ```text
/// argmax over e of  lambda * cos(q, e) - (1 - lambda) * max over c in C of cos(e, c)
/// ```
///
/// among the [shortlist](Self::with_shortlist): the examples nearest to the query, 20 or, if that is more, three times as many as are to be
/// chosen. Without it, an example that has nothing to do with anything would soon be preferred, being unlike all others. `lambda` is
/// 0.5 unless [set](Self::with_lambda); 1 is the same as [`KnnSelector`](super::KnnSelector).
///
/// The examples' vectors are computed at the first query and kept; clones share them.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot, MmrSelector};
/// use llmkit_prompt::testing::HashEmbedder;
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([
///     json!({"text": "a large bird of prey", "label": "animal"}),
///     json!({"text": "a large bird of prey.", "label": "animal"}),
///     json!({"text": "a bird roasted with herbs", "label": "food"}),
/// ])?;
/// let selector = MmrSelector::new(HashEmbedder::new(256));
/// let few_shot = FewShot::new(examples, "{{ text }}", "{{ label }}")?.with_selector(selector, 2);
/// let shots = few_shot.select(json!({"text": "a bird of prey"})).await?;
/// // The second of the two that say the same would teach nothing more.
/// let labels: Vec<&str> = shots.chosen.iter().map(|shot| shot.output.as_str()).collect();
/// assert_eq!(labels, ["food", "animal"]);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MmrSelector {
    embeddings: Embeddings,
    lambda: f64,
    shortlist: Option<usize>,
}

/// How many examples, at least, are on the shortlist unless it is set.
const SHORTLIST: usize = 20;

impl MmrSelector {
    /// Chooses by the vectors of `embedder`.
    pub fn new(embedder: impl Embedder + 'static) -> Self {
        Self { embeddings: Embeddings::new(embedder), lambda: 0.5, shortlist: None }
    }

    /// The weight of being near the query against being unlike the others, from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Setting`] if it is not in that range.
    pub fn with_lambda(mut self, lambda: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&lambda) {
            return Err(Error::Setting {
                setting: "lambda",
                expected: "a number from 0 to 1",
                found: lambda.to_string(),
            });
        }
        self.lambda = lambda;
        Ok(self)
    }

    /// How many examples are considered, those nearest to the query; `usize::MAX` for all.
    pub fn with_shortlist(mut self, examples: usize) -> Self {
        self.shortlist = Some(examples);
        self
    }
}

#[async_trait]
impl ExampleSelector for MmrSelector {
    fn name(&self) -> &str {
        "mmr"
    }

    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>> {
        let vectors = self.embeddings.of(candidates.iter().map(|candidate| candidate.key)).await?;
        let query = self.embeddings.of_query(query.key).await?;
        let mut rest: Vec<Scored<'_>> = candidates
            .iter()
            .zip(&vectors)
            .map(|(candidate, vector)| Scored {
                index: candidate.index,
                vector,
                similarity: cosine(&query, vector),
                redundancy: None,
            })
            .collect();
        rest.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.index.cmp(&b.index)));
        rest.truncate(self.shortlist.unwrap_or(SHORTLIST.max(count.saturating_mul(3))).max(count));

        let mut chosen = Vec::new();
        while chosen.len() < count && !rest.is_empty() {
            let mut best = 0;
            for (place, scored) in rest.iter().enumerate() {
                if scored.value(self.lambda) > rest[best].value(self.lambda) {
                    best = place;
                }
            }
            let next = rest.remove(best);
            for other in &mut rest {
                let redundancy = cosine(next.vector, other.vector);
                if other.redundancy.is_none_or(|(before, _)| redundancy > before) {
                    other.redundancy = Some((redundancy, next.index));
                }
            }
            chosen.push(next.selected(self.lambda));
        }
        Ok(chosen)
    }
}

struct Scored<'a> {
    index: usize,
    vector: &'a [f32],
    similarity: f64,
    /// The largest cosine with one of those chosen, and which that is.
    redundancy: Option<(f64, usize)>,
}

impl Scored<'_> {
    fn value(&self, lambda: f64) -> f64 {
        lambda * self.similarity - (1.0 - lambda) * self.redundancy.map_or(0.0, |(cosine, _)| cosine)
    }

    fn selected(&self, lambda: f64) -> Selected {
        let (redundancy, nearest) =
            self.redundancy.map_or((0.0, None), |(cosine, index)| (cosine, Some(index)));
        let why = Why::Mmr { lambda, similarity: self.similarity, redundancy, nearest };
        Selected::new(self.index, self.value(lambda), why)
    }
}
