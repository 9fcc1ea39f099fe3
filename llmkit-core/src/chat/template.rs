use std::path::Path;

use crate::checkpoint::gguf::Metadata;
use crate::{Message, Result};

/// A model's own chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Reads the template of a Hugging Face folder.
    pub fn from_folder(_folder: impl AsRef<Path>) -> Result<Self> {
        Ok(Self {})
    }

    /// Takes the template that a GGUF file carries.
    pub fn from_gguf(_metadata: &Metadata) -> Result<Self> {
        Ok(Self {})
    }

    /// The conversation as the text that the model was trained on.
    pub fn render(&self, _messages: &[Message], _add_generation_prompt: bool) -> Result<String> {
        Ok(String::new())
    }
}
