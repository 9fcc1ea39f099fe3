use burn::tensor::Tensor;

use super::{KeyValue, LayerCache, Linear, RopeTable, Weights};
use crate::adapter::Adapter;
use crate::kernels::{self, AttentionOptions};

/// The sizes of an [`Attention`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// The length of the residual stream's vectors.
    pub hidden_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; each serves `num_heads / num_kv_heads` query heads.
    pub num_kv_heads: usize,
    /// The length of one head's vectors.
    pub head_dim: usize,
    /// Whether the four projections have biases.
    pub bias: bool,
}

/// Causal grouped-query self-attention with rotary positions (Ainslie et al. 2023; Su et al. 2021).
#[derive(Debug, Clone)]
pub struct Attention {
    /// `[heads * head_dim, hidden]`
    pub q_proj: Linear,
    /// `[kv_heads * head_dim, hidden]`
    pub k_proj: Linear,
    /// `[kv_heads * head_dim, hidden]`
    pub v_proj: Linear,
    /// `[hidden, heads * head_dim]`
    pub o_proj: Linear,
    layer: usize,
    config: AttentionConfig,
}

impl Attention {
    /// Reads the four projections of block `layer`.
    pub fn load(weights: &Weights<'_>, layer: usize, config: AttentionConfig) -> Self {
        let AttentionConfig { hidden_size, num_heads, num_kv_heads, head_dim, bias } = config;
        Self {
            q_proj: Linear::load(&weights.at("q_proj"), hidden_size, num_heads * head_dim, bias),
            k_proj: Linear::load(&weights.at("k_proj"), hidden_size, num_kv_heads * head_dim, bias),
            v_proj: Linear::load(&weights.at("v_proj"), hidden_size, num_kv_heads * head_dim, bias),
            o_proj: Linear::load(&weights.at("o_proj"), num_heads * head_dim, hidden_size, bias),
            layer,
            config,
        }
    }

    /// # Shapes
    /// `[batch, seq, hidden]`, both; `rope` covers the `seq` positions of `input`.
    pub fn forward(
        &self,
        input: Tensor<3>,
        rope: &RopeTable,
        cache: Option<&mut LayerCache>,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        let [batch, seq, _] = input.dims();
        let AttentionConfig { num_heads, num_kv_heads, head_dim, .. } = self.config;

        let query = adapter.linear(&self.q_proj, input.clone()).reshape([batch, seq, num_heads, head_dim]);
        let key = adapter.linear(&self.k_proj, input.clone()).reshape([batch, seq, num_kv_heads, head_dim]);
        let value = adapter.linear(&self.v_proj, input).reshape([batch, seq, num_kv_heads, head_dim]);

        let query = rope.apply(query);
        let mut seen = KeyValue { key: rope.apply(key), value };
        if cache.as_ref().is_none_or(|cache| cache.is_empty())
            && let Some(prefix) = adapter.prefix(self.layer, batch)
        {
            seen = prefix.followed_by(seen);
        }
        if let Some(cache) = cache {
            seen = cache.append(seen);
        }

        let options = AttentionOptions { scale: (head_dim as f64).powf(-0.5), causal: true };
        let attended = kernels::attention(query, seen.key, seen.value, options);
        adapter.linear(&self.o_proj, attended.reshape([batch, seq, num_heads * head_dim]))
    }
}
