use burn::backend::tensor::{FloatTensor, IndexingUpdateOp, IntTensor};
use burn::backend::{Backend, Shape, TensorMetadata};

use super::super::compose::{cast, widen};

pub(super) fn forward<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let rows = logits.shape()[0];
    let logits = widen::<B>(logits);
    let max = B::float_max_dim(logits.clone(), 1);
    let sum = B::float_sum_dim(B::float_exp(B::float_sub(logits.clone(), max.clone())), 1);
    let log_sum = B::float_add(B::float_log(sum), max);
    let chosen = B::float_gather(1, logits, B::int_reshape(targets, Shape::from([rows, 1])));
    let loss = B::float_sub(log_sum.clone(), chosen);
    let flat = |t| B::float_reshape(t, Shape::from([rows]));
    (flat(loss), flat(log_sum))
}

pub(super) fn backward<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    log_sum: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let dtype = logits.dtype();
    let column = Shape::from([logits.shape()[0], 1]);
    let log_sum = B::float_reshape(log_sum, column.clone());
    let grad = B::float_reshape(grad, column.clone());
    let softmax = B::float_exp(B::float_sub(widen::<B>(logits), log_sum));
    let scaled = B::float_mul(softmax, grad.clone());
    let targets = B::int_reshape(targets, column);
    cast::<B>(B::float_scatter(1, scaled, targets, B::float_neg(grad), IndexingUpdateOp::Add), dtype)
}
