use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::{Candidate, ExampleSelector, Query, Selected, Why};
use crate::Result;

/// Examples by lot: the baseline that a cleverer choice has to beat.
///
/// Each example draws a number, which its text and the seed decide, and the highest numbers win. So the choice does not depend on the order of
/// the examples, is the same on every machine and in every version, and one more example changes at most one of those chosen.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot, RandomSelector};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new((0..100).map(|n| json!({"n": n, "square": n * n})))?;
/// let few_shot = FewShot::new(examples, "{{ n }} squared is", "{{ square }}")?.with_selector(RandomSelector::new(7), 3);
/// // The same three for every query (and a prompt that a model's prefix cache remembers) ...
/// let shown = few_shot.select(json!({"n": 12})).await?.text();
/// assert_eq!(few_shot.select(json!({"n": 31})).await?.text(), shown);
///
/// // ... or others for each.
/// let few_shot = few_shot.with_selector(RandomSelector::new(7).per_query(), 3);
/// assert_ne!(few_shot.select(json!({"n": 31})).await?.text(), few_shot.select(json!({"n": 12})).await?.text());
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomSelector {
    seed: u64,
    per_query: bool,
}

impl RandomSelector {
    /// The same examples for every query; another `seed` draws others.
    pub fn new(seed: u64) -> Self {
        Self { seed, per_query: false }
    }

    /// Draws anew for each query; the same query gets the same examples.
    pub fn per_query(mut self) -> Self {
        self.per_query = true;
        self
    }
}

#[async_trait]
impl ExampleSelector for RandomSelector {
    fn name(&self) -> &str {
        "random"
    }

    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>> {
        let query = if self.per_query { query.key } else { "" };
        let mut drawn: Vec<(f64, usize)> = candidates
            .iter()
            .map(|candidate| {
                let example =
                    serde_json::to_string(candidate.example).expect("a map of JSON values is serialisable");
                (draw(self.seed, query, &example), candidate.index)
            })
            .collect();
        drawn.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let why = Why::Draw { seed: self.seed };
        Ok(drawn
            .into_iter()
            .take(count)
            .map(|(score, index)| Selected::new(index, score, why.clone()))
            .collect())
    }
}

/// A number in [0, 1) that the arguments decide.
pub(super) fn draw(seed: u64, query: &str, text: &str) -> f64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    // The length keeps ("ab", "c") apart from ("a", "bc").
    hash.update((query.len() as u64).to_le_bytes());
    hash.update(query);
    hash.update(text);
    let digest = hash.finalize();
    let first = u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
    // 53 bits, as many as an `f64` holds exactly.
    (first >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_evenly() {
        let mut tenths = [0; 10];
        for text in 0..10_000 {
            tenths[(draw(1, "", &text.to_string()) * 10.0) as usize] += 1;
        }
        // 1,000 expected in each, with a standard deviation of 30.
        assert!(tenths.iter().all(|count| (850..1_150).contains(count)), "{tenths:?}");
        assert_ne!(draw(1, "ab", "c"), draw(1, "a", "bc"));
        assert_ne!(draw(1, "", "c"), draw(2, "", "c"));
    }
}
