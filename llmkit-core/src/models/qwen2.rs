use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward};
use super::shape::{DecoderShape, ShapeDefaults, qwen_windows};
use crate::Result;
use crate::nn::{AttentionConfig, Mlp, RopeConfig, Weights};

/// What a `config.json` of `Qwen2ForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen2Config {
    /// The sizes.
    pub shape: DecoderShape,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// How many keys a query sees in each block; all where there is none. Default none.
    pub windows: Vec<Option<usize>>,
}

impl Qwen2Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("hidden_act", &["silu", "swish"])?;
        let defaults = ShapeDefaults {
            head_dim: None,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 32_768,
            tie_word_embeddings: false,
        };
        let shape = DecoderShape::read(config, defaults)?;
        Ok(Self {
            shape,
            rope: config.rope(shape.head_dim)?,
            windows: qwen_windows(config, shape.num_hidden_layers)?,
        })
    }
}

/// Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values.
///
/// Reads the tensors of a `Qwen2ForCausalLM`; `raw` is the configuration's JSON, kept for writing it back.
pub fn load_qwen2(weights: &Weights<'_>, config: &Qwen2Config, raw: Value) -> Decoder {
    let block = |weights: &Weights<'_>, index| load_block(weights, index, config);
    config.shape.load(weights, &[&config.rope], config.shape.norm(), raw, block)
}

fn load_block(weights: &Weights<'_>, index: usize, config: &Qwen2Config) -> DecoderBlock {
    let Qwen2Config { shape, windows, .. } = config;
    let attention = AttentionConfig { qkv_bias: true, window: windows[index], ..shape.attention() };
    let mlp = FeedForward::Dense(Mlp::load(&weights.at("mlp"), shape.mlp()));
    shape.block(weights, index, attention, mlp)
}
