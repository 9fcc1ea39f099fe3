use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use super::encoder::{attend, first};
use super::encoder_config::{activation, divides};
use super::{ConfigReader, Encoder, Extent, Model, Task};
use crate::Result;
use crate::adapter::{Adapter, Site, Sublayer};
use crate::nn::{Activation, Embedding, KeyValue, Layer, LayerMut, Linear, Norm, NormConfig, Weights};

/// What a `config.json` of BERT, RoBERTa, XLM-RoBERTa or CamemBERT says.
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// The length of each token's vector.
    pub hidden_size: usize,
    /// The width of the feed-forward network.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The function of the feed-forward network; default GELU.
    pub hidden_act: Activation,
    /// Rows of the table of positions; default 512.
    pub max_position_embeddings: usize,
    /// Rows of the table of token types; default 2.
    pub type_vocab_size: usize,
    /// Added to the variance before the root; default 1e-12.
    pub layer_norm_eps: f64,
    /// RoBERTa's positions start behind this token's id; BERT's, where it is nothing, at 0.
    pub padding_idx: Option<usize>,
}

impl BertConfig {
    /// Reads a `config.json` of BERT.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>) -> Result<Self> {
        config.only("position_embedding_type", &["absolute"])?;
        config.unsupported("quantization_config")?;
        for field in ["is_decoder", "add_cross_attention"] {
            if config.flag_or(field, false)? {
                return Err(config.wrong(field, "false (decoders of this kind are not supported)", &true));
            }
        }
        let hidden_size = config.size("hidden_size")?;
        let num_attention_heads = config.size("num_attention_heads")?;
        divides(config, "num_attention_heads", num_attention_heads, hidden_size)?;
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            hidden_size,
            intermediate_size: config.size("intermediate_size")?,
            num_hidden_layers: config.size("num_hidden_layers")?,
            num_attention_heads,
            hidden_act: activation(config, "hidden_act", "gelu")?,
            max_position_embeddings: config.size_or("max_position_embeddings", 512)?,
            type_vocab_size: config.size_or("type_vocab_size", 2)?,
            layer_norm_eps: config.number_or("layer_norm_eps", 1e-12)?,
            padding_idx: None,
        })
    }

    /// Reads a `config.json` of RoBERTa, XLM-RoBERTa or CamemBERT, whose positions start behind `pad_token_id` (default 1).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_roberta(config: ConfigReader<'_>) -> Result<Self> {
        let padding_idx = config.number_or("pad_token_id", 1.0)?;
        let read = Self::read(config)?;
        let fits = padding_idx >= 0.0
            && padding_idx.fract() == 0.0
            && padding_idx + 1.0 < read.max_position_embeddings as f64;
        if !fits {
            let expected = "the id of the padding token, below max_position_embeddings - 1";
            return Err(config.wrong("pad_token_id", expected, &padding_idx));
        }
        Ok(Self { padding_idx: Some(padding_idx as usize), ..read })
    }
}

/// BERT (Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>) and what shares its shape, RoBERTa, XLM-RoBERTa, CamemBERT and DistilBERT:
/// embedded positions, and blocks that normalise after each sublayer.
#[derive(Debug, Clone)]
pub struct Bert {
    pub(super) word_embeddings: Embedding,
    pub(super) position_embeddings: Embedding,
    pub(super) token_type_embeddings: Option<Embedding>,
    pub(super) embeddings_norm: Norm,
    pub(super) blocks: Vec<BertBlock>,
    pub(super) pooler: Option<Linear>,
    pub(super) num_heads: usize,
    pub(super) activation: Activation,
    pub(super) padding_idx: Option<usize>,
    pub(super) config: Value,
}

/// The layers of one block, whatever their names.
#[derive(Debug, Clone)]
pub(super) struct BertBlock {
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: Norm,
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: Norm,
}

