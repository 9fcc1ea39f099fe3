use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::cpu::{
    PARALLEL_THRESHOLD, all_f32, contiguous, dot, dot3, mul_add, rows_per_task, sum, uninit, vectorised,
    written,
};
use super::{LayerNormKernel, primitive};

/// Rows whose products are added up by one task of [`grad_weight`](LayerNormKernel::grad_weight): fixed, for the sum's order.
const WEIGHT_ROWS: usize = 64;

impl LayerNormKernel for Flex {
    fn forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, eps: f64) -> FlexTensor {
        if !all_f32([&x, &weight, &bias]) {
            return primitive::forward::<Self>(x, weight, bias, eps);
        }
        let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
        let shape = x.layout().shape().dims::<3>();
        let (values, weight, bias) = (x.storage::<f32>(), weight.storage::<f32>(), bias.storage::<f32>());
        let mut output = uninit(values.len());
        let task = rows_per_task(weight.len()) * weight.len();
        if values.len() < PARALLEL_THRESHOLD {
            forward_rows(values, weight, bias, eps as f32, &mut output);
        } else {
            output
                .par_chunks_mut(task)
                .zip(values.par_chunks(task))
                .for_each(|(output, values)| forward_rows(values, weight, bias, eps as f32, output));
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

/// The mean of a row, and one over its standard deviation.
#[inline(always)]
fn statistics<const FMA: bool>(row: &[f32], eps: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = sum(row, |x| x) / width;
    // Around the mean, not the mean square less its square: that would cancel.
    let variance = sum(row, |x| (x - mean) * (x - mean)) / width;
    (mean, 1.0 / (variance + eps).sqrt())
}

vectorised! {
    fn forward_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, output: &mut [MaybeUninit<f32>]) {
        for (row, output) in x.chunks_exact(weight.len()).zip(output.chunks_exact_mut(weight.len())) {
            let (mean, scale) = statistics::<FMA>(row, eps);
            for (((output, &x), &weight), &bias) in output.iter_mut().zip(row).zip(weight).zip(bias) {
                output.write(mul_add::<FMA>((x - mean) * scale, weight, bias));
            }
        }
    }
}

vectorised! {
    /// Replaces the gradient of the output by that of the input.
    fn grad_rows(x: &[f32], weight: &[f32], eps: f32, grad: &mut [f32]) {
        let width = weight.len();
        for (row, grad) in x.chunks_exact(width).zip(grad.chunks_exact_mut(width)) {
            let (mean, scale) = statistics::<FMA>(row, eps);
            let total = dot::<FMA>(grad, weight);
            // What h = grad * weight has along n = (x - mean) * scale.
            let along = (dot3::<FMA>(grad, weight, row) - mean * total) * scale / width as f32;
            let shift = total / width as f32;
            for ((grad, &x), &weight) in grad.iter_mut().zip(row).zip(weight) {
                let normed = (x - mean) * scale;
                *grad = scale * (mul_add::<FMA>(*grad, weight, -shift) - normed * along);
            }
        }
    }
}

vectorised! {
    fn weight_rows(x: &[f32], grad: &[f32], eps: f32, total: &mut [f32]) {
        let width = total.len();
        for (row, grad) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
            let (mean, scale) = statistics::<FMA>(row, eps);
            for ((total, &x), &grad) in total.iter_mut().zip(row).zip(grad) {
                *total = mul_add::<FMA>((x - mean) * scale, grad, *total);
            }
        }
    }
}
