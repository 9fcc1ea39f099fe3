use std::collections::BTreeMap;

use crate::{Error, Result, Tokenizer};

/// The exponent beyond which `base^exponent` would not fit an `f32`: `ln(f32::MAX)`.
const LN_MAX: f32 = 88.722_84;

/// "Don't repeat yourself", as in llama.cpp: makes a token less likely that would continue a repetition, the more so the longer it is.
///
/// Where the last `n` tokens (as many as possible, back to a breaker) stood somewhere before and were followed by token `t` there, the
/// logit of `t` loses `multiplier * base^(n - allowed_length)`, if `n` is at least `allowed_length`. Prompt and answer count alike.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Dry {
    /// The penalty of the shortest repetition, above 0. llama.cpp's users take 0.8.
    pub multiplier: f32,
    /// By how much each further repeated token multiplies the penalty, at least 1. Default 1.75.
    pub base: f32,
    /// Repetitions shorter than this, in tokens, cost nothing. Default 2.
    pub allowed_length: usize,
    /// Looks back at this many tokens, at least 1. Default: all.
    pub last_n: Option<usize>,
    /// Token sequences across which no repetition is counted, such as a line break; those of one token are never made less likely.
    /// Default none; llama.cpp takes the tokens that contain `"\n"`, `":"`, `"\""` or `"*"`, which
    /// [`with_breaker_texts`](Self::with_breaker_texts) finds.
    pub breakers: Vec<Vec<u32>>,
}

impl Dry {
    /// The defaults with this penalty.
    pub fn new(multiplier: f32) -> Self {
        Self { multiplier, base: 1.75, allowed_length: 2, last_n: None, breakers: Vec::new() }
    }

    /// Sets [`base`](Self::base).
    pub fn with_base(mut self, base: f32) -> Self {
        self.base = base;
        self
    }

    /// Sets [`allowed_length`](Self::allowed_length).
    pub fn with_allowed_length(mut self, allowed_length: usize) -> Self {
        self.allowed_length = allowed_length;
        self
    }

    /// Sets [`last_n`](Self::last_n).
    pub fn with_last_n(mut self, last_n: usize) -> Self {
        self.last_n = Some(last_n);
        self
    }

    /// Sets [`breakers`](Self::breakers).
    pub fn with_breakers(mut self, breakers: impl IntoIterator<Item = Vec<u32>>) -> Self {
        self.breakers = breakers.into_iter().collect();
        self
    }

