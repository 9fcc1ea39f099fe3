//! Root-mean-square normalisation.

#[cfg(feature = "cpu")]
mod flex;
mod primitive;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// Normalises the last dimension by its root mean square (Zhang & Sennrich 2019, <https://arxiv.org/abs/1910.07467>):
/// `y = x / sqrt(mean(x^2) + eps) * weight`. Statistics are `f32` for half-precision inputs.
///
/// # Shapes
/// - `x`: `[batch, seq, d_model]`
/// - `weight`: `[d_model]`
/// - output: `[batch, seq, d_model]`
///
/// # Panics
/// If `weight` is not as long as the last dimension of `x`.
pub fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    let [_, _, d_model] = x.dims();
    assert_eq!(weight.dims(), [d_model], "rms_norm: weight must be [d_model] for x {:?}", x.dims());
    Tensor::from_dispatch(<Dispatch as RmsNorm>::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait RmsNorm: Backend {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
}

/// What a backend computes; its defaults serve any.
trait RmsNormKernel: Backend {
    fn forward(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        primitive::forward::<Self>(x, weight, eps)
    }

    /// The gradient with respect to `x`.
    fn grad_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        primitive::grad_x::<Self>(x, weight, grad, eps)
    }

    /// The gradient with respect to `weight`.
    fn grad_weight(x: FloatTensor<Self>, grad: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        primitive::grad_weight::<Self>(x, grad, eps)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl RmsNormKernel for burn::backend::Cube {}

#[cfg(feature = "cpu")]
impl RmsNorm for burn::backend::Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        Self::forward(x, weight, eps)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl RmsNorm for burn::backend::Cube {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        Self::forward(x, weight, eps)
    }
}

impl<B: RmsNormKernel, C: CheckpointStrategy> RmsNorm for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        match RmsNormBackward.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::forward(x.clone(), weight.clone(), eps);
                prep.finish((x, weight, eps), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(x, weight, eps)),
        }
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl<B: RmsNormKernel> Backward<B, 2> for RmsNormBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, eps) = ops.state;
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, B::grad_weight(x.clone(), grad.clone(), eps));
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::grad_x(x, weight, grad, eps));
        }
    }
}
