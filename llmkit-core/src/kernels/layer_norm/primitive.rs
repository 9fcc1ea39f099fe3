use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Shape, TensorMetadata};

use super::super::compose::{cast, square, widen};

pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normed, _) = normalise::<B>(widen::<B>(x), eps);
    let scaled = B::float_mul(cast::<B>(normed, dtype), cast::<B>(row::<B>(weight), dtype));
    B::float_add(scaled, cast::<B>(row::<B>(bias), dtype))
}

// With r = 1 / sqrt(var(x) + eps), n = (x - mean(x)) r and h = grad * weight: dx = r (h - mean(h) - n mean(h n)).
pub(super) fn grad_x<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normed, scale) = normalise::<B>(widen::<B>(x), eps);
    let h = B::float_mul(widen::<B>(grad), cast::<B>(row::<B>(weight), normed.dtype()));
    let along = B::float_mean_dim(B::float_mul(h.clone(), normed.clone()), 2);
    let centred = B::float_sub(h.clone(), B::float_mean_dim(h, 2));
    let grad_x = B::float_mul(B::float_sub(centred, B::float_mul(normed, along)), scale);
    cast::<B>(grad_x, dtype)
}

pub(super) fn grad_weight<B: Backend>(x: FloatTensor<B>, grad: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normed, _) = normalise::<B>(widen::<B>(x), eps);
    cast::<B>(grad_bias::<B>(B::float_mul(normed, widen::<B>(grad))), dtype)
}

/// The sum over all positions.
pub(super) fn grad_bias<B: Backend>(grad: FloatTensor<B>) -> FloatTensor<B> {
    let (dtype, shape) = (grad.dtype(), grad.shape());
    let rows = B::float_reshape(widen::<B>(grad), Shape::from([shape[0] * shape[1], shape[2]]));
    cast::<B>(B::float_reshape(B::float_sum_dim(rows, 0), Shape::from([shape[2]])), dtype)
}

/// `x` at mean 0 and variance 1, and what it was multiplied by.
fn normalise<B: Backend>(x: FloatTensor<B>, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let centred = B::float_sub(x.clone(), B::float_mean_dim(x, 2));
    let variance = B::float_mean_dim(square::<B>(centred.clone()), 2);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, eps.into())));
    (B::float_mul(centred, scale.clone()), scale)
}

fn row<B: Backend>(weight: FloatTensor<B>) -> FloatTensor<B> {
    let length = weight.shape()[0];
    B::float_reshape(weight, Shape::from([1, 1, length]))
}
