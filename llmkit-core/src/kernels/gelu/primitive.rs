use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::super::compose::{cast, square, widen};

pub(super) fn forward<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = widen::<B>(x);
    cast::<B>(B::float_mul(x.clone(), distribution::<B>(x)), dtype)
}

// Phi(x) + x phi(x), with the normal density phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
pub(super) fn backward<B: Backend>(x: FloatTensor<B>, grad: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (x, grad) = (widen::<B>(x), widen::<B>(grad));
    let density = B::float_exp(B::float_mul_scalar(square::<B>(x.clone()), (-0.5).into()));
    let density = B::float_mul_scalar(density, TAU.powf(-0.5).into());
    let slope = B::float_add(distribution::<B>(x.clone()), B::float_mul(x, density));
    cast::<B>(B::float_mul(grad, slope), dtype)
}

fn distribution<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(x, FRAC_1_SQRT_2.into()));
    B::float_mul_scalar(B::float_add_scalar(erf, 1.0.into()), 0.5.into())
}
