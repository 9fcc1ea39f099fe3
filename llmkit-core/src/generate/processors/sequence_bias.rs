use std::collections::BTreeMap;

use super::check_vocabulary;
use crate::Result;

/// Adds each sequence's bias to its last token where the tokens before it have just been read; a sequence of one token is always biased.
pub(super) fn apply(biases: &BTreeMap<Vec<u32>, f32>, history: &[u32], scores: &mut [f32]) -> Result<()> {
    if biases.is_empty() {
        return Ok(());
    }
    check_vocabulary("sequence_bias", biases.keys(), scores.len())?;
    for (sequence, bias) in biases {
        if let Some((&last, prefix)) = sequence.split_last()
            && history.ends_with(prefix)
        {
            scores[last as usize] += bias;
        }
    }
    Ok(())
}