impl Bert {
    /// Reads the tensors of a `BertModel` or `RobertaModel` at `weights`; `raw` is the configuration's JSON, kept for writing it back.
    pub fn load(weights: &Weights<'_>, config: &BertConfig, raw: Value) -> Self {
        let hidden = config.hidden_size;
        let embeddings = weights.at("embeddings");
        // Older checkpoints store what can be derived.
        embeddings.ignore("position_ids");
        embeddings.ignore("token_type_ids");
        let table = |name, rows| Embedding::load(&embeddings.at(name), rows, hidden);
        let norm = NormConfig::layer(config.layer_norm_eps);
        let blocks = (0..config.num_hidden_layers)
            .map(|index| {
                let layer = weights.at("encoder").at("layer").at(index);
                let (attention, output) = (layer.at("attention"), layer.at("output"));
                let read = |name| Linear::load(&attention.at("self").at(name), hidden, hidden, true);
                let attention_output = attention.at("output");
                let wide = config.intermediate_size;
                BertBlock {
                    query: read("query"),
                    key: read("key"),
                    value: read("value"),
                    attention_output: Linear::load(&attention_output.at("dense"), hidden, hidden, true),
                    attention_norm: Norm::load(&attention_output.at("LayerNorm"), hidden, norm),
                    intermediate: Linear::load(&layer.at("intermediate").at("dense"), hidden, wide, true),
                    output: Linear::load(&output.at("dense"), wide, hidden, true),
                    output_norm: Norm::load(&output.at("LayerNorm"), hidden, norm),
                }
            })
            .collect();
        let pooler = weights.at("pooler").at("dense");
        Self {
            word_embeddings: table("word_embeddings", config.vocab_size),
            position_embeddings: table("position_embeddings", config.max_position_embeddings),
            token_type_embeddings: Some(table("token_type_embeddings", config.type_vocab_size)),
            embeddings_norm: Norm::load(&embeddings.at("LayerNorm"), hidden, norm),
            blocks,
            pooler: pooler.contains("weight").then(|| Linear::load(&pooler, hidden, hidden, true)),
            num_heads: config.num_attention_heads,
            activation: config.hidden_act,
            padding_idx: config.padding_idx,
            config: raw,
        }
    }

    /// The rows of the position table for these tokens, which stand behind `prefix` others, `[batch or 1, seq]`.
    fn position_ids(&self, ids: Tensor<2, Int>, seq: usize, prefix: usize) -> Tensor<2, Int> {
        let device = ids.device();
        let [_, given] = ids.dims();
        match self.padding_idx {
            // Tokens are counted where they are not padding, and padding stands at its own id's row.
            Some(padding) if given == seq => {
                let real = ids.not_equal_elem(padding as i64).int();
                (real.clone().cumsum(1) + prefix as i64) * real + padding as i64
            }
            // With a prompt in front the embedding no longer sees which tokens are padding; attention does.
            start => {
                let start = (start.map_or(0, |padding| padding + 1) + prefix) as i64;
                Tensor::<1, Int>::arange(start..start + seq as i64, &device).unsqueeze()
            }
        }
    }

    fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) {
        edit(LayerMut::Embedding(&mut self.word_embeddings));
        edit(LayerMut::Embedding(&mut self.position_embeddings));
        if let Some(types) = &mut self.token_type_embeddings {
            edit(LayerMut::Embedding(types));
        }
        edit(LayerMut::Norm(&mut self.embeddings_norm));
        for block in &mut self.blocks {
            let BertBlock { query, key, value, attention_output, attention_norm, .. } = block;
            for linear in [query, key, value, attention_output] {
                edit(LayerMut::Linear(linear));
            }
            edit(LayerMut::Norm(attention_norm));
            edit(LayerMut::Linear(&mut block.intermediate));
            edit(LayerMut::Linear(&mut block.output));
            edit(LayerMut::Norm(&mut block.output_norm));
        }
        if let Some(pooler) = &mut self.pooler {
            edit(LayerMut::Linear(pooler));
        }
    }
}

impl Model for Bert {
    fn config(&self) -> &Value {
        &self.config
    }

