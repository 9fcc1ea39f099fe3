use std::fmt;

use serde::Serialize;

/// How samples voted.
///
/// ```
/// use llmkit_prompt::reasoning::{Extract, Reasoner, SelfConsistency, ZeroShotCot};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let model = ScriptedModel::new(["Answer: 12", "no idea", "Answer: 7", "Answer: 12.0"]);
/// let method = SelfConsistency::new(ZeroShotCot::new().with_extract(Extract::Number), 4);
/// let found = pollster::block_on(method.run(&model, "3 * 4?"))?;
/// let vote = found.value.vote().expect("self-consistency votes");
/// assert_eq!(vote.to_string(), "12: 2, 7: 1 (1 of 4 samples gave no answer)");
/// assert_eq!((vote.failed, vote.agreement()), (1, 2.0 / 3.0));
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Vote {
    /// The different answers, the one with the most votes first; among equals, the one that came up first.
    pub candidates: Vec<Candidate>,
    /// How many samples were taken, those that failed included.
    pub samples: usize,
    /// How many of them gave no answer.
    pub failed: usize,
    /// How many more samples there could have been, had the majority not been clear.
    pub spared: usize,
}

/// An answer that samples gave.
///
/// ```
/// use llmkit_prompt::reasoning::Vote;
///
/// let vote = Vote::count(["Yes", "no", "yes."].map(Some), |left, right| left[..1].eq_ignore_ascii_case(&right[..1]));
/// assert_eq!((vote.candidates[0].answer.as_str(), vote.candidates[0].votes), ("Yes", 2));
/// assert_eq!(vote.candidates[1].first, 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Candidate {
    /// The answer, as the first of the samples spelled it.
    pub answer: String,
    /// How many samples gave it.
    pub votes: usize,
    /// The first sample that gave it, counted from 0.
    pub first: usize,
}

/// When enough samples have been taken.
///
/// ```
/// use llmkit_prompt::reasoning::EarlyStop;
///
/// // Four of ten agree: six others could still outvote them,
/// assert!(!EarlyStop::Decided.is_reached(4, 0, 6));
/// // though hardly would.
/// assert!(EarlyStop::Confident(0.95).is_reached(4, 0, 6));
/// assert!(EarlyStop::Decided.is_reached(6, 0, 4));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub enum EarlyStop {
    /// When the samples that remain can't change the winner.
    Decided,
    /// When the leading answer would win over the second with at least this probability, by the samples so far: Aggarwal et al. 2023,
    /// "Let's Sample Step by Step: Adaptive-Consistency", whose setting is 0.95.
    ///
    /// With `a` votes for the first and `b` for the second, the probability that the first is the likelier of the two is that a
    /// Beta(`a` + 1, `b` + 1) variable exceeds 1/2. Also stops when decided.
    Confident(f64),
}

impl EarlyStop {
    /// Whether `first` and `second` votes for the two leading answers are enough, with at most `remaining` more to come.
    pub fn is_reached(self, first: usize, second: usize, remaining: usize) -> bool {
        let decided = first > second.saturating_add(remaining);
        match self {
            Self::Decided => decided,
            Self::Confident(probability) => decided || lead(first, second) >= probability,
        }
    }
}

/// P(X > 1/2) for X ~ Beta(first + 1, second + 1): that of at most `first` heads in `first + second + 1` throws of a coin.
fn lead(first: usize, second: usize) -> f64 {
    let throws = first + second + 1;
    // The chance of `heads` heads, from its logarithm so that many throws don't underflow.
    let mut log = -(throws as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for heads in 0..=first {
        sum += log.exp();
        log += ((throws - heads) as f64 / (heads + 1) as f64).ln();
    }
    sum.min(1.0)
}

impl Vote {
    /// Counts the answers of samples in order, `None` for one that gave none. `same` says whether two answers are one; the first of each
    /// kind stands for it.
    pub fn count<A: Into<String>>(
        answers: impl IntoIterator<Item = Option<A>>,
        same: impl Fn(&str, &str) -> bool,
    ) -> Self {
        let mut vote = Self::default();
        for answer in answers {
            vote.add(answer.map(Into::into), &same);
        }
        vote
    }

    pub(super) fn add(&mut self, answer: Option<String>, same: &(impl Fn(&str, &str) -> bool + ?Sized)) {
        let sample = self.samples;
        self.samples += 1;
        let Some(answer) = answer else {
            self.failed += 1;
            return;
        };
        match self.candidates.iter_mut().find(|candidate| same(&candidate.answer, &answer)) {
            Some(candidate) => candidate.votes += 1,
            None => self.candidates.push(Candidate { answer, votes: 1, first: sample }),
        }
        // Stable, and candidates are in the order of their first votes: ties keep it.
        self.candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.votes), candidate.first));
    }

    /// The share of the answers that went to the winner, from 0 (no answers) to 1; how sure one may be of it.
    pub fn agreement(&self) -> f64 {
        let answered = self.samples - self.failed;
        self.candidates.first().map_or(0.0, |winner| winner.votes as f64 / answered as f64)
    }

    /// Whether another answer has as many votes as the winner, which then won by coming first.
    pub fn is_tie(&self) -> bool {
        matches!(&self.candidates[..], [first, second, ..] if first.votes == second.votes)
    }

    pub(super) fn leaders(&self) -> (usize, usize) {
        let votes = |place: usize| self.candidates.get(place).map_or(0, |candidate| candidate.votes);
        (votes(0), votes(1))
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, candidate) in self.candidates.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {}", candidate.answer, candidate.votes)?;
        }
        if self.failed > 0 {
            write!(f, " ({} of {} samples gave no answer)", self.failed, self.samples)?;
        }
        if self.spared > 0 {
            write!(f, " ({} samples spared)", self.spared)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lead_is_the_beta_distributions() {
        // scipy.stats.beta.sf(0.5, first + 1, second + 1)
        for (first, second, expected) in [
            (0, 0, 0.5),
            (1, 0, 0.75),
            (3, 0, 0.9375),
            (4, 0, 0.96875),
            (5, 2, 0.85546875),
            (7, 2, 0.9453125),
            (40, 30, 0.8824512187958291),
        ] {
            assert!(
                (lead(first, second) - expected).abs() < 1e-9,
                "{first} {second} {}",
                lead(first, second)
            );
        }
        assert!(lead(100_000, 1) <= 1.0);
    }

    #[test]
    fn a_tie_goes_to_the_answer_that_came_first() {
        let vote = Vote::count(["b", "a", "a", "b"].map(Some), |left, right| left == right);
        assert_eq!(vote.candidates[0].answer, "b");
        assert!(vote.is_tie());
        assert_eq!(vote.agreement(), 0.5);
        let none = Vote::count([None::<String>], |left, right| left == right);
        assert_eq!((none.agreement(), none.failed, none.is_tie()), (0.0, 1, false));
    }
}
