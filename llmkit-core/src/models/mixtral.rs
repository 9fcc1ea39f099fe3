use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward};
use super::rope_config::RopeFields;
use super::shape::{DecoderShape, ShapeDefaults};
use crate::Result;
use crate::nn::{AttentionConfig, Linear, MixtureOfExperts, Mlp, RopeConfig, Weights};

/// What a `config.json` of `MixtralForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtralConfig {
    /// The sizes; `intermediate_size` is that of one expert.
    pub shape: DecoderShape,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// How many keys a query sees in every block; default all.
    pub sliding_window: Option<usize>,
    /// Experts in a block; default 8.
    pub num_local_experts: usize,
    /// Experts that transform a token; default 2.
    pub num_experts_per_tok: usize,
}

impl MixtralConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("hidden_act", &["silu", "swish"])?;
        config.unsupported("layer_types")?;
        let defaults = ShapeDefaults {
            head_dim: None,
            rms_norm_eps: 1e-5,
            max_position_embeddings: 131_072,
            tie_word_embeddings: false,
        };
        let shape = DecoderShape::read(config, defaults)?;
        let parameters = config.nested("rope_parameters").or_else(|| config.nested("rope_scaling"));
        let rope = RopeFields { theta: ("rope_theta", 1_000_000.0), ..RopeFields::new(shape.head_dim) };
        let num_local_experts = config.size_or("num_local_experts", 8)?;
        Ok(Self {
            shape,
            rope: config.rope_from(parameters, rope)?,
            sliding_window: config.window_or("sliding_window", None)?,
            num_local_experts,
            num_experts_per_tok: config.at_most("num_experts_per_tok", 2, num_local_experts)?,
        })
    }
}

/// Mixtral (Jiang et al. 2024): Mistral with experts in every block.
///
/// Reads the tensors of a `MixtralForCausalLM`, which names each expert's by itself; `raw` is the configuration's JSON, kept for
/// writing it back.
pub fn load_mixtral(weights: &Weights<'_>, config: &MixtralConfig, raw: Value) -> Decoder {
    let block = |weights: &Weights<'_>, index| load_block(weights, index, config);
    config.shape.load(weights, &[&config.rope], config.shape.norm(), raw, block)
}

fn load_block(weights: &Weights<'_>, index: usize, config: &MixtralConfig) -> DecoderBlock {
    let MixtralConfig { shape, sliding_window, .. } = config;
    let attention = AttentionConfig { window: *sliding_window, ..shape.attention() };
    let mlp = FeedForward::Experts(load_experts(&weights.at("block_sparse_moe"), config));
    shape.block(weights, index, attention, mlp)
}

fn load_experts(weights: &Weights<'_>, config: &MixtralConfig) -> MixtureOfExperts {
    let MixtralConfig { shape, num_local_experts, num_experts_per_tok, .. } = config;
    let router = Linear::load(&weights.at("gate"), shape.hidden_size, *num_local_experts, false);
    let experts = weights.at("experts");
    let load = |index| Mlp::load_named(&experts.at(index), shape.mlp(), ["w1", "w3", "w2"]);
    MixtureOfExperts::new(router, (0..*num_local_experts).map(load).collect(), *num_experts_per_tok, true)
}
