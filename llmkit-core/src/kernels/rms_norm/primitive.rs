use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Shape, TensorMetadata};

use super::super::compose::{cast, square, widen};

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = widen::<B>(x);
    let scale = inverse_rms::<B>(x.clone(), eps);
    B::float_mul(cast::<B>(B::float_mul(x, scale), dtype), cast::<B>(row::<B>(weight), dtype))
}

// With r = 1 / rms(x) and h = grad * weight: dx = r h - x r^3 mean(h x).
pub(super) fn grad_x<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = widen::<B>(x);
    let scale = inverse_rms::<B>(x.clone(), eps);
    let normed = B::float_mul(x, scale.clone());
    let h = B::float_mul(widen::<B>(grad), cast::<B>(row::<B>(weight), normed.dtype()));
    let mean = B::float_mean_dim(B::float_mul(h.clone(), normed.clone()), 2);
    let grad_x = B::float_mul(B::float_sub(h, B::float_mul(normed, mean)), scale);
    cast::<B>(grad_x, dtype)
}

pub(super) fn grad_weight<B: Backend>(x: FloatTensor<B>, grad: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let dtype = x.dtype();
    let shape = x.shape();
    let x = widen::<B>(x);
    let scale = inverse_rms::<B>(x.clone(), eps);
    let product = B::float_mul(B::float_mul(x, scale), widen::<B>(grad));
    let rows = B::float_reshape(product, Shape::from([shape[0] * shape[1], shape[2]]));
    cast::<B>(B::float_reshape(B::float_sum_dim(rows, 0), Shape::from([shape[2]])), dtype)
}

fn inverse_rms<B: Backend>(x: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let mean = B::float_mean_dim(square::<B>(x), 2);
    B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())))
}

fn row<B: Backend>(weight: FloatTensor<B>) -> FloatTensor<B> {
    let length = weight.shape()[0];
    B::float_reshape(weight, Shape::from([1, 1, length]))
}
