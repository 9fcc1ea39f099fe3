use std::collections::HashMap;

use async_trait::async_trait;
use unicode_segmentation::UnicodeSegmentation;

use super::{Candidate, ExampleSelector, Query, Selected, Why};
use crate::Result;

/// The longest sequences of words that are compared.
const LONGEST: usize = 4;
/// What a length of which nothing is shared counts as, so that the geometric mean is not zero because of it.
const EPSILON: f64 = 0.1;

/// Examples that share words and sequences of words with the query. Needs no model.
///
/// The score is the sentence BLEU (Papineni et al. 2002) of the query against the example: with p_n the share of the query's sequences
/// of n words that the example has too (each counted at most as often as it occurs there), q and e the numbers of words in query and
/// example, and N = min(4, q),
///
/// ```text
/// score = min(1, exp(1 - e / q)) * (p_1 * ... * p_N)^(1 / N)
/// ```
///
/// where nothing is shared at a length of m sequences, p_n is 0.1 / m (Chen and Cherry 2014, method 1); and the score is 0 where no word is
/// shared. That is NLTK's `sentence_bleu` with `method1` and `auto_reweigh`, which LangChain's n-gram selector uses too. Words are those of
/// Unicode (UAX #29), without punctuation, in lower case. Equal scores keep the examples' order.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot, NgramSelector};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([
///     json!({"text": "See Spot run.", "label": "verb"}),
///     json!({"text": "My dog barks.", "label": "verb"}),
///     json!({"text": "Spot can run.", "label": "verb"}),
/// ])?;
/// let few_shot = FewShot::new(examples, "{{ text }}", "{{ label }}")?
///     .with_selector(NgramSelector::new().with_threshold(0.0), 2);
/// let shots = few_shot.select(json!({"text": "Spot can run fast."})).await?;
/// // The most alike stands last, next to the query.
/// assert_eq!(shots.chosen[1].input, "Spot can run.");
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NgramSelector {
    threshold: Option<f64>,
}

impl NgramSelector {
    /// The examples with the largest overlap, however small it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only examples that score more than `threshold`: 0 leaves out those without a common word, 1 all.
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = Some(threshold);
        self
    }
}

#[async_trait]
impl ExampleSelector for NgramSelector {
    fn name(&self) -> &str {
        "n-gram overlap"
    }

    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>> {
        let query = words(query.key);
        let mut scored: Vec<Selected> = candidates
            .iter()
            .map(|candidate| {
                let (score, why) = overlap(&query, &words(candidate.key));
                Selected::new(candidate.index, score, why)
            })
            .filter(|selected| self.threshold.is_none_or(|threshold| selected.score > threshold))
            .collect();
        scored.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
        scored.truncate(count);
        Ok(scored)
    }
}

fn words(text: &str) -> Vec<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// How much of `query` is in `example`, as [`NgramSelector`] defines it.
fn overlap(query: &[String], example: &[String]) -> (f64, Why) {
    let brevity = match query.len() {
        0 => 0.0,
        length if length > example.len() => 1.0,
        length => (1.0 - example.len() as f64 / length as f64).exp(),
    };
    let mut precisions = Vec::new();
    let mut any_word = false;
    for n in 1..=LONGEST.min(query.len()) {
        let (wanted, there) = (counts(query, n), counts(example, n));
        let shared: usize =
            wanted.iter().map(|(gram, count)| *count.min(there.get(gram).unwrap_or(&0))).sum();
        let all = query.len() + 1 - n;
        any_word |= n == 1 && shared > 0;
        precisions.push(if shared == 0 { EPSILON } else { shared as f64 } / all as f64);
    }
    let score = if any_word {
        let logarithms: f64 = precisions.iter().map(|precision| precision.ln()).sum();
        brevity * (logarithms / precisions.len() as f64).exp()
    } else {
        0.0
    };
    (score, Why::Overlap { precisions, brevity })
}

fn counts(words: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        query: Vec<String>,
        example: Vec<String>,
        score: f64,
    }

    /// From `scripts/make_prompt_few_shot_fixtures.py`.
    #[test]
    fn scores_are_nltks() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../tests/fixtures/few_shot/bleu.json")).unwrap();
        assert!(cases.len() > 100 && cases.iter().filter(|case| case.score > 0.2).count() > 20);
        for Case { query, example, score } in cases {
            let (ours, _) = overlap(&query, &example);
            assert!((ours - score).abs() < 1e-12, "{query:?} against {example:?}: {ours}, expected {score}");
        }
    }

    #[test]
    fn words_are_those_of_unicode_in_lower_case() {
        assert_eq!(words("It's 3.5 KM; naïve—STRASSE!"), ["it's", "3.5", "km", "naïve", "strasse"]);
        assert!(words("... !?").is_empty());
        assert_eq!(overlap(&[], &words("a b")).0, 0.0);
        assert_eq!(overlap(&words("a b"), &[]).0, 0.0);
    }
}
