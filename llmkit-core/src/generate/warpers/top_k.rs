use super::super::candidate::Candidate;

/// Keeps the `top_k` likeliest and whatever ties with the last of them, as transformers does.
pub(in super::super) fn keep(candidates: &mut Vec<Candidate>, top_k: usize) {
    if top_k == 0 || top_k >= candidates.len() {
        return;
    }
    // A selection is linear in the vocabulary; a sort of 150,000 logits for each token is what this avoids.
    let mut logits: Vec<f32> = candidates.iter().map(|candidate| candidate.logit).collect();
    let (_, &mut kth, _) = logits.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a));
    candidates.retain(|candidate| candidate.logit >= kth);
}
