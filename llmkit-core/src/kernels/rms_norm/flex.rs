use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::cpu::{
    PARALLEL_THRESHOLD, all_f32, contiguous, dot, dot3, mul_add, rows_per_task, uninit, vectorised, written,
};
use super::{RmsNormKernel, primitive};

/// Rows whose products are added up by one task of [`grad_weight`](RmsNormKernel::grad_weight): fixed, for the sum's order.
const WEIGHT_ROWS: usize = 64;

impl RmsNormKernel for Flex {
    fn forward(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
        if !all_f32([&x, &weight]) {
            return primitive::forward::<Self>(x, weight, eps);
        }
        let (x, weight) = (contiguous(x), contiguous(weight));
        let shape = x.layout().shape().dims::<3>();
        let (values, weight) = (x.storage::<f32>(), weight.storage::<f32>());
        let mut output = uninit(values.len());
        let task = rows_per_task(weight.len()) * weight.len();
        if values.len() < PARALLEL_THRESHOLD {
            forward_rows(values, weight, eps as f32, &mut output);
        } else {
            output
                .par_chunks_mut(task)
                .zip(values.par_chunks(task))
                .for_each(|(output, values)| forward_rows(values, weight, eps as f32, output));
        }
        // SAFETY: `forward_rows` writes each element of its rows, and the tasks cover all rows.
        unsafe { written(output, shape) }
    }

    fn grad_x(x: FlexTensor, weight: FlexTensor, grad: FlexTensor, eps: f64) -> FlexTensor {
        if !all_f32([&x, &weight, &grad]) {
            return primitive::grad_x::<Self>(x, weight, grad, eps);
        }
        let (x, weight, mut grad) = (contiguous(x), contiguous(weight), contiguous(grad));
        let (values, weight) = (x.storage::<f32>(), weight.storage::<f32>());
        let task = rows_per_task(weight.len()) * weight.len();
        let output = grad.storage_mut::<f32>();
        if values.len() < PARALLEL_THRESHOLD {
            grad_rows(values, weight, eps as f32, output);
        } else {
            output
                .par_chunks_mut(task)
                .zip(values.par_chunks(task))
                .for_each(|(output, values)| grad_rows(values, weight, eps as f32, output));
        }
        grad
    }

    fn grad_weight(x: FlexTensor, grad: FlexTensor, eps: f64) -> FlexTensor {
        if !all_f32([&x, &grad]) {
            return primitive::grad_weight::<Self>(x, grad, eps);
        }
        let (x, grad) = (contiguous(x), contiguous(grad));
        let [_, _, width] = x.layout().shape().dims::<3>();
        let task = (WEIGHT_ROWS * width).max(1);
        let partial: Vec<Vec<f32>> = x
            .storage::<f32>()
            .par_chunks(task)
            .zip(grad.storage::<f32>().par_chunks(task))
            .map(|(x, grad)| {
                let mut total = vec![0.0; width];
                weight_rows(x, grad, eps as f32, &mut total);
                total
            })
            .collect();
        let mut total = vec![0.0f32; width];
        for part in &partial {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
        FlexTensor::from_data(burn::backend::TensorData::new(total, [width]))
    }
}

#[inline(always)]
fn inverse_rms<const FMA: bool>(row: &[f32], eps: f32) -> f32 {
    let squares = dot::<FMA>(row, row);
    1.0 / (squares / row.len() as f32 + eps).sqrt()
}

vectorised! {
    fn forward_rows(x: &[f32], weight: &[f32], eps: f32, output: &mut [MaybeUninit<f32>]) {
        for (row, output) in x.chunks_exact(weight.len()).zip(output.chunks_exact_mut(weight.len())) {
            let scale = inverse_rms::<FMA>(row, eps);
            for ((output, &x), &weight) in output.iter_mut().zip(row).zip(weight) {
                output.write(x * scale * weight);
            }
        }
    }
}

vectorised! {
    /// Replaces the gradient of the output by that of the input.
    fn grad_rows(x: &[f32], weight: &[f32], eps: f32, grad: &mut [f32]) {
        let width = weight.len();
        for (row, grad) in x.chunks_exact(width).zip(grad.chunks_exact_mut(width)) {
            let scale = inverse_rms::<FMA>(row, eps);
            let dot = dot3::<FMA>(grad, weight, row);
            let shrink = -dot * scale * scale / width as f32;
            for ((grad, &x), &weight) in grad.iter_mut().zip(row).zip(weight) {
                *grad = scale * mul_add::<FMA>(x, shrink, *grad * weight);
            }
        }
    }
}

vectorised! {
    fn weight_rows(x: &[f32], grad: &[f32], eps: f32, total: &mut [f32]) {
        let width = total.len();
        for (row, grad) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
            let scale = inverse_rms::<FMA>(row, eps);
            for ((total, &x), &grad) in total.iter_mut().zip(row).zip(grad) {
                *total = mul_add::<FMA>(x * scale, grad, *total);
            }
        }
    }
}
