use crate::Result;

/// Something that continues a token sequence and remembers what it was fed: a model with its key-value cache.
pub trait NextToken {
    /// Feeds `tokens` (at least one) after those fed before, and writes the logits for the position after the last of them into
    /// `logits`, which is resized to the vocabulary. Whatever `logits` held is overwritten.
    ///
    /// # Errors
    /// Whatever keeps the model from running: a token outside its vocabulary, more tokens than
    /// [`max_positions`](Self::max_positions) leaves room for.
    fn feed(&mut self, tokens: &[u32], logits: &mut Vec<f32>) -> Result<()>;

    /// Tokens fed so far.
    fn position(&self) -> usize;

    /// The most tokens that can ever be fed: the context limit.
    fn max_positions(&self) -> usize;
}
