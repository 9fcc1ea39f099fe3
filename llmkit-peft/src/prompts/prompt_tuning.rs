use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use llmkit_core::Tokenizer;
use llmkit_core::models::Model;
use serde::{Deserialize, Serialize};

use super::{
    Learned, LearnedTensor, ParamSource, PromptConfig, PromptMethod, PromptScope, PromptSizes, Start,
};
use crate::{Dropout, Error, Result};

/// Prompt tuning (Lester et al. 2021, <https://arxiv.org/abs/2104.08691>): learned vectors before the embedded tokens.
///
/// A fresh prompt already changes what the model computes, and least where it starts from a fitting text. Prompts want learning rates far
/// above a LoRA's, 0.01 and more.
pub type PromptTuning = PromptMethod<Prompt>;

/// How a prompt is shaped: PEFT's `PromptTuningConfig`, and what an `adapter_config.json` of type `PROMPT_TUNING` holds.
///
/// ```
/// use llmkit_peft::{PromptScope, PromptTuningConfig, PromptTuningInit};
///
/// let config = PromptTuningConfig::new(20).with_init(PromptTuningInit::SampleVocab);
/// // For a classifier, which trains along.
/// let config = PromptTuningConfig::new(PromptScope::new(20).with_task_type("SEQ_CLS"));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptTuningConfig {
    /// How many vectors, for which model.
    #[serde(flatten)]
    pub scope: PromptScope,
    /// How the vectors start; default drawn at random.
    #[serde(rename = "prompt_tuning_init", default)]
    pub init: PromptTuningInit,
    /// The text from which they start, where they do.
    #[serde(rename = "prompt_tuning_init_text", default)]
    pub init_text: Option<String>,
    /// The tokenizer of the text, for PEFT: it does not load a folder without where the prompt started from a text.
    #[serde(default)]
    pub tokenizer_name_or_path: Option<String>,
}

/// How the vectors of a prompt start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptTuningInit {
    /// Normal with standard deviation 1.
    #[default]
    Random,
    /// The model's vectors of a text's tokens, repeated or cut off to fit.
    Text,
    /// The model's vectors of tokens drawn from its vocabulary.
    SampleVocab,
}

impl PromptTuningConfig {
    /// A prompt that is drawn at random; a number of vectors is a scope, too.
    pub fn new(scope: impl Into<PromptScope>) -> Self {
        Self {
            scope: scope.into(),
            init: PromptTuningInit::Random,
            init_text: None,
            tokenizer_name_or_path: None,
        }
    }

    /// Sets how the vectors start.
    pub fn with_init(self, init: PromptTuningInit) -> Self {
        Self { init, ..self }
    }

    /// Starts from `text`, in the tokens of `tokenizer_name_or_path`: [`PromptTuning::from_text`] reads it.
    pub fn with_text(self, text: impl Into<String>, tokenizer_name_or_path: impl Into<String>) -> Self {
        Self {
            init: PromptTuningInit::Text,
            init_text: Some(text.into()),
            tokenizer_name_or_path: Some(tokenizer_name_or_path.into()),
            ..self
        }
    }
}

impl From<usize> for PromptScope {
    fn from(num_virtual_tokens: usize) -> Self {
        Self::new(num_virtual_tokens)
    }
}

impl PromptConfig for PromptTuningConfig {
    const PEFT_TYPE: &'static str = "PROMPT_TUNING";

    fn scope(&self) -> &PromptScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut PromptScope {
        &mut self.scope
    }

    fn complete(&mut self, model: &dyn Model, origin: &Path) -> Result<()> {
        self.scope.complete(PromptSizes::of_embeddings(model, origin)?, origin)
    }
}

/// The learned vectors of [`PromptTuning`].
#[derive(Module, Debug)]
pub struct Prompt {
    /// `[tokens, hidden]`
    embeddings: Param<Tensor<2>>,
}

impl Learned for Prompt {
    type Config = PromptTuningConfig;

    fn make(config: &PromptTuningConfig, source: &mut ParamSource<'_>, _encoder: bool) -> Result<Self> {
        let start = match config.init {
            PromptTuningInit::Random => Start::Normal(1.0),
            PromptTuningInit::Text => Start::Text,
            PromptTuningInit::SampleVocab => Start::Vocabulary,
        };
        Ok(Self { embeddings: source.param("prompt_embeddings", config.scope.vectors(), start) })
    }

    fn tensors(&self) -> Vec<LearnedTensor<'_>> {
        vec![LearnedTensor::new("prompt_embeddings", &self.embeddings)]
    }

    fn prompt(&self, batch: usize, _dropout: Option<Dropout>) -> Option<Tensor<3>> {
        Some(self.embeddings.val().unsqueeze::<3>().repeat_dim(0, batch))
    }
}

impl PromptTuning {
    /// A fresh prompt whose vectors start as those of the configuration's text, which `tokenizer` splits.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration has no text, or the tokenizer another vocabulary than the model.
    pub fn from_text(
        model: &dyn Model,
        config: PromptTuningConfig,
        tokenizer: &Tokenizer,
        seed: u64,
    ) -> Result<Self> {
        let ids = text_ids(config.init_text.as_deref(), tokenizer)?;
        Self::start(model, config, seed, Some(&ids))
    }
}

/// The tokens of the text of a configuration, special ones included, as PEFT takes them.
pub(super) fn text_ids(text: Option<&str>, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let text = text.ok_or_else(|| Error::Config {
        origin: super::method::PROGRAM.into(),
        field: "prompt_tuning_init_text".into(),
        expected: "a text (set it by `with_text`)".into(),
        found: "null".into(),
    })?;
    Ok(tokenizer.encode(text, true)?)
}
