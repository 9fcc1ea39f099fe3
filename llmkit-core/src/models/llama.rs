use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use super::{CausalLm, ConfigReader, Positions};
use crate::Result;
use crate::adapter::{Adapter, Site, Sublayer};
use crate::nn::{
    Attention, AttentionConfig, Embedding, Layer, LayerCache, LayerMut, Linear, Mlp, RmsNorm, Rope,
    RopeConfig, Weights,
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

/// Llama (Touvron et al. 2023; Grattafiori et al. 2024), and what shares its shape: SmolLM, TinyLlama, Mistral without sliding window.
#[derive(Debug, Clone)]
pub struct Llama {
    embed_tokens: Embedding,
    layers: Vec<LlamaBlock>,
    norm: RmsNorm,
    lm_head: Linear,
    tied: bool,
    rope: Rope,
    max_positions: usize,
    config: Value,
}

#[derive(Debug, Clone)]
struct LlamaBlock {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Llama {
    /// Reads the tensors of a `LlamaForCausalLM`; `raw` is the configuration's JSON, kept for writing it back.
    pub fn load(weights: &Weights<'_>, config: &LlamaConfig, raw: Value) -> Self {
        let model = weights.at("model");
        let embed_tokens = Embedding::load(&model.at("embed_tokens"), config.vocab_size, config.hidden_size);
        let layers = (0..config.num_hidden_layers)
            .map(|index| LlamaBlock::load(&model.at("layers").at(index), index, config))
            .collect();
        let lm_head = if config.tie_word_embeddings {
            // Some writers store the tied head a second time.
            weights.ignore("lm_head.weight");
            embed_tokens.tied_head("lm_head")
        } else {
            Linear::load(&weights.at("lm_head"), config.hidden_size, config.vocab_size, false)
        };
        Self {
            embed_tokens,
            layers,
            norm: RmsNorm::load(&model.at("norm"), config.hidden_size, config.rms_norm_eps),
            lm_head,
            tied: config.tie_word_embeddings,
            rope: Rope::new(&config.rope),
            max_positions: config.max_position_embeddings,
            config: raw,
        }
    }

    fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>)) {
        edit(LayerMut::Embedding(&mut self.embed_tokens));
        for block in &mut self.layers {
            let LlamaBlock { input_layernorm, self_attn, post_attention_layernorm, mlp } = block;
            let Attention { q_proj, k_proj, v_proj, o_proj, .. } = self_attn;
            let Mlp { gate_proj, up_proj, down_proj } = mlp;
            edit(LayerMut::Norm(input_layernorm));
            for linear in [q_proj, k_proj, v_proj, o_proj] {
                edit(LayerMut::Linear(linear));
            }
            edit(LayerMut::Norm(post_attention_layernorm));
            for linear in [gate_proj, up_proj, down_proj] {
                edit(LayerMut::Linear(linear));
            }
        }
        edit(LayerMut::Norm(&mut self.norm));
        edit(LayerMut::Linear(&mut self.lm_head));
    }
}

impl LlamaBlock {
    fn load(weights: &Weights<'_>, index: usize, config: &LlamaConfig) -> Self {
        // Older checkpoints store what can be derived.
        weights.at("self_attn").ignore("rotary_emb.inv_freq");
        let norm = |name| RmsNorm::load(&weights.at(name), config.hidden_size, config.rms_norm_eps);
        let attention = AttentionConfig {
            hidden_size: config.hidden_size,
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            bias: config.attention_bias,
        };
        Self {
            input_layernorm: norm("input_layernorm"),
            self_attn: Attention::load(&weights.at("self_attn"), index, attention),
            post_attention_layernorm: norm("post_attention_layernorm"),
            mlp: Mlp::load(&weights.at("mlp"), config.hidden_size, config.intermediate_size, config.mlp_bias),
        }
    }
}

impl CausalLm for Llama {
    fn config(&self) -> &Value {
        &self.config
    }

    fn num_blocks(&self) -> usize {
        self.layers.len()
    }

    fn vocab_size(&self) -> usize {
        self.lm_head.d_output()
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn device(&self) -> Device {
        self.embed_tokens.weight.device()
    }

    fn positions(&self, start: usize, len: usize) -> Positions {
        Positions { rope: self.rope.table(start, len, &self.device()) }
    }

    fn embed(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        adapter.prompt(adapter.embed(&self.embed_tokens, ids))
    }

    fn block(
        &self,
        index: usize,
        hidden: Tensor<3>,
        positions: &Positions,
        cache: Option<&mut LayerCache>,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        let block = &self.layers[index];
        let site = |sublayer| Site { layer: index, sublayer };

        let input = adapter.norm(&block.input_layernorm, hidden.clone());
        let attended = block.self_attn.forward(input, &positions.rope, cache, adapter);
        let hidden = adapter.after_sublayer(site(Sublayer::Attention), attended, &hidden) + hidden;

        let input = adapter.norm(&block.post_attention_layernorm, hidden.clone());
        let transformed = block.mlp.forward(input, adapter);
        adapter.after_sublayer(site(Sublayer::Mlp), transformed, &hidden) + hidden
    }

    fn head(&self, hidden: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        adapter.linear(&self.lm_head, adapter.norm(&self.norm, hidden))
    }

    fn is_tied(&self) -> bool {
        self.tied
    }

    fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        see(Layer::Embedding(&self.embed_tokens));
        for LlamaBlock { input_layernorm, self_attn, post_attention_layernorm, mlp } in &self.layers {
            see(Layer::Norm(input_layernorm));
            for linear in [&self_attn.q_proj, &self_attn.k_proj, &self_attn.v_proj, &self_attn.o_proj] {
                see(Layer::Linear(linear));
            }
            see(Layer::Norm(post_attention_layernorm));
            for linear in [&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj] {
                see(Layer::Linear(linear));
            }
        }
        see(Layer::Norm(&self.norm));
        see(Layer::Linear(&self.lm_head));
    }

    fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<dyn CausalLm> {
        let mut model = self.clone();
        let mut embedding_or_head_changed = false;
        model.visit_mut(&mut |layer| {
            let shared = match &layer {
                LayerMut::Embedding(_) => true,
                LayerMut::Linear(linear) => linear.path() == "lm_head",
                LayerMut::Norm(_) => false,
            };
            embedding_or_head_changed |= edit(layer) && shared;
        });
        if model.tied && embedding_or_head_changed {
            model.tied = false;
            model.config["tie_word_embeddings"] = Value::Bool(false);
        }
        Arc::new(model)
    }
}
