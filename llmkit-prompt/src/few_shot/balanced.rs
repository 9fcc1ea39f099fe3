use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Candidate, ExampleSelector, Query, Selected, Why};
use crate::{Error, Result};

/// As many examples of each class as another selector would choose from that class alone, so that no class is missing because the query
/// looks like another.
///
/// The best of each class come before the second best of any; among equals in rank, the higher score.
///
/// ```
/// use llmkit_prompt::few_shot::{BalancedSelector, Examples, FewShot, NgramSelector};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([
///     json!({"text": "a small bird", "label": "animal"}),
///     json!({"text": "a large bird", "label": "animal"}),
///     json!({"text": "hot soup", "label": "food"}),
/// ])?;
/// let selector = BalancedSelector::new(NgramSelector::new(), "label");
/// let few_shot = FewShot::new(examples, "{{ text }}", "{{ label }}")?.with_selector(selector, 2);
/// let shots = few_shot.select(json!({"text": "a large bird of prey"})).await?;
/// assert_eq!(shots.text(), "hot soup\nfood\n\na large bird\nanimal");
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BalancedSelector<S> {
    inner: S,
    field: String,
}

impl<S: ExampleSelector> BalancedSelector<S> {
    /// Chooses as `inner` does, from the examples of each value of the field `field`.
    pub fn new(inner: S, field: impl Into<String>) -> Self {
        Self { inner, field: field.into() }
    }
}

#[async_trait]
impl<S: ExampleSelector> ExampleSelector for BalancedSelector<S> {
    fn name(&self) -> &str {
        "balanced"
    }

    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>> {
        let mut classes: BTreeMap<String, Vec<Candidate<'_>>> = BTreeMap::new();
        for candidate in candidates {
            let class = candidate.example.text(&self.field).ok_or_else(|| Error::Setting {
                setting: "the field of the classes",
                expected: "a field of the examples",
                found: format!("`{}`", self.field),
            })?;
            classes.entry(class).or_default().push(*candidate);
        }
        let share = count.div_ceil(classes.len().max(1));
        let mut chosen = Vec::new();
        for (class, members) in classes {
            let best = self.inner.select(&members, query, share).await?;
            chosen.extend(best.into_iter().enumerate().map(|(rank, selected)| {
                let why = Why::Class { class: class.clone(), rank: rank + 1, why: Box::new(selected.why) };
                (rank, Selected::new(selected.index, selected.score, why))
            }));
        }
        chosen.sort_by(|(rank_a, a), (rank_b, b)| {
            rank_a.cmp(rank_b).then(b.score.total_cmp(&a.score)).then(a.index.cmp(&b.index))
        });
        Ok(chosen.into_iter().take(count).map(|(_, selected)| selected).collect())
    }
}
