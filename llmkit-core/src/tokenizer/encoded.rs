use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::{PostProcessor, TruncationParams};

use super::{Tokenizer, guard};
use crate::{Error, Result};

/// A text, or a pair of texts, as an encoder reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens' ids, special tokens included.
    pub ids: Vec<u32>,
    /// The tokens' types: of a pair, 0 for the first text and 1 for the second, where the tokenizer tells them apart.
    pub type_ids: Vec<u32>,
    /// Whether tokens were cut off, as [`Tokenizer::with_max_length`] asks.
    pub truncated: bool,
}

impl Tokenizer {
    /// A copy that cuts what it encodes to `max_length` tokens, special tokens included. Of a pair the longer text is cut first.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if `max_length` leaves no room for a token beside the special ones.
    pub fn with_max_length(&self, max_length: usize) -> Result<Self> {
        let special = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(true));
        if max_length <= special {
            return Err(Error::Tokenizer {
                reason: format!(
                    "a length of {max_length} tokens has no room beside {special} special ones; raise the maximal length"
                ),
            });
        }
        let mut inner = (*self.inner).clone();
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        guard("setting the maximal length", || inner.with_truncation(Some(truncation)).map(|_| ()))?;
        Ok(Self::new(inner, self.special.clone()))
    }

    /// A copy that turns texts to lower case before anything else.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer refuses it.
    pub fn with_lowercase(&self) -> Result<Self> {
        let mut inner = (*self.inner).clone();
        let before = inner.get_normalizer().cloned();
        let steps = std::iter::once(NormalizerWrapper::from(Lowercase)).chain(before).collect();
        guard("setting lower case", || inner.with_normalizer(Some(Sequence::new(steps))).map(|_| ()))?;
        Ok(Self::new(inner, self.special.clone()))
    }

    /// Each of `texts` with the model's special tokens around it, on all cores.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when one of the texts cannot be tokenized.
    pub fn encode_texts(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Encoded>> {
        let inputs: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let encodings = guard("encoding", || self.inner.encode_batch_fast(inputs, true))?;
        Ok(encodings.iter().map(Encoded::of).collect())
    }

    /// Each of `pairs` with the model's special tokens around and between its texts, on all cores.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when one of the texts cannot be tokenized.
    pub fn encode_pairs(&self, pairs: &[(impl AsRef<str>, impl AsRef<str>)]) -> Result<Vec<Encoded>> {
        let inputs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_ref(), b.as_ref())).collect();
        let encodings = guard("encoding", || self.inner.encode_batch_fast(inputs, true))?;
        Ok(encodings.iter().map(Encoded::of).collect())
    }
}

impl Encoded {
    fn of(encoding: &tokenizers::Encoding) -> Self {
        Self {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        }
    }
}
