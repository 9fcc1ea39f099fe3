use std::path::Path;

use crate::checkpoint::gguf::Metadata;
use crate::{Error, Result};

/// Text to token ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Err(Error::Tokenizer { reason: path.as_ref().display().to_string() })
    }

    /// x
    pub fn from_folder(path: impl AsRef<Path>) -> Result<Self> { Self::from_file(path) }
    /// Builds the tokenizer that a GGUF file carries.
    pub fn from_gguf(_metadata: &Metadata) -> Result<Self> {
        Err(Error::Tokenizer { reason: String::new() })
    }

    /// The ids of `text`.
    pub fn encode(&self, _text: &str, _add_special_tokens: bool) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    /// The text of `ids`.
    pub fn decode(&self, _ids: &[u32], _skip_special_tokens: bool) -> Result<String> {
        Ok(String::new())
    }
}
