use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward};
use super::shape::{DecoderShape, ShapeDefaults, qwen_windows};
use crate::Result;
use crate::nn::{AttentionConfig, Mlp, RopeConfig, Weights};

/// What a `config.json` of `Qwen3ForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen3Config {
    /// The sizes; `head_dim` is 128 where nothing says it.
    pub shape: DecoderShape,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Whether attention's projections have biases; default false.
    pub attention_bias: bool,
    /// How many keys a query sees in each block; all where there is none. Default none.
    pub windows: Vec<Option<usize>>,
}

impl Qwen3Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("hidden_act", &["silu", "swish"])?;
        let defaults = ShapeDefaults {
            head_dim: Some(128),
            rms_norm_eps: 1e-6,
            max_position_embeddings: 32_768,
            tie_word_embeddings: false,
        };
        let shape = DecoderShape::read(config, defaults)?;
        Ok(Self {
            shape,
            rope: config.rope(shape.head_dim)?,
            attention_bias: config.flag_or("attention_bias", false)?,
            windows: qwen_windows(config, shape.num_hidden_layers)?,
        })
    }
}

/// Qwen 3 (Yang et al. 2025): Llama with each head's queries and keys normalised before they turn.
///
/// Reads the tensors of a `Qwen3ForCausalLM`; `raw` is the configuration's JSON, kept for writing it back.
pub fn load_qwen3(weights: &Weights<'_>, config: &Qwen3Config, raw: Value) -> Decoder {
    let block = |weights: &Weights<'_>, index| load_block(weights, index, config);
    config.shape.load(weights, &[&config.rope], config.shape.norm(), raw, block)
}

fn load_block(weights: &Weights<'_>, index: usize, config: &Qwen3Config) -> DecoderBlock {
    let Qwen3Config { shape, attention_bias, windows, .. } = config;
    let attention = AttentionConfig {
        qkv_bias: *attention_bias,
        output_bias: *attention_bias,
        norms: Some(shape.norm()),
        window: windows[index],
        ..shape.attention()
    };
    let mlp = FeedForward::Dense(Mlp::load(&weights.at("mlp"), shape.mlp()));
    shape.block(weights, index, attention, mlp)
}
