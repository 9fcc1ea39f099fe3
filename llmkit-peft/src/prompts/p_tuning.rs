use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use llmkit_core::models::Model;
use serde::{Deserialize, Serialize};

use super::config::in_range;
use super::dense::Dense;
use super::lstm::BiLstm;
use super::{
    Learned, LearnedTensor, ParamSource, PromptConfig, PromptMethod, PromptScope, PromptSizes, Start,
};
use crate::{Dropout, Error, Result};

/// P-tuning (Liu et al. 2021, <https://arxiv.org/abs/2103.10385>): learned vectors before the embedded tokens, which a small network
/// writes, so that they can depend on each other while they train.
///
/// PEFT's file keeps what the network writes and drops the network. Beside it, [`save`](crate::Method::save) puts the network into
/// `llmkit_prompt_encoder.safetensors`, which other programs ignore, so that training can go on where it was. A folder of PEFT's, without
/// that file, computes the same; training it moves the vectors themselves, as [`PromptTuning`](crate::PromptTuning) does, with a warning.
pub type PTuning = PromptMethod<PromptEncoder>;

/// How a prompt and its network are shaped: PEFT's `PromptEncoderConfig`, and what an `adapter_config.json` of type `P_TUNING` holds.
///
/// ```
/// use llmkit_peft::{PTuningConfig, PromptEncoderKind};
///
/// let config = PTuningConfig::new(20).with_encoder(PromptEncoderKind::Lstm).with_hidden_size(128);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PTuningConfig {
    /// How many vectors, for which model.
    #[serde(flatten)]
    pub scope: PromptScope,
    /// What the network is; default a perceptron.
    #[serde(rename = "encoder_reparameterization_type", default)]
    pub encoder: PromptEncoderKind,
    /// The width of the network; by default, that of the model.
    #[serde(rename = "encoder_hidden_size", default)]
    pub hidden_size: Option<usize>,
    /// Layers of the LSTM; default 2. The perceptron always has three.
    #[serde(rename = "encoder_num_layers", default = "two")]
    pub encoder_layers: usize,
    /// The probability of dropout between the layers of the LSTM, in [0, 1); default 0.
    #[serde(rename = "encoder_dropout", default)]
    pub dropout: f64,
}

/// The network that writes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PromptEncoderKind {
    /// Three linear layers with ReLU between them, on each vector by itself.
    #[default]
    Mlp,
    /// A long short-term memory in both directions, then two linear layers with ReLU between them.
    Lstm,
}

fn two() -> usize {
    2
}

impl PTuningConfig {
    /// A prompt that a perceptron as wide as the model writes; a number of vectors is a scope, too.
    pub fn new(scope: impl Into<PromptScope>) -> Self {
        Self {
            scope: scope.into(),
            encoder: PromptEncoderKind::Mlp,
            hidden_size: None,
            encoder_layers: two(),
            dropout: 0.0,
        }
    }

    /// Sets what the network is.
    pub fn with_encoder(self, encoder: PromptEncoderKind) -> Self {
        Self { encoder, ..self }
    }

    /// Sets the width of the network.
    pub fn with_hidden_size(self, hidden_size: usize) -> Self {
        Self { hidden_size: Some(hidden_size), ..self }
    }

    /// Sets how many layers the LSTM has.
    pub fn with_encoder_layers(self, encoder_layers: usize) -> Self {
        Self { encoder_layers, ..self }
    }

    /// Sets the probability of dropout between the layers of the LSTM.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }
}

impl PromptConfig for PTuningConfig {
    const PEFT_TYPE: &'static str = "P_TUNING";

    fn scope(&self) -> &PromptScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut PromptScope {
        &mut self.scope
    }

    fn complete(&mut self, model: &dyn Model, origin: &Path) -> Result<()> {
        let sizes = PromptSizes::of_embeddings(model, origin)?;
        self.hidden_size.get_or_insert(sizes.token_dim);
        self.scope.complete(sizes, origin)
    }

