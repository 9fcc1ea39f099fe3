use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::cpu::{PARALLEL_THRESHOLD, all_f32, contiguous, rows_per_task, vectorised};
use super::{AdamwStep, primitive};

/// One pass over memory instead of a dozen, and no temporary of the parameter's size.
pub(super) fn adamw(
    value: FlexTensor,
    gradient: FlexTensor,
    mean: FlexTensor,
    mean_square: FlexTensor,
    step: AdamwStep,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    if !all_f32([&value, &gradient, &mean, &mean_square]) {
        return primitive::adamw::<Flex>(value, gradient, mean, mean_square, step);
    }
    let (mut value, gradient) = (contiguous(value), contiguous(gradient));
    let (mut mean, mut mean_square) = (contiguous(mean), contiguous(mean_square));
    let gradients = gradient.storage::<f32>();
    let values = value.storage_mut::<f32>();
    let (means, squares) = (mean.storage_mut::<f32>(), mean_square.storage_mut::<f32>());
    if gradients.len() < PARALLEL_THRESHOLD {
        step_all(values, gradients, means, squares, step);
    } else {
        let task = rows_per_task(1);
        let parts = values.par_chunks_mut(task).zip(gradients.par_chunks(task));
        let parts = parts.zip(means.par_chunks_mut(task)).zip(squares.par_chunks_mut(task));
        parts.for_each(|(((values, gradients), means), squares)| {
            step_all(values, gradients, means, squares, step);
        });
    }
    (value, mean, mean_square)
}

vectorised! {
    fn step_all(
        values: &mut [f32],
        gradients: &[f32],
        means: &mut [f32],
        squares: &mut [f32],
        step: AdamwStep,
    ) {
        let (beta1, rest1) = (step.beta1 as f32, (1.0 - step.beta1) as f32);
        let (beta2, rest2) = (step.beta2 as f32, (1.0 - step.beta2) as f32);
        let (eps, rate) = (step.eps as f32, step.rate as f32);
        let (correction, decay) = (step.correction as f32, step.decay as f32);
        let state = values.iter_mut().zip(means).zip(squares);
        for (((value, mean), square), &gradient) in state.zip(gradients) {
            *mean = *mean * beta1 + gradient * rest1;
            *square = *square * beta2 + gradient * gradient * rest2;
            *value = *value * decay - *mean / (square.sqrt() / correction + eps) * rate;
        }
    }
}
