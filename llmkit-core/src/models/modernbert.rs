use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use serde_json::{Value, json};

use super::encoder::attend;
use super::encoder_config::{activation, divides};
use super::{ConfigReader, Encoder, Extent, Model, Task};
use crate::Result;
use crate::adapter::{Adapter, Site, Sublayer};
use crate::nn::{
    Activation, Embedding, KeyValue, Layer, LayerMut, Linear, Norm, NormConfig, NormKind, Rope, RopeConfig,
    Weights,
};

/// What a `config.json` of ModernBERT says.
#[derive(Debug, Clone, PartialEq)]
pub struct ModernBertConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// The length of each token's vector.
    pub hidden_size: usize,
    /// The width of the gated feed-forward network.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The function of the gate; default GELU.
    pub hidden_activation: Activation,
    /// The longest sequence, in tokens; default 8192.
    pub max_position_embeddings: usize,
    /// Added to the variance before the root; default 1e-5.
    pub norm_eps: f64,
    /// Whether normalisations have biases; default false.
    pub norm_bias: bool,
    /// Whether attention's projections have biases; default false.
    pub attention_bias: bool,
    /// Whether the feed-forward projections have biases; default false.
    pub mlp_bias: bool,
    /// How far tokens see to either side in local blocks: half of `local_attention` (default 128).
    pub window: usize,
    /// For each block, whether its attention is local; by default two of three are, beginning with a global one.
    pub local: Vec<bool>,
    /// Rotary positions of global blocks; default theta 160,000.
    pub global_rope: RopeConfig,
    /// Rotary positions of local blocks; default theta 10,000.
    pub local_rope: RopeConfig,
    /// Whether a masked-language head's last layer has a bias; default true.
    pub decoder_bias: bool,
    /// Whether the dense layer of heads has a bias; default false.
    pub classifier_bias: bool,
    /// The function of the dense layer of heads; default GELU.
    pub classifier_activation: Activation,
    /// Whether a sequence classifier reads the mean of all tokens instead of the first; default false.
    pub classifier_mean: bool,
}

impl ModernBertConfig {
    /// Reads a `config.json`, whether transformers 5 wrote it (`layer_types`, `rope_parameters`) or 4 (`global_attn_every_n_layers`,
    /// `global_rope_theta`, `local_rope_theta`). `raw` is the JSON behind `config`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field that is missing, impossible or asks for what isn't supported.
    pub fn read(config: ConfigReader<'_>, raw: &Value) -> Result<Self> {
        config.unsupported("quantization_config")?;
        config.unsupported("rope_scaling")?;
        config.only("classifier_pooling", &["cls", "mean"])?;
        let hidden_size = config.size("hidden_size")?;
        let num_attention_heads = config.size("num_attention_heads")?;
        divides(config, "num_attention_heads", num_attention_heads, hidden_size)?;
        let head_dim = hidden_size / num_attention_heads;
        let num_hidden_layers = config.size("num_hidden_layers")?;
        let window = config.size_or("local_attention", 128)? / 2;
        if window == 0 {
            return Err(config.wrong("local_attention", "at least 2", &1));
        }
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            hidden_size,
            intermediate_size: config.size("intermediate_size")?,
            num_attention_heads,
            hidden_activation: activation(config, "hidden_activation", "gelu")?,
            max_position_embeddings: config.size_or("max_position_embeddings", 8192)?,
            norm_eps: config.number_or("norm_eps", 1e-5)?,
            norm_bias: config.flag_or("norm_bias", false)?,
            attention_bias: config.flag_or("attention_bias", false)?,
            mlp_bias: config.flag_or("mlp_bias", false)?,
            window,
            local: local_blocks(config, raw, num_hidden_layers)?,
            global_rope: rope(config, raw, "full_attention", ("global_rope_theta", 160_000.0), head_dim)?,
            local_rope: rope(config, raw, "sliding_attention", ("local_rope_theta", 10_000.0), head_dim)?,
            decoder_bias: config.flag_or("decoder_bias", true)?,
            classifier_bias: config.flag_or("classifier_bias", false)?,
            classifier_activation: activation(config, "classifier_activation", "gelu")?,
            classifier_mean: config.text_or("classifier_pooling", "cls")? == "mean",
        })
    }
}