    fn validate(&self, origin: &Path) -> Result<()> {
        in_range("num_virtual_tokens", self.scope.num_virtual_tokens, origin)?;
        in_range("encoder_hidden_size", self.hidden_size.unwrap_or(1), origin)?;
        let wrong = |field: &str, expected: &str, found: String| Error::Config {
            origin: origin.to_path_buf(),
            field: field.into(),
            expected: expected.into(),
            found,
        };
        if !(1..=64).contains(&self.encoder_layers) {
            return Err(wrong("encoder_num_layers", "an integer in 1..=64", self.encoder_layers.to_string()));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(wrong("encoder_dropout", "a probability in [0, 1)", self.dropout.to_string()));
        }
        Ok(())
    }

    fn dropout(&self) -> f64 {
        match self.encoder {
            PromptEncoderKind::Lstm => self.dropout,
            PromptEncoderKind::Mlp => 0.0,
        }
    }
}

/// The learned vectors of [`PTuning`], and the network that writes them.
#[derive(Module, Debug)]
pub struct PromptEncoder {
    /// `[tokens, hidden]`: what the network reads or, where there is none, the prompt.
    embedding: Param<Tensor<2>>,
    lstm_head: Option<BiLstm>,
    /// None where there is no network.
    mlp_head: Vec<Dense>,
}

impl PromptEncoder {
    /// Whether the network is there.
    pub fn has_network(&self) -> bool {
        !self.mlp_head.is_empty()
    }

    /// The vectors.
    ///
    /// # Shapes
    /// `[tokens, hidden]`
    fn vectors(&self, dropout: Option<Dropout>) -> Tensor<2> {
        let read = self.embedding.val();
        let read = match &self.lstm_head {
            Some(lstm) => lstm.forward(read, dropout),
            None => read,
        };
        self.mlp_head
            .iter()
            .enumerate()
            .fold(read, |x, (index, dense)| dense.forward(if index == 0 { x } else { relu(x) }))
    }
}

/// torch's name of a linear layer of the network: functions without weights count between them.
fn layer_name(index: usize) -> String {
    format!("mlp_head.{}", 2 * index)
}

impl Learned for PromptEncoder {
    type Config = PTuningConfig;

    fn make(config: &PTuningConfig, source: &mut ParamSource<'_>, encoder: bool) -> Result<Self> {
        let shape @ [_, width] = config.scope.vectors();
        let start = Start::Normal(1.0);
        if !encoder {
            let embedding = source.param("prompt_embeddings", shape, start);
            return Ok(Self { embedding, lstm_head: None, mlp_head: Vec::new() });
        }
        let hidden = config.hidden_size.unwrap_or(width);
        let embedding = source.param("embedding.weight", shape, start);
        let (lstm_head, widths) = match config.encoder {
            PromptEncoderKind::Mlp => (None, vec![width, hidden, hidden, width]),
            PromptEncoderKind::Lstm => {
                let lstm = BiLstm::new("lstm_head", width, hidden, config.encoder_layers, source);
                (Some(lstm), vec![2 * hidden, 2 * hidden, width])
            }
        };
        let layers = widths.windows(2).enumerate();
        let mlp_head =
            layers.map(|(index, pair)| Dense::new(&layer_name(index), pair[0], pair[1], source)).collect();
        Ok(Self { embedding, lstm_head, mlp_head })
    }

    fn wants_encoder(_config: &PTuningConfig) -> bool {
        true
    }

    fn tensors(&self) -> Vec<LearnedTensor<'_>> {
        if !self.has_network() {
            return vec![LearnedTensor::new("prompt_embeddings", &self.embedding)];
        }
        let embedding = LearnedTensor::new("embedding.weight", &self.embedding);
        let lstm = self.lstm_head.iter().flat_map(|lstm| lstm.tensors("lstm_head"));
        let mlp = self.mlp_head.iter().enumerate();
        let mlp = mlp.flat_map(|(index, dense)| dense.tensors(&layer_name(index)));
        std::iter::once(embedding).chain(lstm).chain(mlp).collect()
    }

    fn output(&self) -> Option<Tensor<2>> {
        self.has_network().then(|| self.vectors(None))
    }

    fn prompt(&self, batch: usize, dropout: Option<Dropout>) -> Option<Tensor<3>> {
        Some(self.vectors(dropout).unsqueeze::<3>().repeat_dim(0, batch))
    }
}
