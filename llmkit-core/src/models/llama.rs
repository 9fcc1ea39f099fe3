use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward, Head};
use crate::Result;
use crate::nn::{
    Activation, Attention, AttentionConfig, Embedding, Mlp, MlpConfig, Norm, NormConfig, Rope, RopeConfig,
    Weights,
};

/// What a `config.json` of `LlamaForCausalLM` says.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// The length of the residual stream's vectors.
    pub hidden_size: usize,
    /// The width of the feed-forward network.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; default `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// The length of one head's vectors; default `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Added to the mean square before the root; default 1e-6.
    pub rms_norm_eps: f64,
    /// The longest sequence, in tokens; default 2048.
    pub max_position_embeddings: usize,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Whether the output head is the embedding's tensor; default false.
    pub tie_word_embeddings: bool,
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
        config.unsupported("quantization_config")?;
        let hidden_size = config.size("hidden_size")?;
        let num_attention_heads = config.size("num_attention_heads")?;
        let num_key_value_heads = config.size_or("num_key_value_heads", num_attention_heads)?;
        if num_attention_heads % num_key_value_heads != 0 {
            let expected = format!("a divisor of num_attention_heads ({num_attention_heads})");
            return Err(config.wrong("num_key_value_heads", &expected, &num_key_value_heads));
        }
        let head_dim = config.size_or("head_dim", (hidden_size / num_attention_heads).max(1))?;
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            hidden_size,
            intermediate_size: config.size("intermediate_size")?,
            num_hidden_layers: config.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: config.number_or("rms_norm_eps", 1e-6)?,
            max_position_embeddings: config.size_or("max_position_embeddings", 2048)?,
            rope: config.rope(head_dim)?,
            tie_word_embeddings: config.flag_or("tie_word_embeddings", false)?,
            attention_bias: config.flag_or("attention_bias", false)?,
            mlp_bias: config.flag_or("mlp_bias", false)?,
        })
    }
}

/// Llama (Touvron et al. 2023; Grattafiori et al. 2024), and what shares its shape: SmolLM, TinyLlama.
///
/// Reads the tensors of a `LlamaForCausalLM`; `raw` is the configuration's JSON, kept for writing it back.
pub fn load_llama(weights: &Weights<'_>, config: &LlamaConfig, raw: Value) -> Decoder {
    let model = weights.at("model");
    let embed_tokens = Embedding::load(&model.at("embed_tokens"), config.vocab_size, config.hidden_size);
    let blocks = (0..config.num_hidden_layers)
        .map(|index| load_block(&model.at("layers").at(index), index, config))
        .collect();
    Decoder {
        blocks,
        norm: Norm::load(&model.at("norm"), config.hidden_size, NormConfig::rms(config.rms_norm_eps)),
        head: Head::load(weights, &embed_tokens, config.tie_word_embeddings),
        embed_tokens,
        embed_scale: None,
        ropes: vec![Rope::new(&config.rope)],
        max_positions: config.rope.reach(config.max_position_embeddings),
        config: raw,
    }
}

fn load_block(weights: &Weights<'_>, index: usize, config: &LlamaConfig) -> DecoderBlock {
    // Older checkpoints store what can be derived.
    weights.at("self_attn").ignore("rotary_emb.inv_freq");
    let LlamaConfig { hidden_size, num_attention_heads, num_key_value_heads, head_dim, .. } = *config;
    let norm = |name| Norm::load(&weights.at(name), hidden_size, NormConfig::rms(config.rms_norm_eps));
    let attention = AttentionConfig {
        qkv_bias: config.attention_bias,
        output_bias: config.attention_bias,
        ..AttentionConfig::new(hidden_size, num_attention_heads, num_key_value_heads, head_dim)
    };
    let mlp = MlpConfig {
        hidden_size,
        intermediate_size: config.intermediate_size,
        activation: Activation::Silu,
        bias: config.mlp_bias,
        fused: false,
    };
    DecoderBlock {
        before_attention: norm("input_layernorm"),
        attention: Attention::load(&weights.at("self_attn"), index, attention),
        after_attention: None,
        before_mlp: norm("post_attention_layernorm"),
        mlp: FeedForward::Dense(Mlp::load(&weights.at("mlp"), mlp)),
        after_mlp: None,
    }
}
