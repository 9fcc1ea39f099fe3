use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward};
use super::rope_config::RopeFields;
use super::shape::{DecoderShape, LAYER_TYPES, SLIDING, ShapeDefaults};
use crate::Result;
use crate::nn::{
    Activation, Attention, AttentionConfig, Mlp, MlpConfig, Norm, NormConfig, RopeConfig, Weights,
};

/// What a `config.json` of `Gemma3ForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemma3Config {
    /// The sizes; `head_dim` is 256 and the head is tied where nothing says it.
    pub shape: DecoderShape,
    /// Rotary positions of the blocks that see everything.
    pub full_rope: RopeConfig,
    /// Rotary positions of the blocks that see a window.
    pub sliding_rope: RopeConfig,
    /// Whether each block sees only a window; by default all but every sixth.
    pub sliding: Vec<bool>,
    /// How many keys a query sees in those blocks; default 4096.
    pub sliding_window: usize,
    /// The dot products are divided by the root of this; default 256.
    pub query_pre_attn_scalar: f64,
    /// Whether attention's projections have biases; default false.
    pub attention_bias: bool,
}

impl Gemma3Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("hidden_activation", &["gelu_pytorch_tanh"])?;
        config.unsupported("final_logit_softcapping")?;
        config.unsupported("attn_logit_softcapping")?;
        if config.flag_or("use_bidirectional_attention", false)? {
            return Err(config.wrong("use_bidirectional_attention", "false (for a causal model)", &true));
        }
        let defaults = ShapeDefaults {
            head_dim: Some(256),
            rms_norm_eps: 1e-6,
            max_position_embeddings: 131_072,
            tie_word_embeddings: true,
        };
        let shape = DecoderShape::read(config, defaults)?;
        let layers = shape.num_hidden_layers;
        let sliding = match config.texts("layer_types", layers, &LAYER_TYPES)? {
            Some(kinds) => kinds.into_iter().map(|kind| kind == SLIDING).collect(),
            None => {
                let pattern = config.size_or("sliding_window_pattern", 6)?;
                (1..=layers).map(|number| number % pattern != 0).collect()
            }
        };
        let query_pre_attn_scalar = match config.optional("query_pre_attn_scalar") {
            Some(_) => config.positive("query_pre_attn_scalar")?,
            None => 256.0,
        };
        let [full_rope, sliding_rope] = ropes(config, shape.head_dim)?;
        Ok(Self {
            shape,
            full_rope,
            sliding_rope,
            sliding,
            sliding_window: config.size_or("sliding_window", 4096)?,
            query_pre_attn_scalar,
            attention_bias: config.flag_or("attention_bias", false)?,
        })
    }
}

/// The rotations of full and of sliding blocks: in `rope_parameters` by kind, or, before these, `rope_theta` with `rope_scaling`, and
/// `rope_local_base_freq`.
fn ropes(config: ConfigReader<'_>, head_dim: usize) -> Result<[RopeConfig; 2]> {
    let parameters = config.nested("rope_parameters");
    if let Some(parameters) = parameters
        && let Some(other) = parameters.set_fields().find(|name| !LAYER_TYPES.contains(name))
    {
        return Err(parameters.wrong(
            other,
            &format!("one description for each of {LAYER_TYPES:?}"),
            &"another",
        ));
    }
    let of = |kind| parameters.and_then(|parameters| parameters.nested(kind));
    let full = RopeFields { theta: ("rope_theta", 1_000_000.0), ..RopeFields::new(head_dim) };
    let sliding = RopeFields { theta: ("rope_local_base_freq", 10_000.0), ..RopeFields::new(head_dim) };
    let full_parameters = match config.nested("rope_scaling") {
        Some(_) if parameters.is_some() => {
            return Err(config.wrong("rope_scaling", "null beside rope_parameters", &"another description"));
        }
        Some(scaling) => Some(scaling),
        None => of("full_attention"),
    };
    Ok([config.rope_from(full_parameters, full)?, config.rope_from(of(SLIDING), sliding)?])
}

/// Gemma 3 for text (Gemma Team 2025): norms by `1 + weight` before and after each half of a block, norms of queries and keys, five of
/// six blocks with a window and a rotation of their own, embeddings scaled by the root of their length, GELU.
///
/// Reads the tensors of a `Gemma3ForCausalLM`; `raw` is the configuration's JSON, kept for writing it back.
pub fn load_gemma3(weights: &Weights<'_>, config: &Gemma3Config, raw: Value) -> Decoder {
    let Gemma3Config { shape, full_rope, sliding_rope, .. } = config;
    let norm = NormConfig::rms_offset(shape.rms_norm_eps);
    let block = |weights: &Weights<'_>, index| load_block(weights, index, config);
    Decoder {
        embed_scale: Some((shape.hidden_size as f64).sqrt()),
        ..shape.load(weights, &[full_rope, sliding_rope], norm, raw, block)
    }
}

fn load_block(weights: &Weights<'_>, index: usize, config: &Gemma3Config) -> DecoderBlock {
    let shape = &config.shape;
    let rms = NormConfig::rms_offset(shape.rms_norm_eps);
    let norm = |name| Norm::load(&weights.at(name), shape.hidden_size, rms);
    let sliding = config.sliding[index];
    let attention = AttentionConfig {
        qkv_bias: config.attention_bias,
        output_bias: config.attention_bias,
        norms: Some(rms),
        scale: config.query_pre_attn_scalar.powf(-0.5),
        window: sliding.then_some(config.sliding_window),
        rope: Some(usize::from(sliding)),
        ..shape.attention()
    };
    let mlp = MlpConfig { activation: Activation::GeluTanh, ..shape.mlp() };
    DecoderBlock {
        before_attention: norm("input_layernorm"),
        attention: Attention::load(&weights.at("self_attn"), index, attention),
        after_attention: Some(norm("post_attention_layernorm")),
        before_mlp: norm("pre_feedforward_layernorm"),
        mlp: FeedForward::Dense(Mlp::load(&weights.at("mlp"), mlp)),
        after_mlp: Some(norm("post_feedforward_layernorm")),
    }
}
