use std::cmp::Ordering;

/// A token that may still be chosen. Its logit is finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

impl Candidate {
    /// Likelier first; of two alike, the lower id first. (Which of them transformers' top-p keeps is an accident of torch's unstable
    /// sort.)
    pub(super) fn likelier(&self, other: &Self) -> Ordering {
        other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal).then(self.id.cmp(&other.id))
    }

    /// The probability up to the factor that makes all sum to 1: `exp(logit - max)`, which cannot overflow.
    pub(super) fn weight(&self, max: f32) -> f64 {
        (f64::from(self.logit) - f64::from(max)).exp()
    }
}

/// The greatest logit.
pub(super) fn max_logit(candidates: &[Candidate]) -> f32 {
    candidates.iter().fold(f32::NEG_INFINITY, |max, candidate| max.max(candidate.logit))
}
