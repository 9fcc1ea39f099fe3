use async_trait::async_trait;

use super::{Candidate, ExampleSelector, Query, Selected, Why};
use crate::Result;

/// The first examples, in their own order, while they and the query fit into a number of tokens: more of them for a short query, fewer for a
/// long one.
///
/// The first example that does not fit ends the choice, so that a longer query shows a beginning of what a shorter one shows, which a
/// model's prefix cache likes.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot, LengthSelector};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([json!({"q": "1 + 1", "a": "2"}), json!({"q": "3 + 4", "a": "7"})])?;
/// let few_shot = FewShot::new(examples, "{{ q }} =", "{{ a }}")?.with_selector(LengthSelector::new(30), 8);
/// assert_eq!(few_shot.select(json!({"q": "5 + 5"})).await?.chosen.len(), 1);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LengthSelector {
    max_tokens: Option<usize>,
}

impl LengthSelector {
    /// Examples and query together take at most `max_tokens` tokens, as [`FewShot`](super::FewShot) counts them.
    pub fn new(max_tokens: usize) -> Self {
        Self { max_tokens: Some(max_tokens) }
    }

    /// No limit but the number of examples: the first ones, as they stand.
    pub fn unlimited() -> Self {
        Self::default()
    }
}

#[async_trait]
impl ExampleSelector for LengthSelector {
    fn name(&self) -> &str {
        "length"
    }

    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>> {
        let mut left = self.max_tokens.map(|max| max.saturating_sub(query.tokens));
        let mut chosen = Vec::new();
        for candidate in candidates.iter().take(count) {
            let tokens = candidate.tokens;
            let why = Why::Room { tokens, left };
            if let Some(left) = &mut left {
                let Some(rest) = left.checked_sub(tokens) else { break };
                *left = rest;
            }
            // All are equally good, so that the examples' own order decides.
            chosen.push(Selected::new(candidate.index, 0.0, why));
        }
        Ok(chosen)
    }
}
