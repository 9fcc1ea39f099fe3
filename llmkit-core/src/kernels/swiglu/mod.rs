//! The gate of a feed-forward layer.

#[cfg(feature = "cpu")]
mod flex;
mod primitive;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// `silu(gate) * up`, with `silu(z) = z / (1 + exp(-z))` (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).
///
/// The backward pass recomputes `silu` from `gate`, so only the two inputs are kept.
///
/// # Shapes
/// - `gate`, `up`, output: `[batch, seq, d_ff]`
///
/// # Panics
/// If the two shapes differ.
pub fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    assert_eq!(gate.dims(), up.dims(), "swiglu: gate and up must have one shape");
    Tensor::from_dispatch(<Dispatch as Swiglu>::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait Swiglu: Backend {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// What a backend computes; its defaults serve any.
trait SwigluKernel: Backend {
    fn forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        primitive::forward::<Self>(gate, up)
    }

    /// The gradients with respect to `gate` and `up`.
    fn backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        primitive::backward::<Self>(gate, up, grad)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl SwigluKernel for burn::backend::Cube {}

#[cfg(feature = "cpu")]
impl Swiglu for burn::backend::Flex {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::forward(gate, up)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl Swiglu for burn::backend::Cube {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::forward(gate, up)
    }
}

impl<B: SwigluKernel, C: CheckpointStrategy> Swiglu for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate, gate_node) = gate.into_parts();
        let (up, up_node) = up.into_parts();
        match SwigluBackward.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::forward(gate.clone(), up.clone());
                prep.finish((gate, up), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(gate, up)),
        }
    }
}

#[derive(Debug)]
struct SwigluBackward;

impl<B: SwigluKernel> Backward<B, 2> for SwigluBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (gate, up) = ops.state;
        let (grad_gate, grad_up) = B::backward(gate, up, grad);
        let [gate_node, up_node] = ops.parents;
        if let Some(node) = gate_node {
            grads.register::<B>(node.id, grad_gate);
        }
        if let Some(node) = up_node {
            grads.register::<B>(node.id, grad_up);
        }
    }
}
