use crate::Result;

/// Something that continues several token sequences side by side, its rows: a model whose key-value cache has a batch. The rows may stand
/// at different positions.
pub trait NextTokens {
    /// How many rows there are, at least 1.
    fn rows(&self) -> usize;

    /// Feeds row `i` the tokens `tokens[i]` after those that it was fed before, and writes the logits for the position after its last one
    /// into `logits[i]`, which is resized to the vocabulary. A row that is given no tokens rests, and its logits stay as they are.
    /// `tokens` and `logits` have one entry for each row.
    ///
    /// # Errors
    /// Whatever keeps the model from running: a token outside its vocabulary, more tokens than
    /// [`max_positions`](Self::max_positions) leaves room for.
    fn feed_rows(&mut self, tokens: &[&[u32]], logits: &mut [Vec<f32>]) -> Result<()>;

    /// Row `i` becomes a copy of what row `parents[i]` was; the number of rows becomes `parents.len()`, at least 1.
    ///
    /// # Errors
    /// Whatever keeps the rows from being copied; a parent that is not a row.
    fn select(&mut self, parents: &[usize]) -> Result<()>;

    /// Tokens that `row` was fed so far.
    fn row_position(&self, row: usize) -> usize;

    /// The most tokens that can ever be fed to a row: the context limit.
    fn max_positions(&self) -> usize;
}
