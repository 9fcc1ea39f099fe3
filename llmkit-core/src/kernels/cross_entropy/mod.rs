//! The loss of a language model.

#[cfg(feature = "cpu")]
mod flex;
mod primitive;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

/// The negative log likelihood of each row's target: `log(sum_j exp(logits[i, j])) - logits[i, targets[i]]`.
///
/// It is not averaged, and no target is ignored: weigh the rows as the loss demands (a row of weight 0 costs little in the
/// backward pass), but keep every target below `vocab`. The backward pass overwrites the logits with their gradient where nobody
/// else holds them, so drop them to save the memory. Half-precision logits give `f32` losses.
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
/// - `targets`: `[rows]`, each in `0..vocab`
/// - output: `[rows]`
///
/// # Panics
/// If `targets` is not as long as `logits`; on the CPU also if a target is out of range (on a GPU its loss is undefined).
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, _] = logits.dims();
    assert_eq!(targets.dims(), [rows], "cross_entropy: one target a row of logits {:?}", logits.dims());
    let loss = <Dispatch as CrossEntropy>::cross_entropy(logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(loss)
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait CrossEntropy: Backend {
    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self>;
}

/// What a backend computes; its defaults serve any.
trait CrossEntropyKernel: Backend {
    /// The losses `[rows]` and the logarithms `[rows]` of the rows' sums of exponentials.
    fn forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        primitive::forward::<Self>(logits, targets)
    }

    /// The gradient with respect to the logits.
    fn backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sum: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        primitive::backward::<Self>(logits, targets, log_sum, grad)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl CrossEntropyKernel for burn::backend::Cube {}

#[cfg(feature = "cpu")]
impl CrossEntropy for burn::backend::Flex {
    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        Self::forward(logits, targets).0
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl CrossEntropy for burn::backend::Cube {
    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        Self::forward(logits, targets).0
    }
}

impl<B: CrossEntropyKernel, C: CheckpointStrategy> CrossEntropy for Autodiff<B, C> {
    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        let (logits, node) = logits.into_parts();
        match CrossEntropyBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, log_sum) = B::forward(logits.clone(), targets.clone());
                prep.finish(State::<B> { logits, targets, log_sum }, loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(logits, targets).0),
        }
    }
}

#[derive(Debug)]
struct CrossEntropyBackward;

#[derive(Debug, Clone)]
struct State<B: Backend> {
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    log_sum: FloatTensor<B>,
}

impl<B: CrossEntropyKernel> Backward<B, 1> for CrossEntropyBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let State { logits, targets, log_sum } = ops.state;
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<B>(node.id, B::backward(logits, targets, log_sum, grad));
        }
    }
}
