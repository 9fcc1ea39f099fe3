use std::cmp::Ordering;

use super::super::candidate::{Candidate, max_logit};

/// How many of the likeliest are sorted at first. Most distributions have their mass in fewer.
const FIRST_BATCH: usize = 64;

/// Nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751): keeps the fewest likeliest candidates whose probabilities sum to at
/// least `top_p`, and so at least one.
pub(in super::super) fn keep(candidates: &mut Vec<Candidate>, top_p: f32) {
    if top_p >= 1.0 {
        return;
    }
    let max = max_logit(candidates);
    let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
    if let Some(last) = last_of_nucleus(candidates.clone(), max, f64::from(top_p) * total) {
        candidates.retain(|candidate| candidate.likelier(&last) != Ordering::Greater);
    }
}

/// The least likely candidate still needed for the weights to reach `needed`. Sorts ever larger batches of the likeliest instead of
/// the whole vocabulary.
fn last_of_nucleus(mut pool: Vec<Candidate>, max: f32, needed: f64) -> Option<Candidate> {
    let mut rest = pool.as_mut_slice();
    let mut batch = FIRST_BATCH;
    let mut mass = 0.0;
    while !rest.is_empty() {
        if batch < rest.len() {
            rest.select_nth_unstable_by(batch, Candidate::likelier);
        }
        let (likeliest, others) = rest.split_at_mut(batch.min(rest.len()));
        likeliest.sort_unstable_by(Candidate::likelier);
        for candidate in likeliest {
            mass += candidate.weight(max);
            if mass >= needed {
                return Some(*candidate);
            }
        }
        rest = others;
        batch *= 4;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain statement of the rule: sort everything, take while the mass before is short of `top_p`.
    fn by_full_sort(candidates: &[Candidate], top_p: f32) -> Vec<Candidate> {
        let max = max_logit(candidates);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
        let mut sorted = candidates.to_vec();
        sorted.sort_by(Candidate::likelier);
        let mut before = 0.0;
        let mut kept = Vec::new();
        for candidate in sorted {
            if before < f64::from(top_p) * total {
                kept.push(candidate);
            }
            before += candidate.weight(max);
        }
        kept.sort_by_key(|candidate| candidate.id);
        kept
    }

    #[test]
    fn batches_keep_what_a_full_sort_keeps() {
        // Flat enough that the nucleus needs several batches, with many ties.
        let candidates: Vec<Candidate> = (0..5000u32)
            .map(|id| Candidate { id, logit: (id.wrapping_mul(2_654_435_761) >> 22) as f32 / 512.0 })
            .collect();
        for top_p in [1e-6, 0.01, 0.3, 0.5, 0.9, 0.999] {
            let mut kept = candidates.clone();
            keep(&mut kept, top_p);
            assert_eq!(kept, by_full_sort(&candidates, top_p), "top_p {top_p}");
            assert!(!kept.is_empty() && kept.len() < candidates.len(), "top_p {top_p}: {}", kept.len());
        }
    }
}
