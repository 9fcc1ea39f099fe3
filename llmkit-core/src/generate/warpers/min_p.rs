use super::super::candidate::{Candidate, max_logit};

/// Keeps candidates at least `min_p` times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082).
pub(in super::super) fn keep(candidates: &mut Vec<Candidate>, min_p: f32) {
    let max = max_logit(candidates);
    // The common factor of all probabilities cancels, so weights are compared.
    candidates.retain(|candidate| candidate.weight(max) >= f64::from(min_p));
}
