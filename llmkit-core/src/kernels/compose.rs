//! What the composed bodies share.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DType, FloatDType, TensorMetadata};

/// Casts half precision to `f32`, in which sums and exponentials are taken; leaves `f32` and `f64` alone.
pub(super) fn widen<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    match x.dtype() {
        DType::F32 | DType::F64 => x,
        _ => B::float_cast(x, FloatDType::F32),
    }
}

/// Casts to `dtype` unless it is that already.
pub(super) fn cast<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, dtype.into()) }
}

/// `x * x`.
pub(super) fn square<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul(x.clone(), x)
}

/// The logistic function, from operations that every backend has.
pub(super) fn sigmoid<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_recip(B::float_add_scalar(B::float_exp(B::float_neg(x)), 1.0.into()))
}
