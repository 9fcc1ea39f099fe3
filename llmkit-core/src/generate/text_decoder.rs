use crate::Result;

/// Turns token ids into text one by one, keeping back what is not yet a whole character.
pub trait TextDecoder {
    /// Takes the next token; the text that it completes, if it completes any. An id that the tokenizer does not have (a model's output
    /// is often padded beyond its tokenizer) has no text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) when the tokens cannot be decoded.
    fn step(&mut self, id: u32) -> Result<Option<String>>;

    /// Ends the text: what was still kept back, if anything.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) when the remainder cannot be decoded.
    fn finish(&mut self) -> Result<Option<String>>;
}

impl<T: TextDecoder + ?Sized> TextDecoder for &mut T {
    fn step(&mut self, id: u32) -> Result<Option<String>> {
        (**self).step(id)
    }

    fn finish(&mut self) -> Result<Option<String>> {
        (**self).finish()
    }
}
