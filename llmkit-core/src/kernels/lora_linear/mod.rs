//! A frozen linear layer with a low-rank update.

#[cfg(feature = "cpu")]
mod flex;
mod primitive;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// The trained part of [`lora_linear`].
#[derive(Debug, Clone)]
pub struct LoraFactors {
    /// `[rank, d_input]`, PEFT's `lora_A`.
    pub a: Tensor<2>,
    /// `[d_output, rank]`, PEFT's `lora_B`.
    pub b: Tensor<2>,
    /// What the update is multiplied by, usually `alpha / rank`.
    pub scale: f64,
}

/// `y = x W^T + scale (x A^T) B^T` (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>), without the dropout that may come before
/// `A`. For the backward pass only `x` and `x A^T` are kept; `W` gets no gradient.
///
/// # Shapes
/// - `x`: `[batch, seq, d_input]`
/// - `weight`: `[d_output, d_input]`; a transposed view is as good
/// - output: `[batch, seq, d_output]`
///
/// # Panics
/// If the shapes do not fit each other, or `weight` is tracked by autodiff.
pub fn lora_linear(x: Tensor<3>, weight: Tensor<2>, factors: LoraFactors) -> Tensor<3> {
    let LoraFactors { a, b, scale } = factors;
    let ([_, _, d_input], [d_output, _], [rank, _]) = (x.dims(), weight.dims(), a.dims());
    assert_eq!(weight.dims(), [d_output, d_input], "lora_linear: weight must be [_, {d_input}]");
    assert_eq!(a.dims(), [rank, d_input], "lora_linear: a must be [_, {d_input}]");
    assert_eq!(b.dims(), [d_output, rank], "lora_linear: b must be [d_output, rank]");
    let output = <Dispatch as LoraLinear>::lora_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        scale,
    );
    Tensor::from_dispatch(output)
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait LoraLinear: Backend {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;
}

/// The inputs of the layer.
#[derive(Debug, Clone)]
struct Inputs<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f64,
}

/// What the forward pass yields: the output, and `x A^T` `[batch * seq, rank]`.
#[derive(Debug, Clone)]
struct Outputs<B: Backend> {
    output: FloatTensor<B>,
    inner: FloatTensor<B>,
}

/// Whose gradients are needed.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    x: bool,
    a: bool,
    b: bool,
}

/// The gradients with respect to the inputs that want one.
#[derive(Debug)]
struct InputGrads<B: Backend> {
    x: Option<FloatTensor<B>>,
    a: Option<FloatTensor<B>>,
    b: Option<FloatTensor<B>>,
}

/// What a backend computes; its defaults serve any.
trait LoraLinearKernel: Backend {
    fn forward(inputs: Inputs<Self>) -> Outputs<Self> {
        primitive::forward::<Self>(inputs)
    }

    /// `inner` is that of the [`Outputs`].
    fn backward(
        inputs: Inputs<Self>,
        inner: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        wanted: Wanted,
    ) -> InputGrads<Self> {
        primitive::backward::<Self>(inputs, inner, grad, wanted)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl LoraLinearKernel for burn::backend::Cube {}

#[cfg(feature = "cpu")]
impl LoraLinear for burn::backend::Flex {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        Self::forward(Inputs { x, weight, a, b, scale }).output
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl LoraLinear for burn::backend::Cube {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        Self::forward(Inputs { x, weight, a, b, scale }).output
    }
}

impl<B: LoraLinearKernel, C: CheckpointStrategy> LoraLinear for Autodiff<B, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        assert!(
            !weight.is_tracked(),
            "lora_linear: the weight is frozen, so it must not be tracked by autodiff"
        );
        let (x, x_node) = x.into_parts();
        let (a, a_node) = a.into_parts();
        let (b, b_node) = b.into_parts();
        let inputs = Inputs { x, weight: weight.into_primitive(), a, b, scale };
        match LoraLinearBackward.prepare::<C>([x_node, a_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let Outputs { output, inner } = B::forward(inputs.clone());
                prep.finish((inputs, inner), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(inputs).output),
        }
    }
}

#[derive(Debug)]
struct LoraLinearBackward;

impl<B: LoraLinearKernel> Backward<B, 3> for LoraLinearBackward {
    type State = (Inputs<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, inner) = ops.state;
        let [x, a, b] = ops.parents;
        let wanted = Wanted { x: x.is_some(), a: a.is_some(), b: b.is_some() };
        let input_grads = B::backward(inputs, inner, grad, wanted);
        for (node, grad) in [(x, input_grads.x), (a, input_grads.a), (b, input_grads.b)] {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}
