use super::check_vocabulary;
use crate::Result;

/// Bars the last token of each word whose other tokens have just been read. A word that is nothing but an end token is passed over, as in
/// transformers: the answer could not end.
pub(super) fn bar(words: &[Vec<u32>], eos: &[u32], history: &[u32], scores: &mut [f32]) -> Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    let words = || words.iter().filter(|word| !matches!(word.as_slice(), [only] if eos.contains(only)));
    check_vocabulary("bad_words_ids", words(), scores.len())?;
    for word in words() {
        if let Some((&last, prefix)) = word.split_last()
            && history.ends_with(prefix)
        {
            scores[last as usize] = f32::NEG_INFINITY;
        }
    }
    Ok(())
}
