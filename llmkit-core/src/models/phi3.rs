use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward};
use super::rope_config::RopeFields;
use super::shape::{DecoderShape, ShapeDefaults};
use crate::Result;
use crate::nn::{AttentionConfig, Mlp, MlpConfig, RopeConfig, Weights};

/// What a `config.json` of `Phi3ForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Phi3Config {
    /// The sizes.
    pub shape: DecoderShape,
    /// Rotary positions; Phi-4-mini turns only a part of each head.
    pub rope: RopeConfig,
    /// How many keys a query sees; default all.
    pub sliding_window: Option<usize>,
}

impl Phi3Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("hidden_act", &["silu", "swish"])?;
        // Written by Phi-4-mini's first configuration; no such model has any.
        for field in ["attention_bias", "mlp_bias", "lm_head_bias"] {
            if config.flag_or(field, false)? {
                return Err(config.wrong(field, "false", &true));
            }
        }
        let defaults = ShapeDefaults {
            head_dim: None,
            rms_norm_eps: 1e-5,
            max_position_embeddings: 4096,
            tie_word_embeddings: false,
        };
        let shape = DecoderShape::read(config, defaults)?;
        let parameters = config.nested("rope_parameters").or_else(|| config.nested("rope_scaling"));
        if let Some(parameters) = parameters {
            parameters.only("rope_type", &["default", "longrope", "su"])?;
            parameters.only("type", &["default", "longrope", "su"])?;
        }
        let fields = RopeFields {
            partial: true,
            original_max_position: Some(4096),
            ..RopeFields::new(shape.head_dim)
        };
        Ok(Self {
            shape,
            rope: config.rope_from(parameters, fields)?,
            sliding_window: config.window_or("sliding_window", None)?,
        })
    }
}

/// Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al. 2024): Llama with queries, keys and values in one projection, gate and up in another.
///
/// Reads the tensors of a `Phi3ForCausalLM`; `raw` is the configuration's JSON, kept for writing it back.
pub fn load_phi3(weights: &Weights<'_>, config: &Phi3Config, raw: Value) -> Decoder {
    let block = |weights: &Weights<'_>, index| load_block(weights, index, config);
    config.shape.load(weights, &[&config.rope], config.shape.norm(), raw, block)
}

fn load_block(weights: &Weights<'_>, index: usize, config: &Phi3Config) -> DecoderBlock {
    let Phi3Config { shape, sliding_window, .. } = config;
    let attention = AttentionConfig { fused: true, window: *sliding_window, ..shape.attention() };
    let mlp = MlpConfig { fused: true, ..shape.mlp() };
    let mlp = FeedForward::Dense(Mlp::load(&weights.at("mlp"), mlp));
    shape.block(weights, index, attention, mlp)
}
