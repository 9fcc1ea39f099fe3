use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward};
use super::shape::{DecoderShape, ShapeDefaults};
use crate::Result;
use crate::nn::{AttentionConfig, Linear, MixtureOfExperts, Mlp, MlpConfig, RopeConfig, Weights};

/// What a `config.json` of `Qwen3MoeForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen3MoeConfig {
    /// The sizes; `intermediate_size` is that of the blocks without experts.
    pub shape: DecoderShape,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Whether attention's projections have biases; default false.
    pub attention_bias: bool,
    /// How many keys a query sees in every block; default all.
    pub sliding_window: Option<usize>,
    /// Experts in a block; default 128.
    pub num_experts: usize,
    /// Experts that transform a token; default 8.
    pub num_experts_per_tok: usize,
    /// The width of one expert; default 768.
    pub moe_intermediate_size: usize,
    /// Whether the weights of a token's experts are divided by their sum; default false.
    pub norm_topk_prob: bool,
    /// Which blocks have experts; default all.
    pub sparse: Vec<bool>,
}

impl Qwen3MoeConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("hidden_act", &["silu", "swish"])?;
        config.unsupported("layer_types")?;
        let defaults = ShapeDefaults {
            head_dim: None,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 32_768,
            tie_word_embeddings: false,
        };
        let shape = DecoderShape::read(config, defaults)?;
        let slides = config.flag_or("use_sliding_window", false)?;
        // Transformers 5 reads either name and writes the second for some models.
        let name = if config.optional("num_experts").is_some() { "num_experts" } else { "num_local_experts" };
        let num_experts = config.size_or(name, 128)?;
        Ok(Self {
            shape,
            rope: config.rope(shape.head_dim)?,
            attention_bias: config.flag_or("attention_bias", false)?,
            sliding_window: config.window_or("sliding_window", Some(4096))?.filter(|_| slides),
            num_experts,
            num_experts_per_tok: config.at_most("num_experts_per_tok", 8, num_experts)?,
            moe_intermediate_size: config.size_or("moe_intermediate_size", 768)?,
            norm_topk_prob: config.flag_or("norm_topk_prob", false)?,
            sparse: sparse(config, shape.num_hidden_layers)?,
        })
    }
}

/// Every `decoder_sparse_step`th block has experts, but for `mlp_only_layers`.
fn sparse(config: ConfigReader<'_>, layers: usize) -> Result<Vec<bool>> {
    let step = config.size_or("decoder_sparse_step", 1)?;
    let dense: Vec<usize> = match config.optional("mlp_only_layers") {
        None => Vec::new(),
        Some(value) => {
            let indices = value.as_array().map(|list| list.iter().map(Value::as_u64));
            let indices = indices.and_then(|list| list.collect::<Option<Vec<_>>>());
            let expected = "a list of blocks' indices";
            let indices = indices.ok_or_else(|| config.wrong("mlp_only_layers", expected, value))?;
            indices.into_iter().map(|index| index as usize).collect()
        }
    };
    Ok((0..layers).map(|index| (index + 1) % step == 0 && !dense.contains(&index)).collect())
}

/// Qwen 3 with experts (Yang et al. 2025): attention as in Qwen 3, and in most blocks many small feed-forward networks of which each
/// token takes a few.
///
/// Reads the tensors of a `Qwen3MoeForCausalLM`, which names each expert's by itself; `raw` is the configuration's JSON, kept for
/// writing it back.
pub fn load_qwen3_moe(weights: &Weights<'_>, config: &Qwen3MoeConfig, raw: Value) -> Decoder {
    let block = |weights: &Weights<'_>, index| load_block(weights, index, config);
    config.shape.load(weights, &[&config.rope], config.shape.norm(), raw, block)
}

fn load_block(weights: &Weights<'_>, index: usize, config: &Qwen3MoeConfig) -> DecoderBlock {
    let shape = &config.shape;
    let attention = AttentionConfig {
        qkv_bias: config.attention_bias,
        output_bias: config.attention_bias,
        norms: Some(shape.norm()),
        window: config.sliding_window,
        ..shape.attention()
    };
    let mlp = weights.at("mlp");
    let mlp = match config.sparse[index] {
        true => FeedForward::Experts(load_experts(&mlp, config)),
        false => FeedForward::Dense(Mlp::load(&mlp, shape.mlp())),
    };
    shape.block(weights, index, attention, mlp)
}

fn load_experts(weights: &Weights<'_>, config: &Qwen3MoeConfig) -> MixtureOfExperts {
    let shape = &config.shape;
    let router = Linear::load(&weights.at("gate"), shape.hidden_size, config.num_experts, false);
    let expert = MlpConfig { intermediate_size: config.moe_intermediate_size, ..shape.mlp() };
    let experts = weights.at("experts");
    let experts = (0..config.num_experts).map(|index| Mlp::load(&experts.at(index), expert)).collect();
    MixtureOfExperts::new(router, experts, config.num_experts_per_tok, config.norm_topk_prob)
}
