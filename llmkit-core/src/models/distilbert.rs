use serde_json::Value;

use super::ConfigReader;
use super::bert::{Bert, BertBlock};
use super::encoder_config::{activation, divides};
use crate::Result;
use crate::nn::{Activation, Embedding, Linear, Norm, NormConfig, NormKind, Weights};

/// How DistilBERT normalises; its configuration does not say it.
pub(super) const DISTILBERT_NORM: NormConfig = NormConfig { kind: NormKind::Layer, eps: 1e-12, bias: true };

/// What a `config.json` of DistilBERT says.
#[derive(Debug, Clone, PartialEq)]
pub struct DistilBertConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// The length of each token's vector.
    pub dim: usize,
    /// The width of the feed-forward network.
    pub hidden_dim: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// The function of the feed-forward network; default GELU.
    pub activation: Activation,
    /// The longest sequence, in tokens; default 512.
    pub max_position_embeddings: usize,
}

impl DistilBertConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.unsupported("quantization_config")?;
        let (dim, n_heads) = (config.size("dim")?, config.size("n_heads")?);
        divides(config, "n_heads", n_heads, dim)?;
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            dim,
            hidden_dim: config.size("hidden_dim")?,
            n_layers: config.size("n_layers")?,
            n_heads,
            activation: activation(config, "activation", "gelu")?,
            max_position_embeddings: config.size_or("max_position_embeddings", 512)?,
        })
    }
}

/// Reads the tensors of a `DistilBertModel` (Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>) at `weights`: BERT without token types
/// and pooler, under other names. `raw` is the configuration's JSON, kept for writing it back.
pub fn load_distilbert(weights: &Weights<'_>, config: &DistilBertConfig, raw: Value) -> Bert {
    let DistilBertConfig { dim, hidden_dim, .. } = *config;
    let embeddings = weights.at("embeddings");
    embeddings.ignore("position_ids");
    let norm = |at: &Weights<'_>, name| Norm::load(&at.at(name), dim, DISTILBERT_NORM);
    let blocks = (0..config.n_layers)
        .map(|index| {
            let layer = weights.at("transformer").at("layer").at(index);
            let (attention, ffn) = (layer.at("attention"), layer.at("ffn"));
            let read = |name| Linear::load(&attention.at(name), dim, dim, true);
            BertBlock {
                query: read("q_lin"),
                key: read("k_lin"),
                value: read("v_lin"),
                attention_output: read("out_lin"),
                attention_norm: norm(&layer, "sa_layer_norm"),
                intermediate: Linear::load(&ffn.at("lin1"), dim, hidden_dim, true),
                output: Linear::load(&ffn.at("lin2"), hidden_dim, dim, true),
                output_norm: norm(&layer, "output_layer_norm"),
            }
        })
        .collect();
    let table = |name, rows| Embedding::load(&embeddings.at(name), rows, dim);
    Bert {
        word_embeddings: table("word_embeddings", config.vocab_size),
        position_embeddings: table("position_embeddings", config.max_position_embeddings),
        token_type_embeddings: None,
        embeddings_norm: norm(&embeddings, "LayerNorm"),
        blocks,
        pooler: None,
        num_heads: config.n_heads,
        activation: config.activation,
        padding_idx: None,
        config: raw,
    }
}
