use serde_json::Value;

use super::ConfigReader;
use super::decoder::{Decoder, DecoderBlock, FeedForward, Head};
use crate::Result;
use crate::nn::{
    Activation, Attention, AttentionConfig, Embedding, MlpConfig, Norm, NormConfig, Rope, RopeConfig, Weights,
};

/// The sizes that the `config.json` of every decoder-only model gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoderShape {
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
    /// The length of one head's vectors.
    pub head_dim: usize,
    /// Added to the mean square before the root.
    pub rms_norm_eps: f64,
    /// The longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding's tensor.
    pub tie_word_embeddings: bool,
}

/// What an architecture takes where its `config.json` is silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShapeDefaults {
    /// `hidden_size / num_attention_heads` if there is none.
    pub(super) head_dim: Option<usize>,
    pub(super) rms_norm_eps: f64,
    pub(super) max_position_embeddings: usize,
    pub(super) tie_word_embeddings: bool,
}

impl DecoderShape {
    /// Reads the sizes, and refuses what no architecture supports.
    pub(super) fn read(config: ConfigReader<'_>, defaults: ShapeDefaults) -> Result<Self> {
        config.unsupported("quantization_config")?;
        let hidden_size = config.size("hidden_size")?;
        let num_attention_heads = config.size("num_attention_heads")?;
        let num_key_value_heads = config.size_or("num_key_value_heads", num_attention_heads)?;
        if num_attention_heads % num_key_value_heads != 0 {
            let expected = format!("a divisor of num_attention_heads ({num_attention_heads})");
            return Err(config.wrong("num_key_value_heads", &expected, &num_key_value_heads));
        }
        let head_dim = defaults.head_dim.unwrap_or((hidden_size / num_attention_heads).max(1));
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            hidden_size,
            intermediate_size: config.size("intermediate_size")?,
            num_hidden_layers: config.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim: config.size_or("head_dim", head_dim)?,
            rms_norm_eps: config.number_or("rms_norm_eps", defaults.rms_norm_eps)?,
            max_position_embeddings: config
                .size_or("max_position_embeddings", defaults.max_position_embeddings)?,
            tie_word_embeddings: config.flag_or("tie_word_embeddings", defaults.tie_word_embeddings)?,
        })
    }

    /// Plain attention over these heads.
    pub(super) fn attention(&self) -> AttentionConfig {
        AttentionConfig::new(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )
    }

    /// A plain SiLU-gated network of these widths.
    pub(super) fn mlp(&self) -> MlpConfig {
        MlpConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            activation: Activation::Silu,
            bias: false,
            fused: false,
        }
    }

    /// The norms of a block and of the whole, by their root mean square.
    pub(super) fn norm(&self) -> NormConfig {
        NormConfig::rms(self.rms_norm_eps)
    }

    /// Reads block `layer` with Llama's names and a normalisation before each of its halves, the second of which is `mlp`.
    pub(super) fn block(
        &self,
        weights: &Weights<'_>,
        layer: usize,
        attention: AttentionConfig,
        mlp: FeedForward,
    ) -> DecoderBlock {
        let norm = |name| Norm::load(&weights.at(name), self.hidden_size, self.norm());
        DecoderBlock {
            before_attention: norm("input_layernorm"),
            attention: Attention::load(&weights.at("self_attn"), layer, attention),
            after_attention: None,
            before_mlp: norm("post_attention_layernorm"),
            mlp,
            after_mlp: None,
        }
    }

    /// Reads a decoder with Llama's names outside of its blocks; `block` reads one at `model.layers.{index}`.
    pub(super) fn load(
        &self,
        weights: &Weights<'_>,
        ropes: &[&RopeConfig],
        norm: NormConfig,
        raw: Value,
        block: impl Fn(&Weights<'_>, usize) -> DecoderBlock,
    ) -> Decoder {
        let model = weights.at("model");
        let embed_tokens = Embedding::load(&model.at("embed_tokens"), self.vocab_size, self.hidden_size);
        let blocks =
            (0..self.num_hidden_layers).map(|index| block(&model.at("layers").at(index), index)).collect();
        Decoder {
            blocks,
            norm: Norm::load(&model.at("norm"), self.hidden_size, norm),
            head: Head::load(weights, &embed_tokens, self.tie_word_embeddings),
            embed_tokens,
            embed_scale: None,
            ropes: ropes.iter().map(|rope| Rope::new(rope)).collect(),
            max_positions: ropes.iter().fold(self.max_position_embeddings, |reach, rope| rope.reach(reach)),
            config: raw,
        }
    }
}

/// The window of each of `layers` blocks, as Qwen's configurations say it: `layer_types`, or, before these, a window from block
/// `max_window_layers` on; none at all where `use_sliding_window` is false.
pub(super) fn qwen_windows(config: ConfigReader<'_>, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match config.flag_or("use_sliding_window", false)? {
        true => Some(config.size_or("sliding_window", 4096)?),
        false => None,
    };
    match config.texts("layer_types", layers, &LAYER_TYPES)? {
        Some(kinds) => kinds
            .into_iter()
            .map(|kind| match (kind == SLIDING, window) {
                (false, _) => Ok(None),
                (true, Some(window)) => Ok(Some(window)),
                (true, None) => {
                    Err(config.wrong("use_sliding_window", "true (for sliding layer_types)", &false))
                }
            })
            .collect(),
        None => {
            let first = match config.optional("max_window_layers").and_then(Value::as_u64) {
                Some(0) => 0,
                _ => config.size_or("max_window_layers", 28)?,
            };
            Ok((0..layers).map(|index| window.filter(|_| index >= first)).collect())
        }
    }
}

/// A block whose attention sees only a window.
pub(super) const SLIDING: &str = "sliding_attention";

/// What `layer_types` may name.
pub(super) const LAYER_TYPES: [&str; 2] = ["full_attention", SLIDING];
