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
    /// Its chat template.
    pub chat_template: ChatTemplate,
}

impl Pretrained {
    /// Loads a Hugging Face folder or a `.gguf` file onto `device`.
    ///
    /// # Errors
    /// Whatever is wrong with the files: see [`load_causal_lm`] and [`Tokenizer`].
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let checkpoint = Checkpoint::open(path.as_ref())?;
        let (tokenizer, chat_template) = match checkpoint.gguf() {
            Some(file) => (Tokenizer::from_gguf(file.metadata())?, ChatTemplate::from_gguf(file.metadata())?),
            None => {
                (Tokenizer::from_folder(checkpoint.path())?, ChatTemplate::from_folder(checkpoint.path())?)
            }
        };
        let model = load_causal_lm(&checkpoint, device)?;
        Ok(Self { model, tokenizer, chat_template })
    }
}
