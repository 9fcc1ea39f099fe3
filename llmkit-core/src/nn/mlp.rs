use burn::tensor::Tensor;

use super::{Linear, Weights};
use crate::adapter::Adapter;
use crate::kernels;

/// The gated feed-forward network: `down(silu(gate(x)) * up(x))` (Shazeer 2020, SwiGLU).
#[derive(Debug, Clone)]
pub struct Mlp {
    /// `[intermediate, hidden]`
    pub gate_proj: Linear,
    /// `[intermediate, hidden]`
    pub up_proj: Linear,
    /// `[hidden, intermediate]`
    pub down_proj: Linear,
}

impl Mlp {
    /// Reads the three projections.
    pub fn load(weights: &Weights<'_>, hidden_size: usize, intermediate_size: usize, bias: bool) -> Self {
        Self {
            gate_proj: Linear::load(&weights.at("gate_proj"), hidden_size, intermediate_size, bias),
            up_proj: Linear::load(&weights.at("up_proj"), hidden_size, intermediate_size, bias),
            down_proj: Linear::load(&weights.at("down_proj"), intermediate_size, hidden_size, bias),
        }
    }

    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    pub fn forward(&self, input: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        let gate = adapter.linear(&self.gate_proj, input.clone());
        let up = adapter.linear(&self.up_proj, input);
        adapter.linear(&self.down_proj, kernels::swiglu(gate, up))
    }
}
