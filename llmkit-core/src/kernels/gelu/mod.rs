//! The Gaussian error linear unit.

#[cfg(feature = "cpu")]
mod flex;
mod primitive;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// `x Phi(x)`, with the normal distribution's `Phi(x) = (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel 2016,
/// <https://arxiv.org/abs/1606.08415>), to within 3e-7 of `|x|`.
///
/// The backward pass computes `Phi` again, so only the input is kept.
///
/// # Shapes
/// `[batch, seq, d_ff]`, both.
pub fn gelu(x: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Gelu>::gelu(x.into_dispatch()))
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait Gelu: Backend {
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// What a backend computes; its defaults serve any.
trait GeluKernel: Backend {
    fn forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        primitive::forward::<Self>(x)
    }

    /// The gradient with respect to `x`.
    fn backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        primitive::backward::<Self>(x, grad)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl GeluKernel for burn::backend::Cube {}

#[cfg(feature = "cpu")]
impl Gelu for burn::backend::Flex {
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::forward(x)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl Gelu for burn::backend::Cube {
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::forward(x)
    }
}

impl<B: GeluKernel, C: CheckpointStrategy> Gelu for Autodiff<B, C> {
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match GeluBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::forward(x.clone());
                prep.finish(x, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(x)),
        }
    }
}

#[derive(Debug)]
struct GeluBackward;

impl<B: GeluKernel> Backward<B, 1> for GeluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::backward(ops.state, grad));
        }
    }
}
