use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::cpu::{
    PARALLEL_THRESHOLD, all_f32, contiguous, mul_add, rows_per_task, sigmoid, uninit, vectorised, written,
};
use super::{SwigluKernel, primitive};

impl SwigluKernel for Flex {
    fn forward(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        if !all_f32([&gate, &up]) {
            return primitive::forward::<Self>(gate, up);
        }
        let (gate, up) = (contiguous(gate), contiguous(up));
        let shape = gate.layout().shape().dims::<3>();
        let (gate, up) = (gate.storage::<f32>(), up.storage::<f32>());
        let mut output = uninit(gate.len());
        let task = rows_per_task(1);
        if gate.len() < PARALLEL_THRESHOLD {
            forward_all(gate, up, &mut output);
        } else {
            let parts = output.par_chunks_mut(task).zip(gate.par_chunks(task)).zip(up.par_chunks(task));
            parts.for_each(|((output, gate), up)| forward_all(gate, up, output));
        }
        // SAFETY: `forward_all` writes each element of its part, and the parts cover the buffer.
        unsafe { written(output, shape) }
    }

    fn backward(gate: FlexTensor, up: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
        if !all_f32([&gate, &up, &grad]) {
            return primitive::backward::<Self>(gate, up, grad);
        }
        let (mut gate, up, mut grad) = (contiguous(gate), contiguous(up), contiguous(grad));
        let task = rows_per_task(1);
        let (gates, ups, grads) = (gate.storage_mut::<f32>(), up.storage::<f32>(), grad.storage_mut::<f32>());
        if ups.len() < PARALLEL_THRESHOLD {
            backward_all(gates, ups, grads);
        } else {
            let parts = gates.par_chunks_mut(task).zip(ups.par_chunks(task)).zip(grads.par_chunks_mut(task));
            parts.for_each(|((gate, up), grad)| backward_all(gate, up, grad));
        }
        (gate, grad)
    }
}

vectorised! {
    fn forward_all(gate: &[f32], up: &[f32], output: &mut [MaybeUninit<f32>]) {
        for ((output, &gate), &up) in output.iter_mut().zip(gate).zip(up) {
            output.write(gate * sigmoid::<FMA>(gate) * up);
        }
    }
}

vectorised! {
    /// Replaces `gate` by its gradient, and the gradient of the output by that of `up`.
    fn backward_all(gate: &mut [f32], up: &[f32], grad: &mut [f32]) {
        for ((gate, &up), grad) in gate.iter_mut().zip(up).zip(grad) {
            let s = sigmoid::<FMA>(*gate);
            let silu = *gate * s;
            *gate = *grad * up * mul_add::<FMA>(silu, 1.0 - s, s);
            *grad *= silu;
        }
    }
}
