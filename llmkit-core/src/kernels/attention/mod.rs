//! Scaled dot-product attention.

#[cfg(feature = "cpu")]
mod flex;
mod mask;
mod primitive;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

pub use mask::{AttentionOptions, Row};

/// `softmax(scale q k^T) v` for each head, with grouped keys and values (Ainslie et al. 2023, <https://arxiv.org/abs/2305.13245>):
/// query head `h` reads key head `h / (heads / kv_heads)`.
///
/// On the CPU the `[t, s]` weights are never stored: the backward pass recomputes them tile by tile from the logarithms of the rows'
/// sums of exponentials (Dao et al. 2022, <https://arxiv.org/abs/2205.14135>).
///
/// # Shapes
/// - `q`: `[batch, t, heads, head_dim]`
/// - `k`, `v`: `[batch, s, kv_heads, head_dim]`
/// - output: `[batch, t, heads, head_dim]`
///
/// # Panics
/// If the shapes do not fit each other, `heads` is not a multiple of `kv_heads`, there are no keys, `causal` is set without rows and
/// with fewer keys than queries, or the rows are not one for each sequence with 1 to `s` keys.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    let ([batch, t, heads, head_dim], [_, s, kv_heads, _]) = (q.dims(), k.dims());
    assert_eq!(k.dims(), v.dims(), "attention: keys and values must have one shape");
    assert_eq!(
        k.dims(),
        [batch, s, kv_heads, head_dim],
        "attention: keys must be [batch, s, kv_heads, head_dim] for queries {:?}",
        q.dims()
    );
    assert!(
        kv_heads > 0 && heads % kv_heads == 0,
        "attention: {heads} query heads are not a multiple of {kv_heads} key heads"
    );
    assert!(s > 0, "attention: there are no keys");
    options.check(batch, t, s);
    let output =
        <Dispatch as Attention>::attention(q.into_dispatch(), k.into_dispatch(), v.into_dispatch(), options);
    Tensor::from_dispatch(output)
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait Attention: Backend {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self>;
}

/// The inputs of attention.
#[derive(Debug, Clone)]
struct Inputs<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    options: AttentionOptions,
}

/// What the forward pass yields: `[batch, t, heads, head_dim]`, and the logarithms of the sums of exponentials of the scaled scores
/// in the layout `[batch, heads, t]`.
#[derive(Debug, Clone)]
struct Outputs<B: Backend> {
    output: FloatTensor<B>,
    log_sum: FloatTensor<B>,
}

/// Whose gradients are needed.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    q: bool,
    k: bool,
    v: bool,
}

/// The gradients with respect to the inputs that want one.
#[derive(Debug)]
struct InputGrads<B: Backend> {
    q: Option<FloatTensor<B>>,
    k: Option<FloatTensor<B>>,
    v: Option<FloatTensor<B>>,
}

/// What a backend computes; its defaults serve any.
trait AttentionKernel: Backend {
    fn forward(inputs: Inputs<Self>) -> Outputs<Self> {
        primitive::forward::<Self>(inputs)
    }

    fn backward(
        inputs: Inputs<Self>,
        outputs: Outputs<Self>,
        grad: FloatTensor<Self>,
        wanted: Wanted,
    ) -> InputGrads<Self> {
        primitive::backward::<Self>(inputs, outputs, grad, wanted)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl AttentionKernel for burn::backend::Cube {}

#[cfg(feature = "cpu")]
impl Attention for burn::backend::Flex {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        Self::forward(Inputs { q, k, v, options }).output
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl Attention for burn::backend::Cube {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        Self::forward(Inputs { q, k, v, options }).output
    }
}

impl<B: AttentionKernel, C: CheckpointStrategy> Attention for Autodiff<B, C> {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        let (q, q_node) = q.into_parts();
        let (k, k_node) = k.into_parts();
        let (v, v_node) = v.into_parts();
        let inputs = Inputs { q, k, v, options };
        match AttentionBackward.prepare::<C>([q_node, k_node, v_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let outputs = B::forward(inputs.clone());
                let output = outputs.output.clone();
                prep.finish((inputs, outputs), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(inputs).output),
        }
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: AttentionKernel> Backward<B, 3> for AttentionBackward {
    type State = (Inputs<B>, Outputs<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, outputs) = ops.state;
        let [q, k, v] = ops.parents;
        let wanted = Wanted { q: q.is_some(), k: k.is_some(), v: v.is_some() };
        let input_grads = B::backward(inputs, outputs, grad, wanted);
        for (node, grad) in [(q, input_grads.q), (k, input_grads.k), (v, input_grads.v)] {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}
