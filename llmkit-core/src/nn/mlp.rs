use burn::tensor::{Tensor, activation};

use super::{Layer, LayerMut, Linear, Weights};
use crate::adapter::Adapter;
use crate::kernels;

/// The function between the projections of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// `x Phi(x)` by the error function.
    Gelu,
    /// GELU's approximation by the hyperbolic tangent.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// The function at each element of `x`.
    ///
    /// # Shapes
    /// `[batch, seq, width]`, both.
    pub fn apply(self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Silu => activation::silu(x),
            Self::Gelu => kernels::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::Relu => activation::relu(x),
            Self::Tanh => activation::tanh(x),
        }
    }

    /// `apply(gate) * up`.
    pub fn gate(self, gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Silu => kernels::swiglu(gate, up),
            other => other.apply(gate) * up,
        }
    }
}

/// What distinguishes one [`Mlp`] from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpConfig {
    /// The length of the residual stream's vectors.
    pub hidden_size: usize,
    /// The width between the projections.
    pub intermediate_size: usize,
    /// The function of the gate.
    pub activation: Activation,
    /// Whether the projections have biases.
    pub bias: bool,
    /// Whether gate and up are one projection, `gate_up_proj`.
    pub fused: bool,
}

/// The gated feed-forward network: `down(activation(gate(x)) * up(x))` (Shazeer 2020).
#[derive(Debug, Clone)]
pub struct Mlp {
    gate_up: GateUp,
    down_proj: Linear,
    activation: Activation,
}

#[derive(Debug, Clone)]
// A block has one of them, so a box would save nothing.
#[allow(clippy::large_enum_variant)]
enum GateUp {
    /// `[intermediate, hidden]`, both
    Separate { gate_proj: Linear, up_proj: Linear },
    /// `[2 * intermediate, hidden]`, the gate's rows first
    Fused { gate_up_proj: Linear },
}

impl Mlp {
    /// Reads `gate_proj` and `up_proj`, or `gate_up_proj`, and `down_proj`.
    pub fn load(weights: &Weights<'_>, config: MlpConfig) -> Self {
        Self::load_named(weights, config, ["gate_proj", "up_proj", "down_proj"])
    }

    /// The same where gate, up and down have these `names`.
    pub fn load_named(weights: &Weights<'_>, config: MlpConfig, names: [&str; 3]) -> Self {
        let MlpConfig { hidden_size, intermediate_size, activation, bias, fused } = config;
        let reading = |name, width| Linear::load(&weights.at(name), hidden_size, width, bias);
        let gate_up = if fused {
            GateUp::Fused { gate_up_proj: reading("gate_up_proj", 2 * intermediate_size) }
        } else {
            GateUp::Separate {
                gate_proj: reading(names[0], intermediate_size),
                up_proj: reading(names[1], intermediate_size),
            }
        };
        let down_proj = Linear::load(&weights.at(names[2]), intermediate_size, hidden_size, bias);
        Self { gate_up, down_proj, activation }
    }

    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    pub fn forward(&self, input: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        let (gate, up) = match &self.gate_up {
            GateUp::Separate { gate_proj, up_proj } => {
                (adapter.linear(gate_proj, input.clone()), adapter.linear(up_proj, input))
            }
            GateUp::Fused { gate_up_proj } => {
                let [gate, up] = split(adapter.linear(gate_up_proj, input), [self.down_proj.d_input(); 2]);
                (gate, up)
            }
        };
        adapter.linear(&self.down_proj, self.activation.gate(gate, up))
    }

    /// Shows the projections.
    pub fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        match &self.gate_up {
            GateUp::Separate { gate_proj, up_proj } => {
                see(Layer::Linear(gate_proj));
                see(Layer::Linear(up_proj));
            }
            GateUp::Fused { gate_up_proj } => see(Layer::Linear(gate_up_proj)),
        }
        see(Layer::Linear(&self.down_proj));
    }

    /// Opens the projections for change.
    pub fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>)) {
        match &mut self.gate_up {
            GateUp::Separate { gate_proj, up_proj } => {
                edit(LayerMut::Linear(gate_proj));
                edit(LayerMut::Linear(up_proj));
            }
            GateUp::Fused { gate_up_proj } => edit(LayerMut::Linear(gate_up_proj)),
        }
        edit(LayerMut::Linear(&mut self.down_proj));
    }
}

/// The parts of the last dimension.
///
/// # Shapes
/// `x [batch, seq, sum of widths]` to `[batch, seq, width]` each.
pub(super) fn split<const N: usize>(x: Tensor<3>, widths: [usize; N]) -> [Tensor<3>; N] {
    let mut start = 0;
    widths.map(|width| {
        let part = x.clone().narrow(2, start, width);
        start += width;
        part
    })
}