    fn task(&self) -> Task {
        Task::FeatureExtraction
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        see(Layer::Embedding(&self.word_embeddings));
        see(Layer::Embedding(&self.position_embeddings));
        if let Some(types) = &self.token_type_embeddings {
            see(Layer::Embedding(types));
        }
        see(Layer::Norm(&self.embeddings_norm));
        for block in &self.blocks {
            for linear in [&block.query, &block.key, &block.value, &block.attention_output] {
                see(Layer::Linear(linear));
            }
            see(Layer::Norm(&block.attention_norm));
            see(Layer::Linear(&block.intermediate));
            see(Layer::Linear(&block.output));
            see(Layer::Norm(&block.output_norm));
        }
        if let Some(pooler) = &self.pooler {
            see(Layer::Linear(pooler));
        }
    }

    fn device(&self) -> Device {
        self.word_embeddings().weight.device()
    }

    fn head_path(&self) -> Option<&str> {
        None
    }
}

impl Encoder for Bert {
    fn hidden_size(&self) -> usize {
        self.word_embeddings.weight.dims()[1]
    }

    fn max_positions(&self) -> usize {
        let [rows, _] = self.position_embeddings.weight.dims();
        rows - self.padding_idx.map_or(0, |padding| padding + 1)
    }

    fn num_token_types(&self) -> usize {
        self.token_type_embeddings.as_ref().map_or(0, |types| types.weight.dims()[0])
    }

    fn word_embeddings(&self) -> &Embedding {
        &self.word_embeddings
    }

    fn extent(&self, lengths: &[usize], _seq: usize) -> Extent {
        Extent { lengths: lengths.into(), ropes: Vec::new() }
    }

    fn embed(
        &self,
        ids: Tensor<2, Int>,
        token_types: Option<Tensor<2, Int>>,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        let [batch, given] = ids.dims();
        let words = adapter.prompt(adapter.embed(&self.word_embeddings, ids.clone()));
        let [_, seq, _] = words.dims();
        let device = ids.device();
        let positions =
            adapter.embed(&self.position_embeddings, self.position_ids(ids, seq, adapter.prefix_len()));
        let types = self.token_type_embeddings.as_ref().map(|table| {
            let types = match token_types {
                None => Tensor::zeros([1, seq], &device),
                Some(types) if given == seq => types,
                Some(types) => Tensor::cat(vec![Tensor::zeros([batch, seq - given], &device), types], 1),
            };
            adapter.embed(table, types)
        });
        let embedded = match types {
            Some(types) => words + types + positions,
            None => words + positions,
        };
        adapter.norm(&self.embeddings_norm, embedded)
    }

    fn block(&self, index: usize, hidden: Tensor<3>, extent: &Extent, adapter: &dyn Adapter) -> Tensor<3> {
        let block = &self.blocks[index];
        let site = |sublayer| Site { layer: index, sublayer };
        let [batch, seq, width] = hidden.dims();
        let heads = [batch, seq, self.num_heads, width / self.num_heads];

        let query = adapter.linear(&block.query, hidden.clone()).reshape(heads);
        let key = adapter.linear(&block.key, hidden.clone()).reshape(heads);
        let value = adapter.linear(&block.value, hidden.clone()).reshape(heads);
        let attended = attend(index, query, KeyValue { key, value }, extent, None, adapter);
        let attended = adapter.linear(&block.attention_output, attended.reshape([batch, seq, width]));
        let norm = Some(&block.attention_norm);
        let hidden = adapter.join(site(Sublayer::Attention), attended, hidden, norm);

        let transformed = self.activation.apply(adapter.linear(&block.intermediate, hidden.clone()));
        let transformed = adapter.linear(&block.output, transformed);
        adapter.join(site(Sublayer::Mlp), transformed, hidden, Some(&block.output_norm))
    }

    fn pooled(&self, hidden: Tensor<3>, adapter: &dyn Adapter) -> Option<Tensor<2>> {
        let pooler = self.pooler.as_ref()?;
        Some(adapter.linear(pooler, first(hidden)).tanh().squeeze_dim(1))
    }

    fn without_pooler(&self) -> Arc<dyn Encoder> {
        Arc::new(Self { pooler: None, ..self.clone() })
    }

    fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<dyn Encoder> {
        let mut model = self.clone();
        model.visit_mut(edit);
        Arc::new(model)
    }
}
