use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use super::{CausalLm, Model, Task};
use crate::adapter::{Adapter, Site, Sublayer};
use crate::nn::{
    Attention, Embedding, Layer, LayerCache, LayerMut, Linear, MixtureOfExperts, Mlp, Norm, Positions, Rope,
    Weights,
};

/// A decoder-only transformer. Each architecture's file builds one, saying what its blocks consist of.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub(super) embed_tokens: Embedding,
    /// What embedded tokens are multiplied by.
    pub(super) embed_scale: Option<f64>,
    pub(super) blocks: Vec<DecoderBlock>,
    pub(super) norm: Norm,
    pub(super) head: Head,
    /// The kinds of rotation that blocks choose from.
    pub(super) ropes: Vec<Rope>,
    pub(super) max_positions: usize,
    pub(super) config: Value,
}

/// The output head.
#[derive(Debug, Clone)]
pub(super) struct Head {
    lm_head: Linear,
    tied: bool,
}

impl Head {
    /// Reads `lm_head`, or ties it to the embedding.
    pub(super) fn load(weights: &Weights<'_>, embed_tokens: &Embedding, tied: bool) -> Self {
        let lm_head = if tied {
            // Some writers store the tied head a second time.
            weights.ignore("lm_head.weight");
            embed_tokens.tied_head("lm_head")
        } else {
            let [vocab_size, hidden_size] = embed_tokens.weight.dims();
            Linear::load(&weights.at("lm_head"), hidden_size, vocab_size, false)
        };
        Self { lm_head, tied }
    }
}

/// One block: what attention and the feed-forward network write is added to what they read.
#[derive(Debug, Clone)]
pub(super) struct DecoderBlock {
    pub(super) before_attention: Norm,
    pub(super) attention: Attention,
    /// Acts on what attention wrote.
    pub(super) after_attention: Option<Norm>,
    pub(super) before_mlp: Norm,
    pub(super) mlp: FeedForward,
    /// Acts on what the feed-forward network wrote.
    pub(super) after_mlp: Option<Norm>,
}

/// The feed-forward half of a block.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one in a block, beside tensors")]
pub(super) enum FeedForward {
    /// One network for all tokens.
    Dense(Mlp),
    /// Several, of which each token takes a few.
    Experts(MixtureOfExperts),
}

impl FeedForward {
    fn forward(&self, input: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        match self {
            Self::Dense(mlp) => mlp.forward(input, adapter),
            Self::Experts(experts) => experts.forward(input, adapter),
        }
    }

    fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        match self {
            Self::Dense(mlp) => mlp.visit(see),
            Self::Experts(experts) => experts.visit(see),
        }
    }

    fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>)) {
        match self {
            Self::Dense(mlp) => mlp.visit_mut(edit),
            Self::Experts(experts) => experts.visit_mut(edit),
        }
    }
}

impl DecoderBlock {
    fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        see(Layer::Norm(&self.before_attention));
        self.attention.visit(see);
        self.after_attention.iter().for_each(|norm| see(Layer::Norm(norm)));
        see(Layer::Norm(&self.before_mlp));
        self.mlp.visit(see);
        self.after_mlp.iter().for_each(|norm| see(Layer::Norm(norm)));
    }

    fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>)) {
        edit(LayerMut::Norm(&mut self.before_attention));
        self.attention.visit_mut(edit);
        self.after_attention.iter_mut().for_each(|norm| edit(LayerMut::Norm(norm)));
        edit(LayerMut::Norm(&mut self.before_mlp));
        self.mlp.visit_mut(edit);
        self.after_mlp.iter_mut().for_each(|norm| edit(LayerMut::Norm(norm)));
    }
}

impl Model for Decoder {
    fn config(&self) -> &Value {
        &self.config
    }

    fn task(&self) -> Task {
        Task::CausalLm
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn device(&self) -> Device {
        self.embed_tokens.weight.device()
    }

    fn embedding_scale(&self) -> f64 {
        self.embed_scale.unwrap_or(1.0)
    }

    fn is_tied(&self) -> bool {
        self.head.tied
    }

    fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        see(Layer::Embedding(&self.embed_tokens));
        self.blocks.iter().for_each(|block| block.visit(see));
        see(Layer::Norm(&self.norm));
        see(Layer::Linear(&self.head.lm_head));
    }

    fn head_path(&self) -> Option<&str> {
        Some(self.head.lm_head.path())
    }
}

impl CausalLm for Decoder {
    fn vocab_size(&self) -> usize {
        self.head.lm_head.d_output()
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn positions(&self, starts: &[usize], len: usize, counts: Option<Arc<[usize]>>) -> Positions {
        let device = self.device();
        let table = |rope: &Rope| rope.table_of_rows(starts, len, counts.as_deref(), &device);
        Positions { ropes: self.ropes.iter().map(table).collect(), counts }
    }

    fn switches_at(&self) -> Option<usize> {
        self.ropes.iter().filter_map(Rope::switches_at).min()
    }

    fn embed(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        let embedded = adapter.embed(&self.embed_tokens, ids);
        adapter.prompt(match self.embed_scale {
            Some(scale) => embedded * scale,
            None => embedded,
        })
    }

    fn block(
        &self,
        index: usize,
        hidden: Tensor<3>,
        positions: &Positions,
        cache: Option<&mut LayerCache>,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        let block = &self.blocks[index];
        let site = |sublayer| Site { layer: index, sublayer };
        let after = |norm: &Option<Norm>, output| match norm {
            Some(norm) => adapter.norm(norm, output),
            None => output,
        };

        let input = adapter.norm(&block.before_attention, hidden.clone());
        let attended = block.attention.forward(input, positions, cache, adapter);
        let attended = after(&block.after_attention, attended);
        let hidden = adapter.join(site(Sublayer::Attention), attended, hidden, None);

        let input = adapter.norm(&block.before_mlp, hidden.clone());
        let transformed = after(&block.after_mlp, block.mlp.forward(input, adapter));
        adapter.join(site(Sublayer::Mlp), transformed, hidden, None)
    }

    fn head(&self, hidden: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        adapter.linear(&self.head.lm_head, adapter.norm(&self.norm, hidden))
    }

    fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<dyn CausalLm> {
        let mut model = self.clone();
        let mut embedding_or_head_changed = edit(LayerMut::Embedding(&mut model.embed_tokens));
        for block in &mut model.blocks {
            block.visit_mut(&mut |layer| {
                edit(layer);
            });
        }
        edit(LayerMut::Norm(&mut model.norm));
        embedding_or_head_changed |= edit(LayerMut::Linear(&mut model.head.lm_head));
        if model.head.tied && embedding_or_head_changed {
            model.head.tied = false;
            model.config["tie_word_embeddings"] = Value::Bool(false);
        }
        Arc::new(model)
    }
}
