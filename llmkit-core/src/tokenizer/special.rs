/// The tokens with a part to play around a text.
#[derive(Debug, Clone, Default)]
pub(super) struct SpecialTokens {
    /// Begins a text.
    pub(super) bos: Option<u32>,
    /// End a text or a turn; the tokenizer's own first, none twice.
    pub(super) eos: Vec<u32>,
    /// Fills up a batch.
    pub(super) pad: Option<u32>,
}

impl SpecialTokens {
    /// Appends ids that end a turn, leaving out those already there.
    pub(super) fn extend_eos(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            if !self.eos.contains(&id) {
                self.eos.push(id);
            }
        }
    }
}
