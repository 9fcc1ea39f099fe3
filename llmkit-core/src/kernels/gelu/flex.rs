use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::cpu::{
    PARALLEL_THRESHOLD, all_f32, contiguous, exp, mul_add, rows_per_task, uninit, vectorised, written,
};
use super::{GeluKernel, primitive};

impl GeluKernel for Flex {
    fn forward(x: FlexTensor) -> FlexTensor {
        if !all_f32([&x]) {
            return primitive::forward::<Self>(x);
        }
        let x = contiguous(x);
        let shape = x.layout().shape().dims::<3>();
        let values = x.storage::<f32>();
        let mut output = uninit(values.len());
        let task = rows_per_task(1);
        if values.len() < PARALLEL_THRESHOLD {
            forward_all(values, &mut output);
        } else {
            let parts = output.par_chunks_mut(task).zip(values.par_chunks(task));
            parts.for_each(|(output, values)| forward_all(values, output));
        }
        // SAFETY: `forward_all` writes each element of its part, and the parts cover the buffer.
        unsafe { written(output, shape) }
    }

    fn backward(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
        if !all_f32([&x, &grad]) {
            return primitive::backward::<Self>(x, grad);
        }
        let (x, mut grad) = (contiguous(x), contiguous(grad));
        let task = rows_per_task(1);
        let (values, grads) = (x.storage::<f32>(), grad.storage_mut::<f32>());
        if values.len() < PARALLEL_THRESHOLD {
            backward_all(values, grads);
        } else {
            let parts = grads.par_chunks_mut(task).zip(values.par_chunks(task));
            parts.for_each(|(grads, values)| backward_all(values, grads));
        }
        grad
    }
}

/// `Phi(x)` and `exp(-x^2 / 2)`: the error function by formula 7.1.26 of Abramowitz and Stegun's handbook, to within 1.5e-7.
#[inline(always)]
fn distribution<const FMA: bool>(x: f32) -> (f32, f32) {
    let bell = exp::<FMA>(-0.5 * x * x);
    let t = 1.0 / mul_add::<FMA>(x.abs(), 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2, 1.0);
    let mut p = 1.061_405_4;
    p = mul_add::<FMA>(p, t, -1.453_152);
    p = mul_add::<FMA>(p, t, 1.421_413_8);
    p = mul_add::<FMA>(p, t, -0.284_496_74);
    p = mul_add::<FMA>(p, t, 0.254_829_6);
    // The tail on the side of x: half of 1 - erf(|x| / sqrt(2)).
    let tail = 0.5 * p * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

vectorised! {
    fn forward_all(x: &[f32], output: &mut [MaybeUninit<f32>]) {
        for (output, &x) in output.iter_mut().zip(x) {
            output.write(x * distribution::<FMA>(x).0);
        }
    }
}

vectorised! {
    /// Replaces the gradient of the output by that of the input.
    fn backward_all(x: &[f32], grad: &mut [f32]) {
        // 1 / sqrt(2 pi)
        const DENSITY: f32 = 0.398_942_3;
        for (grad, &x) in grad.iter_mut().zip(x) {
            let (below, bell) = distribution::<FMA>(x);
            *grad *= mul_add::<FMA>(x * DENSITY, bell, below);
        }
    }
}
