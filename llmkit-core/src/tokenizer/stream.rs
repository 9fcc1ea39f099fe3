use tokenizers::DecoderWrapper;

use super::Tokenizer;
use crate::Result;
use crate::generate::TextDecoder;

/// Decodes ids one at a time into pieces of complete characters.
///
/// A token may hold part of a character (an emoji takes up to four tokens), so a piece appears only when its characters can no
/// longer change. The pieces, with that of [`finish`](Self::finish), add up to [`Tokenizer::decode`] of all ids.
///
/// With a byte-fallback vocabulary (Llama 2) a run of byte tokens is held until another token follows, because one bad byte changes the text
/// of the whole run.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    tokenizer: Tokenizer,
    skip_special_tokens: bool,
    byte_fallback: bool,
    /// Special tokens that are shown though others are skipped.
    shown_tokens: Vec<u32>,
    /// The ids that may still change the text: those not yet shown, and before them the last ones shown, as context, since a
    /// decoder may treat the first token of its input in its own way.
    window: Vec<u32>,
    /// How many of `window` are context.
    context: usize,
    /// The bytes of the window's text that have been shown.
    shown: usize,
}

impl DecodeStream {
    pub(super) fn new(tokenizer: Tokenizer, skip_special_tokens: bool) -> Self {
        let byte_fallback = tokenizer.inner.get_decoder().is_some_and(has_byte_fallback);
        Self {
            tokenizer,
            skip_special_tokens,
            byte_fallback,
            shown_tokens: Vec::new(),
            window: Vec::new(),
            context: 0,
            shown: 0,
        }
    }

    /// Shows these special tokens though others are skipped: the marks of tool calls, say.
    pub fn showing(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.shown_tokens.extend(tokens);
        self
    }

    /// Takes the next id and returns the text that it completes, if it completes any.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) when the decoder refuses the tokens.
    pub fn step(&mut self, id: u32) -> Result<Option<String>> {
        if self.skip_special_tokens && self.tokenizer.is_special(id) && !self.shown_tokens.contains(&id) {
            return Ok(None);
        }
        let Some(token) = self.tokenizer.id_to_token(id) else { return Ok(None) };
        self.window.push(id);
        if self.byte_fallback && is_byte(&token) {
            return Ok(None);
        }
        // What is skipped never comes into the window.
        let text = self.tokenizer.decode(&self.window, false)?;
        // Only the last character can be an unfinished one: what precedes it is settled.
        let settled = text.strip_suffix(char::REPLACEMENT_CHARACTER);
        let piece = self.take(settled.unwrap_or(&text));
        if settled.is_none() && piece.is_some() {
            self.window.drain(..self.context);
            self.context = self.window.len();
            self.shown = self.tokenizer.decode(&self.window, false)?.len();
        }
        Ok(piece)
    }

    /// Ends the text and is ready for another: what was still held back, if anything. An unfinished character is U+FFFD, as [`Tokenizer::decode`] has it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) when the decoder refuses the tokens.
    pub fn finish(&mut self) -> Result<Option<String>> {
        let text = self.tokenizer.decode(&self.window, false)?;
        let piece = self.take(&text);
        self.window.clear();
        (self.context, self.shown) = (0, 0);
        Ok(piece)
    }

    fn take(&mut self, text: &str) -> Option<String> {
        let piece = text.get(self.shown..).filter(|piece| !piece.is_empty())?.to_owned();
        self.shown = text.len();
        Some(piece)
    }
}

impl TextDecoder for DecodeStream {
    fn step(&mut self, id: u32) -> Result<Option<String>> {
        Self::step(self, id)
    }

    fn finish(&mut self) -> Result<Option<String>> {
        Self::finish(self)
    }
}

fn has_byte_fallback(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(has_byte_fallback),
        _ => false,
    }
}

fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}
