//! Layer normalisation.

#[cfg(feature = "cpu")]
mod flex;
mod primitive;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// Normalises the last dimension to mean 0 and variance 1 (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>):
/// `y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`. Statistics are `f32` for half-precision inputs.
///
/// # Shapes
/// - `x`: `[batch, seq, d_model]`
/// - `weight`, `bias`: `[d_model]`
/// - output: `[batch, seq, d_model]`
///
/// # Panics
/// If `weight` or `bias` is not as long as the last dimension of `x`.
pub fn layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    let [_, _, d_model] = x.dims();
    assert_eq!(weight.dims(), [d_model], "layer_norm: weight must be [d_model] for x {:?}", x.dims());
    assert_eq!(bias.dims(), [d_model], "layer_norm: bias must be [d_model] for x {:?}", x.dims());
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as LayerNorm>::layer_norm(x, weight, bias, eps))
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait LayerNorm: Backend {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;
}

/// What a backend computes; its defaults serve any.
trait LayerNormKernel: Backend {
    fn forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        primitive::forward::<Self>(x, weight, bias, eps)
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
impl LayerNormKernel for burn::backend::Cube {}

#[cfg(feature = "cpu")]
impl LayerNorm for burn::backend::Flex {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        Self::forward(x, weight, bias, eps)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl LayerNorm for burn::backend::Cube {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        Self::forward(x, weight, bias, eps)
    }
}

impl<B: LayerNormKernel, C: CheckpointStrategy> LayerNorm for Autodiff<B, C> {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        match LayerNormBackward.prepare::<C>([x_node, weight_node, bias_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::forward(x.clone(), weight.clone(), bias, eps);
                prep.finish((x, weight, eps), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(x, weight, bias, eps)),
        }
    }
}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: LayerNormKernel> Backward<B, 3> for LayerNormBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, eps) = ops.state;
        let [x_node, weight_node, bias_node] = ops.parents;
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, B::grad_weight(x.clone(), grad.clone(), eps));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, primitive::grad_bias::<B>(grad.clone()));
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::grad_x(x, weight, grad, eps));
        }
    }
}
