use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Shape, TensorData, TensorMetadata};

use super::super::compose::{cast, widen};
use super::{AttentionOptions, InputGrads, Inputs, Outputs, Wanted};

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Dims {
    batch: usize,
    t: usize,
    s: usize,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
}

impl Dims {
    fn of<B: Backend>(inputs: &Inputs<B>) -> Self {
        let (q, k) = (inputs.q.shape(), inputs.k.shape());
        Self { batch: q[0], t: q[1], s: k[1], kv_heads: k[2], group: q[2] / k[2], head_dim: q[3] }
    }

    /// `[batch, t, heads, d]` to `[batch, kv_heads, group * t, d]`: the heads that share keys become rows of one product, so that
    /// keys and values need not be repeated.
    fn fold<B: Backend>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let shape = Shape::from([self.batch, self.kv_heads, self.group * self.t, self.head_dim]);
        B::float_reshape(B::float_permute(x, &[0, 2, 1, 3]), shape)
    }

    fn unfold<B: Backend>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let shape = Shape::from([self.batch, self.kv_heads * self.group, self.t, self.head_dim]);
        B::float_permute(B::float_reshape(x, shape), &[0, 2, 1, 3])
    }

    /// Adds minus infinity where a query must not look.
    fn mask<B: Backend>(&self, scores: FloatTensor<B>, options: &AttentionOptions) -> FloatTensor<B> {
        let Self { batch, t, s, kv_heads, group, .. } = *self;
        let masks = if options.rows.is_some() { batch } else { 1 };
        let mut values = vec![f32::NEG_INFINITY; masks * t * s];
        for (row, values) in values.chunks_exact_mut(s).enumerate() {
            values[options.visible(row / t, row % t, [t, s])].fill(0.0);
        }
        let mask = B::float_from_data(TensorData::new(values, [masks, 1, t, s]), &scores.device());
        let mask = cast::<B>(mask, scores.dtype());
        let scores = B::float_reshape(scores, Shape::from([batch, kv_heads * group, t, s]));
        B::float_reshape(B::float_add(scores, mask), Shape::from([batch, kv_heads, group * t, s]))
    }
}

/// The scaled and masked scores `[batch, kv_heads, group * t, s]`.
fn scores<B: Backend>(dims: Dims, inputs: &Inputs<B>) -> FloatTensor<B> {
    let q = dims.fold::<B>(inputs.q.clone());
    let k = B::float_permute(inputs.k.clone(), &[0, 2, 3, 1]);
    let scores = B::float_mul_scalar(widen::<B>(B::float_matmul(q, k)), inputs.options.scale.into());
    if inputs.options.hides(dims.t) { dims.mask::<B>(scores, &inputs.options) } else { scores }
}

pub(super) fn forward<B: Backend>(inputs: Inputs<B>) -> Outputs<B> {
    let dims = Dims::of(&inputs);
    let dtype = inputs.q.dtype();
    let scores = scores(dims, &inputs);
    let max = B::float_max_dim(scores.clone(), 3);
    let weights = B::float_exp(B::float_sub(scores, max.clone()));
    let sum = B::float_sum_dim(weights.clone(), 3);
    let weights = cast::<B>(B::float_div(weights, sum.clone()), dtype);
    let output = B::float_matmul(weights, B::float_permute(inputs.v, &[0, 2, 1, 3]));
    let log_sum = B::float_add(B::float_log(sum), max);
    let log_sum = B::float_reshape(log_sum, Shape::from([dims.batch, dims.kv_heads * dims.group, dims.t]));
    Outputs { output: dims.unfold::<B>(output), log_sum }
}

// With p the weights and D = rowsum(grad * output): dv = p^T grad, ds = p (grad v^T - D), dq = scale ds k, dk = scale ds^T q.
pub(super) fn backward<B: Backend>(
    inputs: Inputs<B>,
    outputs: Outputs<B>,
    grad: FloatTensor<B>,
    wanted: Wanted,
) -> InputGrads<B> {
    let dims = Dims::of(&inputs);
    let dtype = inputs.q.dtype();
    let column = Shape::from([dims.batch, dims.kv_heads, dims.group * dims.t, 1]);
    let log_sum = B::float_reshape(outputs.log_sum, column);
    let weights = B::float_exp(B::float_sub(scores(dims, &inputs), log_sum));

    let grad = dims.fold::<B>(grad);
    let transposed = |x| B::float_swap_dims(x, 2, 3);
    let keys_first = |x| B::float_permute(x, &[0, 2, 1, 3]);
    let grad_v = wanted
        .v
        .then(|| keys_first(B::float_matmul(transposed(cast::<B>(weights.clone(), dtype)), grad.clone())));
    if !wanted.q && !wanted.k {
        return InputGrads { q: None, k: None, v: grad_v };
    }

    let output = dims.fold::<B>(outputs.output);
    let delta = B::float_sum_dim(B::float_mul(widen::<B>(grad.clone()), widen::<B>(output)), 3);
    let grad_weights = widen::<B>(B::float_matmul(grad, B::float_permute(inputs.v, &[0, 2, 3, 1])));
    let grad_scores = B::float_mul(weights, B::float_sub(grad_weights, delta));
    let grad_scores = cast::<B>(B::float_mul_scalar(grad_scores, inputs.options.scale.into()), dtype);
    let grad_k = wanted
        .k
        .then(|| keys_first(B::float_matmul(transposed(grad_scores.clone()), dims.fold::<B>(inputs.q))));
    let grad_q = wanted.q.then(|| dims.unfold::<B>(B::float_matmul(grad_scores, keys_first(inputs.k))));
    InputGrads { q: grad_q, k: grad_k, v: grad_v }
}
