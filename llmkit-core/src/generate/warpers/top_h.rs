use std::cmp::Ordering;

use super::super::candidate::Candidate;
use super::log_probabilities;

/// How many of the likeliest are considered, as in transformers.
const CONSIDERED: usize = 100;

/// Top-H (Potraghloo et al. 2025, arXiv 2509.02510): of the 100 likeliest candidates, keeps the likeliest as long as their terms
/// `-p ln p` sum to at most the fraction `top_h` of the entropy of the 100; and always the likeliest.
pub(in super::super) fn keep(candidates: &mut Vec<Candidate>, top_h: f32) {
    let mut likeliest = candidates.clone();
    likeliest.sort_unstable_by(Candidate::likelier);
    likeliest.truncate(CONSIDERED);
    let (logs, entropy) = log_probabilities(&likeliest);
    let allowed = entropy * f64::from(top_h);
    let mut sum = 0.0;
    let mut kept: usize = 0;
    for log in logs {
        sum -= log * log.exp();
        // The slack is for the rounding of a sum that is the entropy itself.
        if kept > 0 && sum > allowed * (1.0 + 1e-12) {
            break;
        }
        kept += 1;
    }
    if let Some(last) = kept.checked_sub(1).map(|index| likeliest[index]) {
        candidates.retain(|candidate| candidate.likelier(&last) != Ordering::Greater);
    }
}
