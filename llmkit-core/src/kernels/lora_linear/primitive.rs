use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Shape, TensorMetadata};

use super::{InputGrads, Inputs, Outputs, Wanted};

fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(x, 0, 1)
}

/// `[batch, seq, d]` to `[batch * seq, d]`.
fn rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    B::float_reshape(x, Shape::from([shape[0] * shape[1], shape[2]]))
}

pub(super) fn forward<B: Backend>(inputs: Inputs<B>) -> Outputs<B> {
    let shape = inputs.x.shape();
    let d_output = inputs.weight.shape()[0];
    let x = rows::<B>(inputs.x);
    let inner = B::float_matmul(x.clone(), transposed::<B>(inputs.a));
    let scaled = B::float_mul_scalar(inner.clone(), inputs.scale.into());
    let update = B::float_matmul(scaled, transposed::<B>(inputs.b));
    let output = B::float_add(B::float_matmul(x, transposed::<B>(inputs.weight)), update);
    Outputs { output: B::float_reshape(output, Shape::from([shape[0], shape[1], d_output])), inner }
}

// With e = scale * grad B: dx = grad W + e A, dA = e^T x, dB = scale * grad^T (x A^T).
pub(super) fn backward<B: Backend>(
    inputs: Inputs<B>,
    inner: FloatTensor<B>,
    grad: FloatTensor<B>,
    wanted: Wanted,
) -> InputGrads<B> {
    let shape = inputs.x.shape();
    let grad = rows::<B>(grad);
    let grad_b = wanted.b.then(|| {
        let inner = B::float_mul_scalar(inner, inputs.scale.into());
        B::float_matmul(transposed::<B>(grad.clone()), inner)
    });
    if !wanted.x && !wanted.a {
        return InputGrads { x: None, a: None, b: grad_b };
    }
    let e = B::float_mul_scalar(B::float_matmul(grad.clone(), inputs.b), inputs.scale.into());
    let grad_a = wanted.a.then(|| B::float_matmul(transposed::<B>(e.clone()), rows::<B>(inputs.x)));
    let grad_x = wanted.x.then(|| {
        let sum = B::float_add(B::float_matmul(grad, inputs.weight), B::float_matmul(e, inputs.a));
        B::float_reshape(sum, shape)
    });
    InputGrads { x: grad_x, a: grad_a, b: grad_b }
}
