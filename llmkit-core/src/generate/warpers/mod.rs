//! The steps that shape a distribution before a draw: each takes candidates in the order of their ids and leaves them so, and each leaves at
//! least one.

pub(super) mod cutoff;
pub(super) mod min_p;
pub(super) mod mirostat;
pub(super) mod temperature;
pub(super) mod top_h;
pub(super) mod top_k;
pub(super) mod top_n_sigma;
pub(super) mod top_p;
pub(super) mod typical;

use super::candidate::{Candidate, max_logit};

/// The log-probability (natural) of each candidate, and the entropy of the distribution.
fn log_probabilities(candidates: &[Candidate]) -> (Vec<f64>, f64) {
    let max = max_logit(candidates);
    let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
    let log_total = total.ln() + f64::from(max);
    let logs: Vec<f64> = candidates.iter().map(|candidate| f64::from(candidate.logit) - log_total).collect();
    let entropy = logs.iter().map(|log| -log * log.exp()).sum();
    (logs, entropy)
}

/// Keeps the candidates at which `kept` is true.
fn retain(candidates: &mut Vec<Candidate>, kept: impl Iterator<Item = bool>) {
    let all = std::mem::take(candidates);
    candidates.extend(all.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(candidate, _)| candidate));
}
