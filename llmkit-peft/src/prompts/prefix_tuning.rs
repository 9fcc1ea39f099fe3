use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use llmkit_core::models::Model;
use llmkit_core::nn::KeyValue;
use serde::{Deserialize, Serialize};

use super::config::in_range;
use super::dense::Dense;
use super::{
    Learned, LearnedTensor, ParamSource, PromptConfig, PromptMethod, PromptScope, PromptSizes, Start,
};
use crate::Result;

/// Prefix tuning (Li and Liang 2021, <https://arxiv.org/abs/2101.00190>): learned keys and values before those of every block. Without
/// projection this is P-tuning v2 (Liu et al. 2021, <https://arxiv.org/abs/2110.07602>).
///
/// The first token stands behind the prefix, as in transformers; learned keys are not rotated, nor normalised in models that normalise
/// keys. Where a block sees a window only, the prefix leaves it as tokens do. A prefix takes no part in what heads read: a classifier's
/// first position is the first token.
///
/// With projection, PEFT's file keeps what the network writes and drops the network. Beside it, [`save`](crate::Method::save) puts the
/// network into `llmkit_prompt_encoder.safetensors`, which other programs ignore, so that training can go on where it was. A folder of
/// PEFT's, without that file, computes the same; training it moves the keys and values themselves, with a warning.
pub type PrefixTuning = PromptMethod<Prefix>;

/// How a prefix is shaped: PEFT's `PrefixTuningConfig`, and what an `adapter_config.json` of type `PREFIX_TUNING` holds.
///
/// ```
/// use llmkit_peft::PrefixTuningConfig;
///
/// let config = PrefixTuningConfig::new(20).with_projection(true).with_hidden_size(256);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrefixTuningConfig {
    /// How many keys and values a block, for which model.
    #[serde(flatten)]
    pub scope: PromptScope,
    /// Whether a network writes them while they train; default false.
    #[serde(rename = "prefix_projection", default)]
    pub projection: bool,
    /// The width of the network; by default, that of a block's keys.
    #[serde(rename = "encoder_hidden_size", default)]
    pub hidden_size: Option<usize>,
    /// How keys and values start; default at random.
    #[serde(rename = "init_weights", default)]
    pub init: PrefixInit,
}

/// How the keys and values of a prefix start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrefixInit {
    /// At random: normal with standard deviation 1, or as the network writes them.
    #[default]
    Random,
    /// All zero. Queries still attend to them a little, so the model is not quite what it was.
    Zero,
}

impl Serialize for PrefixInit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Random => serializer.serialize_none(),
            Self::Zero => serializer.serialize_str("zero"),
        }
    }
}

impl<'de> Deserialize<'de> for PrefixInit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None => Ok(Self::Random),
            Some("zero") => Ok(Self::Zero),
            Some(other) => Err(serde::de::Error::custom(format!(
                "init_weights: expected null or \"zero\", found {other:?}"
            ))),
        }
    }
}

impl PrefixTuningConfig {
    /// A prefix without projection, drawn at random; a number of positions is a scope, too.
    pub fn new(scope: impl Into<PromptScope>) -> Self {
        Self { scope: scope.into(), projection: false, hidden_size: None, init: PrefixInit::Random }
    }

    /// Sets whether a network writes the prefix while it trains.
    pub fn with_projection(self, projection: bool) -> Self {
        Self { projection, ..self }
    }

    /// Sets the width of the network.
    pub fn with_hidden_size(self, hidden_size: usize) -> Self {
        Self { hidden_size: Some(hidden_size), ..self }
    }

    /// Sets how keys and values start.
    pub fn with_init(self, init: PrefixInit) -> Self {
        Self { init, ..self }
    }
}

impl PromptConfig for PrefixTuningConfig {
    const PEFT_TYPE: &'static str = "PREFIX_TUNING";

    fn scope(&self) -> &PromptScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut PromptScope {
        &mut self.scope
    }

    fn complete(&mut self, model: &dyn Model, origin: &Path) -> Result<()> {
        let sizes = PromptSizes::of_keys(model, origin)?;
        self.hidden_size.get_or_insert(sizes.token_dim);
        self.scope.complete(sizes, origin)
    }