    /// Adds to [`breakers`](Self::breakers) all the ways in which a tokenizer may write `texts`, as llama.cpp finds them: each token that
    /// contains a text, and each token that ends with the beginning of one, followed by the tokens of the rest.
    ///
    /// # Errors
    /// [`Error::Generation`] when a text is empty; [`Error::Tokenizer`] when the tokenizer refuses one.
    pub fn with_breaker_texts<S: AsRef<str>>(
        mut self,
        tokenizer: &Tokenizer,
        texts: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let texts: Vec<S> = texts.into_iter().collect();
        if texts.iter().any(|text| text.as_ref().is_empty()) {
            return Err(Error::Generation {
                setting: "dry_sequence_breakers",
                expected: "texts of at least one character",
                found: "an empty one".into(),
            });
        }
        for id in 0..tokenizer.vocab_size() as u32 {
            let token = tokenizer.decode(&[id], false)?;
            for breaker in texts.iter().map(AsRef::as_ref) {
                if token.contains(breaker) {
                    self.breakers.push(vec![id]);
                    continue;
                }
                for (start, _) in token.char_indices() {
                    if let Some(rest) = breaker.strip_prefix(&token[start..]) {
                        let mut sequence = vec![id];
                        sequence.extend(tokenizer.encode(rest, false)?);
                        self.breakers.push(sequence);
                    }
                }
            }
        }
        self.breakers.sort_unstable();
        self.breakers.dedup();
        Ok(self)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Generation`] naming the first one out of range.
    pub fn validate(&self) -> Result<()> {
        let refuse = |setting, expected, found| Err(Error::Generation { setting, expected, found });
        if !(self.multiplier > 0.0 && self.multiplier.is_finite()) {
            return refuse("dry_multiplier", "a finite number above 0", self.multiplier.to_string());
        }
        if !(self.base >= 1.0 && self.base.is_finite()) {
            return refuse("dry_base", "a finite number of at least 1", self.base.to_string());
        }
        if self.last_n == Some(0) {
            return refuse(
                "dry_penalty_last_n",
                "at least 1 (leave it unset to look at all tokens)",
                "0".into(),
            );
        }
        if self.breakers.iter().any(Vec::is_empty) {
            return refuse("dry_sequence_breakers", "sequences of at least one token", "an empty one".into());
        }
        Ok(())
    }

    pub(super) fn apply(&self, history: &[u32], scores: &mut [f32]) {
        let seen = self.last_n.map_or(history.len(), |last_n| last_n.min(history.len()));
        let recent: Vec<u32> = history[history.len() - seen..].iter().rev().copied().collect();
        let limit = self.since_breaker(&recent);
        if recent.len() <= self.allowed_length || limit < self.allowed_length {
            return;
        }
        // What followed each repetition of the newest tokens, with the longest one that it followed. `recent` runs backwards: the token
        // that followed the one at `start` is at `start - 1`.
        let mut longest: BTreeMap<u32, usize> = BTreeMap::new();
        for (start, repeated) in repetitions(&recent).into_iter().enumerate().skip(1) {
            let repeated = repeated.min(limit);
            if repeated >= self.allowed_length {
                let best = longest.entry(recent[start - 1]).or_insert(repeated);
                *best = repeated.max(*best);
            }
        }
        for (id, repeated) in longest {
            if self.breakers.iter().any(|breaker| matches!(breaker.as_slice(), [only] if *only == id)) {
                continue;
            }
            if let Some(score) = scores.get_mut(id as usize) {
                *score -= self.penalty(repeated - self.allowed_length);
            }
        }
    }

    fn penalty(&self, exponent: usize) -> f32 {
        let highest = if self.base > 1.000_001 { LN_MAX / self.base.ln() } else { 0.0 };
        let exponent = if highest >= 1.0 { exponent.min(highest as usize) } else { exponent };
        // Finite even so: the base may be huge and the multiplier too, and a token must not become minus infinity for it.
        let penalty = self.multiplier * self.base.powi(i32::try_from(exponent).unwrap_or(i32::MAX));
        penalty.min(f32::MAX / 4.0)
    }

    /// How many of the newest tokens come after the newest breaker; all where there is none. `recent` runs backwards.
    fn since_breaker(&self, recent: &[u32]) -> usize {
        for end in 0..recent.len() {
            let matching = self.breakers.iter().filter(|breaker| {
                breaker.len() <= end + 1
                    && breaker.iter().zip(recent[..=end].iter().rev()).all(|(token, found)| token == found)
            });
            if let Some(longest) = matching.map(Vec::len).max() {
                return end + 1 - longest;
            }
        }
        recent.len()
    }
}

/// For each start, how many tokens from there on equal those from the beginning on (the Z function), in linear time. The entry at 0 has no
/// meaning.
fn repetitions(tokens: &[u32]) -> Vec<usize> {
    let mut lengths = vec![0; tokens.len()];
    // The known repetition that reaches farthest: `tokens[from..to]` equals the beginning.
    let (mut from, mut to) = (0, 0);
    for start in 1..tokens.len() {
        let mut length = if start < to { lengths[start - from].min(to - start) } else { 0 };
        while start + length < tokens.len() && tokens[length] == tokens[start + length] {
            length += 1;
        }
        lengths[start] = length;
        if start + length > to {
            (from, to) = (start, start + length);
        }
    }
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn penalties(dry: &Dry, history: &[u32], vocabulary: usize) -> Vec<f32> {
        let mut scores = vec![0.0; vocabulary];
        dry.apply(history, &mut scores);
        scores.into_iter().map(|score| 0.0 - score).collect()
    }

    #[test]
    fn the_longer_the_repetition_the_dearer_its_continuation() {
        // 1 2 3 4 | 1 2 3: three tokens repeated, and 4 would be the fourth.
        let dry = Dry::new(2.0).with_base(3.0);
        assert_eq!(penalties(&dry, &[1, 2, 3, 4, 1, 2, 3], 6), [0.0, 0.0, 0.0, 0.0, 6.0, 0.0]);
        // A breaker shortens what is counted, and is itself free.
        let broken = dry.clone().with_breakers([vec![1]]);
        assert_eq!(penalties(&broken, &[1, 2, 3, 4, 1, 2, 3], 6)[4], 2.0);
        let broken = dry.clone().with_breakers([vec![1, 2]]);
        assert_eq!(penalties(&broken, &[1, 2, 3, 4, 1, 2, 3], 6), [0.0; 6]);
        let free = dry.clone().with_breakers([vec![4]]);
        assert_eq!(penalties(&free, &[1, 2, 3, 4, 1, 2, 3], 6), [0.0; 6]);
        // Only the last tokens are looked at.
        assert_eq!(penalties(&dry.with_last_n(4), &[1, 2, 3, 4, 1, 2, 3], 6), [0.0; 6]);
    }

    #[test]
    fn a_very_long_repetition_stays_finite() {
        let dry = Dry::new(1e30).with_base(1e20);
        let penalty = penalties(&dry, &[5; 4000], 6)[5];
        assert!(penalty.is_finite() && penalty > 1e30, "{penalty}");
    }

    proptest! {
        #[test]
        fn repetitions_are_those_found_one_by_one(tokens in prop::collection::vec(0u32..3, 0..40)) {
            let found = repetitions(&tokens);
            for start in 1..tokens.len() {
                let plain = tokens.iter().zip(&tokens[start..]).take_while(|(a, b)| a == b).count();
                prop_assert_eq!(found[start], plain);
            }
        }
    }
}
