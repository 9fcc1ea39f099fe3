use super::super::candidate::{Candidate, max_logit};
use super::{log_probabilities, retain};

/// Epsilon sampling (Hewitt et al. 2022, arXiv 2210.15191): keeps candidates with at least the probability `epsilon`, and the likeliest.
pub(in super::super) fn epsilon(candidates: &mut Vec<Candidate>, epsilon: f32) {
    let (logs, _) = log_probabilities(candidates);
    keep_above(candidates, &logs, f64::from(epsilon));
}

/// Eta sampling (the same paper): the border falls with the entropy `H`, `min(epsilon, sqrt(epsilon) * exp(-H))`.
pub(in super::super) fn eta(candidates: &mut Vec<Candidate>, epsilon: f32) {
    let (logs, entropy) = log_probabilities(candidates);
    let epsilon = f64::from(epsilon);
    keep_above(candidates, &logs, epsilon.min(epsilon.sqrt() * (-entropy).exp()));
}

fn keep_above(candidates: &mut Vec<Candidate>, logs: &[f64], border: f64) {
    let max = max_logit(candidates);
    let kept: Vec<bool> =
        candidates.iter().zip(logs).map(|(c, log)| log.exp() >= border || c.logit == max).collect();
    retain(candidates, kept.into_iter());
}
