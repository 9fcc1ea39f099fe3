use super::super::candidate::{Candidate, max_logit};

/// Top-n-sigma (Tang et al. 2024, arXiv 2411.07641), as in llama.cpp: keeps candidates whose logit is at most `n` standard deviations of all
/// logits below the greatest. The temperature changes nothing about it.
pub(in super::super) fn keep(candidates: &mut Vec<Candidate>, n: f32) {
    let count = candidates.len() as f64;
    let mean = candidates.iter().map(|candidate| f64::from(candidate.logit)).sum::<f64>() / count;
    let squares: f64 = candidates.iter().map(|candidate| (f64::from(candidate.logit) - mean).powi(2)).sum();
    let border = f64::from(max_logit(candidates)) - f64::from(n) * (squares / count).sqrt();
    candidates.retain(|candidate| f64::from(candidate.logit) >= border);
}
