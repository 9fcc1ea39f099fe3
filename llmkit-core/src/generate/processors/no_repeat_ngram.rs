/// Bars every token that would make the last `size` tokens ones that stand in `history` already. 0 bars nothing.
pub(super) fn bar(size: usize, history: &[u32], scores: &mut [f32]) {
    if size == 0 || history.len() < size {
        return;
    }
    let suffix = &history[history.len() + 1 - size..];
    for ngram in history.windows(size) {
        if let Some((&last, prefix)) = ngram.split_last()
            && prefix == suffix
            && let Some(score) = scores.get_mut(last as usize)
        {
            *score = f32::NEG_INFINITY;
        }
    }
}
