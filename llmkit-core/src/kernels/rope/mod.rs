//! Rotary position embeddings.

#[cfg(feature = "cpu")]
mod flex;
mod primitive;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// Rotates queries or keys by their position (Su et al. 2021, <https://arxiv.org/abs/2104.09864>), pairing dimension `i` with
/// `i + d / 2` as Hugging Face checkpoints do:
/// `y[i] = x[i] cos[i] - x[i + d/2] sin[i]`, `y[i + d/2] = x[i + d/2] cos[i] + x[i] sin[i]`.
///
/// Only the first `d` dimensions of each head turn, twice as many as there are angles; the others stay.
///
/// # Shapes
/// - `x`: `[batch, seq, heads, head_dim]`
/// - `cos`, `sin`: `[batch, seq, d / 2]`, the angles of each position of `x`, or `[1, seq, d / 2]` where all sequences share them
/// - output: `[batch, seq, heads, head_dim]`
///
/// # Panics
/// If `d` is more than `head_dim`, `cos` or `sin` has another shape, or either is tracked by autodiff: they get no gradient.
pub fn rope(x: Tensor<4>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
    let ([batch, seq, _, head_dim], [rows, positions, half]) = (x.dims(), cos.dims());
    assert!(
        (rows == 1 || rows == batch) && positions == seq && 2 * half <= head_dim,
        "rope: cos must be [1 or batch, seq, at most head_dim / 2] for x {:?}, found {:?}",
        x.dims(),
        cos.dims()
    );
    assert_eq!(sin.dims(), cos.dims(), "rope: sin must be of cos's shape");
    let rotated = <Dispatch as Rope>::rope(x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(rotated)
}

/// Which way to turn: the backward pass of a rotation is the rotation back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait Rope: Backend {
    fn rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// What a backend computes; its default serves any.
trait RopeKernel: Backend {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: Direction,
    ) -> FloatTensor<Self> {
        primitive::rotate::<Self>(x, cos, sin, direction)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl RopeKernel for burn::backend::Cube {}

#[cfg(feature = "cpu")]
impl Rope for burn::backend::Flex {
    fn rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::rotate(x, cos, sin, Direction::Forward)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl Rope for burn::backend::Cube {
    fn rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::rotate(x, cos, sin, Direction::Forward)
    }
}

impl<B: RopeKernel, C: CheckpointStrategy> Rope for Autodiff<B, C> {
    fn rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        assert!(
            !cos.is_tracked() && !sin.is_tracked(),
            "rope: cos and sin get no gradient, so they must not be tracked"
        );
        let (x, node) = x.into_parts();
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        match RopeBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::rotate(x, cos.clone(), sin.clone(), Direction::Forward);
                prep.finish((cos, sin), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rotate(x, cos, sin, Direction::Forward)),
        }
    }
}

#[derive(Debug)]
struct RopeBackward;

impl<B: RopeKernel> Backward<B, 1> for RopeBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (cos, sin) = ops.state;
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<B>(node.id, B::rotate(grad, cos, sin, Direction::Back));
        }
    }
}
