use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;

use super::{CausalLm, load_causal_lm};
use crate::checkpoint::Checkpoint;
use crate::{ChatTemplate, Result, Tokenizer};

/// A language model with what it takes to talk to it, as one folder or GGUF file holds them.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// The model.
    pub model: Arc<dyn CausalLm>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if it has one.
    pub chat_template: Option<ChatTemplate>,
}

impl Pretrained {
    /// Loads a Hugging Face folder or a `.gguf` file onto `device`.
    ///
    /// # Errors
    /// Whatever is wrong with the files: see [`load_causal_lm`] and [`Tokenizer`].
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let checkpoint = Checkpoint::open(path.as_ref())?;
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
        let chat_template = ChatTemplate::from_checkpoint(&checkpoint)?;
        let model = load_causal_lm(&checkpoint, device)?;
        Ok(Self { model, tokenizer, chat_template })
    }
}
