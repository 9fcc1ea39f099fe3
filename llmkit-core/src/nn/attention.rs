use burn::tensor::Tensor;

use super::{
    KeyValue, Layer, LayerCache, LayerMut, Linear, Norm, NormConfig, Positions, Weights, mlp::split,
};
use crate::adapter::Adapter;
use crate::kernels::{self, AttentionOptions};

/// What distinguishes one [`Attention`] from another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionConfig {
    /// The length of the residual stream's vectors.
    pub hidden_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; each serves `num_heads / num_kv_heads` query heads.
    pub num_kv_heads: usize,
    /// The length of one head's vectors.
    pub head_dim: usize,
    /// Whether the projections of queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the projection of the output has a bias.
    pub output_bias: bool,
    /// Whether queries, keys and values are one projection, `qkv_proj`.
    pub fused: bool,
    /// The normalisation of each head's queries and keys, `q_norm` and `k_norm`, if there is one.
    pub norms: Option<NormConfig>,
    /// What the dot products are multiplied by; usually `1 / sqrt(head_dim)`.
    pub scale: f64,
    /// How many keys a query sees, its own included; all before it where there is no limit.
    pub window: Option<usize>,
    /// Which of the model's rotations turns queries and keys; none where positions are not encoded.
    pub rope: Option<usize>,
}

impl AttentionConfig {
    /// Plain grouped-query attention with the model's first rotation.
    pub fn new(hidden_size: usize, num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Self {
        Self {
            hidden_size,
            num_heads,
            num_kv_heads,
            head_dim,
            qkv_bias: false,
            output_bias: false,
            fused: false,
            norms: None,
            scale: (head_dim as f64).powf(-0.5),
            window: None,
            rope: Some(0),
        }
    }
}

/// Causal grouped-query self-attention with rotary positions (Ainslie et al. 2023; Su et al. 2021).
#[derive(Debug, Clone)]
pub struct Attention {
    projections: Projections,
    norms: Option<[Norm; 2]>,
    /// `[hidden, heads * head_dim]`
    o_proj: Linear,
    layer: usize,
    config: AttentionConfig,
}

#[derive(Debug, Clone)]
// A block has one of them, so a box would save nothing.
#[allow(clippy::large_enum_variant)]
enum Projections {
    /// `[heads * head_dim, hidden]` of queries, `[kv_heads * head_dim, hidden]` of keys and values
    Separate { q_proj: Linear, k_proj: Linear, v_proj: Linear },
    /// `[(heads + 2 * kv_heads) * head_dim, hidden]`
    Fused { qkv_proj: Linear },
}

impl Attention {
    /// Reads the projections and norms of block `layer`.
    pub fn load(weights: &Weights<'_>, layer: usize, config: AttentionConfig) -> Self {
        let AttentionConfig { hidden_size, num_heads, num_kv_heads, head_dim, .. } = config;
        let reading =
            |name, heads| Linear::load(&weights.at(name), hidden_size, heads * head_dim, config.qkv_bias);
        let projections = if config.fused {
            Projections::Fused { qkv_proj: reading("qkv_proj", num_heads + 2 * num_kv_heads) }
        } else {
            Projections::Separate {
                q_proj: reading("q_proj", num_heads),
                k_proj: reading("k_proj", num_kv_heads),
                v_proj: reading("v_proj", num_kv_heads),
            }
        };
        let norms = config
            .norms
            .map(|norm| ["q_norm", "k_norm"].map(|name| Norm::load(&weights.at(name), head_dim, norm)));
        let o_proj =
            Linear::load(&weights.at("o_proj"), num_heads * head_dim, hidden_size, config.output_bias);
        Self { projections, norms, o_proj, layer, config }
    }

    /// # Shapes
    /// `[batch, seq, hidden]`, both; `positions` are those of `input`.
    pub fn forward(
        &self,
        input: Tensor<3>,
        positions: &Positions,
        cache: Option<&mut LayerCache>,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        let [batch, seq, _] = input.dims();
        let AttentionConfig { num_heads, num_kv_heads, head_dim, scale, window, .. } = self.config;

        let [query, key, value] = self.project(input, adapter);
        let query = query.reshape([batch, seq, num_heads, head_dim]);
        let key = key.reshape([batch, seq, num_kv_heads, head_dim]);
        let value = value.reshape([batch, seq, num_kv_heads, head_dim]);

        let (query, key) = match &self.norms {
            Some([q_norm, k_norm]) => (normalise(q_norm, query, adapter), normalise(k_norm, key, adapter)),
            None => (query, key),
        };
        let (query, key) = match self.config.rope.map(|index| &positions.ropes[index]) {
            Some(rope) => (rope.apply(query), rope.apply(key)),
            None => (query, key),
        };
        let mut seen = KeyValue { key, value };
        let options = AttentionOptions::causal(scale).with_window(window);
        let prefix = || adapter.prefix(self.layer, batch);
        let (seen, options) = match cache {
            Some(cache) => {
                if cache.is_empty()
                    && let Some(prefix) = prefix()
                {
                    cache.append(prefix, None);
                }
                let (seen, rows) = cache.append(seen, positions.counts.as_deref());
                (seen, options.with_rows(rows))
            }
            None => {
                if let Some(prefix) = prefix() {
                    seen = prefix.followed_by(seen);
                }
                (seen, options)
            }
        };
        let attended = kernels::attention(query, seen.key, seen.value, options);
        adapter.linear(&self.o_proj, attended.reshape([batch, seq, num_heads * head_dim]))
    }

    fn project(&self, input: Tensor<3>, adapter: &dyn Adapter) -> [Tensor<3>; 3] {
        match &self.projections {
            Projections::Separate { q_proj, k_proj, v_proj } => {
                [q_proj, k_proj, v_proj].map(|linear| adapter.linear(linear, input.clone()))
            }
            Projections::Fused { qkv_proj } => {
                let AttentionConfig { num_heads, num_kv_heads, head_dim, .. } = self.config;
                let widths = [num_heads, num_kv_heads, num_kv_heads].map(|heads| heads * head_dim);
                split(adapter.linear(qkv_proj, input), widths)
            }
        }
    }

    /// Shows the projections and norms.
    pub fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        match &self.projections {
            Projections::Separate { q_proj, k_proj, v_proj } => {
                [q_proj, k_proj, v_proj].into_iter().for_each(|linear| see(Layer::Linear(linear)));
            }
            Projections::Fused { qkv_proj } => see(Layer::Linear(qkv_proj)),
        }
        see(Layer::Linear(&self.o_proj));
        self.norms.iter().flatten().for_each(|norm| see(Layer::Norm(norm)));
    }

    /// Opens the projections and norms for change.
    pub fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>)) {
        match &mut self.projections {
            Projections::Separate { q_proj, k_proj, v_proj } => {
                [q_proj, k_proj, v_proj].into_iter().for_each(|linear| edit(LayerMut::Linear(linear)));
            }
            Projections::Fused { qkv_proj } => edit(LayerMut::Linear(qkv_proj)),
        }
        edit(LayerMut::Linear(&mut self.o_proj));
        self.norms.iter_mut().flatten().for_each(|norm| edit(LayerMut::Norm(norm)));
    }
}

/// Normalises each head by itself.
fn normalise(norm: &Norm, x: Tensor<4>, adapter: &dyn Adapter) -> Tensor<4> {
    let [batch, seq, heads, head_dim] = x.dims();
    adapter.norm(norm, x.reshape([batch, seq * heads, head_dim])).reshape([batch, seq, heads, head_dim])
}