    fn validate(&self, origin: &Path) -> Result<()> {
        in_range("num_virtual_tokens", self.scope.num_virtual_tokens, origin)?;
        in_range("encoder_hidden_size", self.hidden_size.unwrap_or(1), origin)
    }
}

/// The learned keys and values of [`PrefixTuning`], and the network that writes them where there is one. Each block has its own
/// parameters, which in the file lie side by side.
#[derive(Module, Debug)]
pub struct Prefix {
    /// Of each block `[tokens, 2 * keys]`: keys, then values. None where there is a network.
    tables: Vec<Param<Tensor<2>>>,
    network: Option<Projection>,
    #[module(skip)]
    key_heads: usize,
}

/// A perceptron `W_2 tanh(W_1 x)` that writes keys and values of all blocks.
#[derive(Module, Debug)]
struct Projection {
    /// `[tokens, keys]`
    embedding: Param<Tensor<2>>,
    hidden: Dense,
    /// The last layer's part for each block.
    blocks: Vec<Dense>,
}

impl Projection {
    fn hidden(&self) -> Tensor<2> {
        self.hidden.forward(self.embedding.val()).tanh()
    }
}

impl Prefix {
    /// Whether a network writes the keys and values.
    pub fn has_network(&self) -> bool {
        self.network.is_some()
    }
}

impl Learned for Prefix {
    type Config = PrefixTuningConfig;

    const IS_PREFIX: bool = true;

    fn make(config: &PrefixTuningConfig, source: &mut ParamSource<'_>, encoder: bool) -> Result<Self> {
        let [tokens, width] = config.scope.vectors();
        let blocks = config.scope.num_layers.unwrap_or_default();
        let key_heads = config.scope.num_attention_heads.unwrap_or(1);
        let zero = config.init == PrefixInit::Zero;
        if !encoder {
            let start = if zero { Start::Zeros } else { Start::Normal(1.0) };
            let tables = source.params("prompt_embeddings", [tokens, 2 * width], blocks, 1, start);
            return Ok(Self { tables, network: None, key_heads });
        }
        let hidden = config.hidden_size.unwrap_or(width);
        let network = Projection {
            embedding: source.param("embedding.weight", [tokens, width], Start::Normal(1.0)),
            hidden: Dense::new("transform.0", width, hidden, source),
            blocks: Dense::split("transform.2", hidden, 2 * width, blocks, zero, source),
        };
        Ok(Self { tables: Vec::new(), network: Some(network), key_heads })
    }

    fn wants_encoder(config: &PrefixTuningConfig) -> bool {
        config.projection
    }

    fn tensors(&self) -> Vec<LearnedTensor<'_>> {
        let Some(network) = &self.network else {
            return vec![LearnedTensor::parts("prompt_embeddings", 1, &self.tables)];
        };
        let embedding = LearnedTensor::new("embedding.weight", &network.embedding);
        let hidden = network.hidden.tensors("transform.0");
        let blocks = Dense::joined(&network.blocks, "transform.2");
        std::iter::once(embedding).chain(hidden).chain(blocks).collect()
    }

    fn output(&self) -> Option<Tensor<2>> {
        let network = self.network.as_ref()?;
        let hidden = network.hidden();
        Some(Tensor::cat(network.blocks.iter().map(|block| block.forward(hidden.clone())).collect(), 1))
    }

    fn prefix(&self, layer: usize, batch: usize) -> Option<KeyValue> {
        let both = match &self.network {
            Some(network) => network.blocks[layer].forward(network.hidden()),
            None => self.tables[layer].val(),
        };
        let [tokens, width] = both.dims();
        let both = both.reshape([1, tokens, 2 * self.key_heads, width / 2 / self.key_heads]);
        let both = both.repeat_dim(0, batch);
        let half = |index: usize| both.clone().narrow(2, index * self.key_heads, self.key_heads);
        Some(KeyValue { key: half(0), value: half(1) })
    }
}
