use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward};
use super::shape::{DecoderShape, ShapeDefaults};
use crate::Result;
use crate::nn::{AttentionConfig, Mlp, RopeConfig, Weights};

/// What a `config.json` of `MistralForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct MistralConfig {
    /// The sizes.
    pub shape: DecoderShape,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// How many keys a query sees in every block; default 4096, all where the field is null.
    pub sliding_window: Option<usize>,
}

impl MistralConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("hidden_act", &["silu", "swish"])?;
        // Every block slides; what mixes them is Ministral.
        config.unsupported("layer_types")?;
        let defaults = ShapeDefaults {
            head_dim: None,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 131_072,
            tie_word_embeddings: false,
        };
        let shape = DecoderShape::read(config, defaults)?;
        Ok(Self {
            shape,
            rope: config.rope(shape.head_dim)?,
            sliding_window: config.window_or("sliding_window", Some(4096))?,
        })
    }
}

/// Mistral (Jiang et al. 2023): Llama with a window over the keys.
///
/// Reads the tensors of a `MistralForCausalLM`; `raw` is the configuration's JSON, kept for writing it back.
pub fn load_mistral(weights: &Weights<'_>, config: &MistralConfig, raw: Value) -> Decoder {
    let block = |weights: &Weights<'_>, index| load_block(weights, index, config);
    config.shape.load(weights, &[&config.rope], config.shape.norm(), raw, block)
}

fn load_block(weights: &Weights<'_>, index: usize, config: &MistralConfig) -> DecoderBlock {
    let MistralConfig { shape, sliding_window, .. } = config;
    let attention = AttentionConfig { window: *sliding_window, ..shape.attention() };
    let mlp = FeedForward::Dense(Mlp::load(&weights.at("mlp"), shape.mlp()));
    shape.block(weights, index, attention, mlp)
}
