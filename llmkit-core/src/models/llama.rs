use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward};
use super::shape::{DecoderShape, ShapeDefaults};
use crate::Result;
use crate::nn::{AttentionConfig, Mlp, MlpConfig, RopeConfig, Weights};

/// What a `config.json` of `LlamaForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// The sizes.
    pub shape: DecoderShape,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Whether attention's projections have biases; default false.
    pub attention_bias: bool,
    /// Whether the feed-forward projections have biases; default false.
    pub mlp_bias: bool,
}

impl LlamaConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("hidden_act", &["silu", "swish"])?;
        let defaults = ShapeDefaults {
            head_dim: None,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 2048,
            tie_word_embeddings: false,
        };
        let shape = DecoderShape::read(config, defaults)?;
        Ok(Self {
            shape,
            rope: config.rope(shape.head_dim)?,
            attention_bias: config.flag_or("attention_bias", false)?,
            mlp_bias: config.flag_or("mlp_bias", false)?,
        })
    }
}

/// Llama (Touvron et al. 2023; Grattafiori et al. 2024), and what shares its shape: SmolLM, TinyLlama.
///
/// Reads the tensors of a `LlamaForCausalLM`; `raw` is the configuration's JSON, kept for writing it back.
pub fn load_llama(weights: &Weights<'_>, config: &LlamaConfig, raw: Value) -> Decoder {
    let block = |weights: &Weights<'_>, index| load_block(weights, index, config);
    config.shape.load(weights, &[&config.rope], config.shape.norm(), raw, block)
}

fn load_block(weights: &Weights<'_>, index: usize, config: &LlamaConfig) -> DecoderBlock {
    let LlamaConfig { shape, attention_bias, mlp_bias, .. } = config;
    // Older checkpoints store what can be derived.
    weights.at("self_attn").ignore("rotary_emb.inv_freq");
    let attention =
        AttentionConfig { qkv_bias: *attention_bias, output_bias: *attention_bias, ..shape.attention() };
    let mlp = Mlp::load(&weights.at("mlp"), MlpConfig { bias: *mlp_bias, ..shape.mlp() });
    shape.block(weights, index, attention, FeedForward::Dense(mlp))
}
