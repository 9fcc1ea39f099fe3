use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::super::compose::{cast, sigmoid, widen};

pub(super) fn forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let gate = widen::<B>(gate);
    let silu = B::float_mul(gate.clone(), sigmoid::<B>(gate));
    B::float_mul(cast::<B>(silu, dtype), up)
}

// With s = sigmoid(gate): silu' = s (1 + gate (1 - s)).
pub(super) fn backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = gate.dtype();
    let (gate, up, grad) = (widen::<B>(gate), widen::<B>(up), widen::<B>(grad));
    let s = sigmoid::<B>(gate.clone());
    let silu = B::float_mul(gate, s.clone());
    // gate s (1 - s) = silu - silu s, so silu' = s + silu - silu s.
    let slope = B::float_sub(B::float_add(s.clone(), silu.clone()), B::float_mul(silu.clone(), s));
    let grad_gate = B::float_mul(B::float_mul(grad.clone(), up), slope);
    let grad_up = B::float_mul(grad, silu);
    (cast::<B>(grad_gate, dtype), cast::<B>(grad_up, dtype))
}