fn local_blocks(config: ConfigReader<'_>, raw: &Value, num_hidden_layers: usize) -> Result<Vec<bool>> {
    let Some(types) = raw.get("layer_types").filter(|types| !types.is_null()) else {
        let every = config.size_or("global_attn_every_n_layers", 3)?;
        return Ok((0..num_hidden_layers).map(|index| index % every != 0).collect());
    };
    let kind = |value: &Value| match value.as_str() {
        Some("full_attention") => Some(false),
        Some("sliding_attention") => Some(true),
        _ => None,
    };
    let local = types.as_array().and_then(|types| types.iter().map(kind).collect::<Option<Vec<_>>>());
    match local {
        Some(local) if local.len() == num_hidden_layers => Ok(local),
        _ => {
            let expected = format!("{num_hidden_layers} times \"full_attention\" or \"sliding_attention\"");
            Err(config.wrong("layer_types", &expected, types))
        }
    }
}

fn rope(
    config: ConfigReader<'_>,
    raw: &Value,
    kind: &str,
    (older_field, default): (&str, f64),
    head_dim: usize,
) -> Result<RopeConfig> {
    if raw.get(older_field).is_some_and(Value::is_null) {
        return Err(config.wrong(older_field, "a number", &"null"));
    }
    let theta = config.number_or(older_field, default)?;
    let parameters = match raw.get("rope_parameters").and_then(|all| all.get(kind)) {
        Some(parameters) if !parameters.is_null() => parameters.clone(),
        _ => json!({}),
    };
    let fields = json!({ "rope_theta": theta, "rope_parameters": parameters });
    config.over(&fields).rope(head_dim)
}

/// ModernBERT (Warner et al. 2024, <https://arxiv.org/abs/2412.13663>): rotary positions, global and local attention, gated feed-forward
/// networks, and blocks that normalise before each sublayer.
#[derive(Debug, Clone)]
pub struct ModernBert {
    tok_embeddings: Embedding,
    embeddings_norm: Norm,
    blocks: Vec<ModernBertBlock>,
    final_norm: Norm,
    num_heads: usize,
    activation: Activation,
    window: usize,
    /// Of global blocks, then of local ones.
    ropes: [Rope; 2],
    max_positions: usize,
    config: Value,
}

#[derive(Debug, Clone)]
struct ModernBertBlock {
    /// The first block reads what the embeddings' norm wrote.
    attn_norm: Option<Norm>,
    /// `[3 * hidden, hidden]`
    wqkv: Linear,
    attention_wo: Linear,
    mlp_norm: Norm,
    /// `[2 * intermediate, hidden]`, what is activated first, then what it is multiplied by
    wi: Linear,
    mlp_wo: Linear,
    local: bool,
}

impl ModernBert {
    /// Reads the tensors of a `ModernBertModel` at `weights`; `raw` is the configuration's JSON, kept for writing it back.
    pub fn load(weights: &Weights<'_>, config: &ModernBertConfig, raw: Value) -> Self {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let norm_config = config.norm();
        let norm = |at: &Weights<'_>, name| Norm::load(&at.at(name), hidden, norm_config);
        let blocks = config.local.iter().enumerate().map(|(index, local)| {
            let layer = weights.at("layers").at(index);
            let (attn, mlp) = (layer.at("attn"), layer.at("mlp"));
            ModernBertBlock {
                attn_norm: (index > 0).then(|| norm(&layer, "attn_norm")),
                wqkv: Linear::load(&attn.at("Wqkv"), hidden, 3 * hidden, config.attention_bias),
                attention_wo: Linear::load(&attn.at("Wo"), hidden, hidden, config.attention_bias),
                mlp_norm: norm(&layer, "mlp_norm"),
                wi: Linear::load(&mlp.at("Wi"), hidden, 2 * wide, config.mlp_bias),
                mlp_wo: Linear::load(&mlp.at("Wo"), wide, hidden, config.mlp_bias),
                local: *local,
            }
        });
        let embeddings = weights.at("embeddings");
        Self {
            tok_embeddings: Embedding::load(&embeddings.at("tok_embeddings"), config.vocab_size, hidden),
            embeddings_norm: norm(&embeddings, "norm"),
            blocks: blocks.collect(),
            final_norm: norm(weights, "final_norm"),
            num_heads: config.num_attention_heads,
            activation: config.hidden_activation,
            window: config.window,
            ropes: [Rope::new(&config.global_rope), Rope::new(&config.local_rope)],
            max_positions: config.max_position_embeddings,
            config: raw,
        }
    }

    fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) {
        edit(LayerMut::Embedding(&mut self.tok_embeddings));
        edit(LayerMut::Norm(&mut self.embeddings_norm));
        for block in &mut self.blocks {
            if let Some(norm) = &mut block.attn_norm {
                edit(LayerMut::Norm(norm));
            }
            edit(LayerMut::Linear(&mut block.wqkv));
            edit(LayerMut::Linear(&mut block.attention_wo));
            edit(LayerMut::Norm(&mut block.mlp_norm));
            edit(LayerMut::Linear(&mut block.wi));
            edit(LayerMut::Linear(&mut block.mlp_wo));
        }
        edit(LayerMut::Norm(&mut self.final_norm));
    }
}

impl ModernBertConfig {
    /// How the model normalises.
    pub(super) fn norm(&self) -> NormConfig {
        NormConfig { kind: NormKind::Layer, eps: self.norm_eps, bias: self.norm_bias }
    }
}

impl Model for ModernBert {
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
        see(Layer::Embedding(&self.tok_embeddings));
        see(Layer::Norm(&self.embeddings_norm));
        for block in &self.blocks {
            if let Some(norm) = &block.attn_norm {
                see(Layer::Norm(norm));
            }
            see(Layer::Linear(&block.wqkv));
            see(Layer::Linear(&block.attention_wo));
            see(Layer::Norm(&block.mlp_norm));
            see(Layer::Linear(&block.wi));
            see(Layer::Linear(&block.mlp_wo));
        }
        see(Layer::Norm(&self.final_norm));
    }

    fn device(&self) -> Device {
        self.word_embeddings().weight.device()
    }

    fn head_path(&self) -> Option<&str> {
        None
    }
}

impl Encoder for ModernBert {
    fn hidden_size(&self) -> usize {
        self.tok_embeddings.weight.dims()[1]
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn num_token_types(&self) -> usize {
        0
    }

    fn word_embeddings(&self) -> &Embedding {
        &self.tok_embeddings
    }

    fn extent(&self, lengths: &[usize], seq: usize) -> Extent {
        let device = self.device();
        let ropes = self.ropes.iter().map(|rope| rope.table(&[0], seq, &device)).collect();
        Extent { lengths: lengths.into(), ropes }
    }

    fn embed(
        &self,
        ids: Tensor<2, Int>,
        _token_types: Option<Tensor<2, Int>>,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        let embedded = adapter.prompt(adapter.embed(&self.tok_embeddings, ids));
        adapter.norm(&self.embeddings_norm, embedded)
    }

    fn block(&self, index: usize, hidden: Tensor<3>, extent: &Extent, adapter: &dyn Adapter) -> Tensor<3> {
        let block = &self.blocks[index];
        let site = |sublayer| Site { layer: index, sublayer };
        let [batch, seq, width] = hidden.dims();

        let input = match &block.attn_norm {
            Some(norm) => adapter.norm(norm, hidden.clone()),
            None => hidden.clone(),
        };
        let qkv = adapter.linear(&block.wqkv, input);
        let part = |at: usize| {
            let heads = [batch, seq, self.num_heads, width / self.num_heads];
            qkv.clone().narrow(2, at * width, width).reshape(heads)
        };
        let rope = &extent.ropes[usize::from(block.local)];
        let seen = KeyValue { key: rope.apply(part(1)), value: part(2) };
        let window = block.local.then_some(self.window);
        let attended = attend(index, rope.apply(part(0)), seen, extent, window, adapter);
        let attended = adapter.linear(&block.attention_wo, attended.reshape([batch, seq, width]));
        let hidden = adapter.join(site(Sublayer::Attention), attended, hidden, None);

        let both = adapter.linear(&block.wi, adapter.norm(&block.mlp_norm, hidden.clone()));
        let wide = block.mlp_wo.d_input();
        let gated = self.activation.gate(both.clone().narrow(2, 0, wide), both.narrow(2, wide, wide));
        let transformed = adapter.linear(&block.mlp_wo, gated);
        adapter.join(site(Sublayer::Mlp), transformed, hidden, None)
    }

    fn finish(&self, hidden: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        adapter.norm(&self.final_norm, hidden)
    }

    fn without_pooler(&self) -> Arc<dyn Encoder> {
        Arc::new(self.clone())
    }

    fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<dyn Encoder> {
        let mut model = self.clone();
        model.visit_mut(edit);
        Arc::new(model)
    }
}
