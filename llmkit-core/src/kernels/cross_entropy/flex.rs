use burn::backend::flex::FlexTensor;
use burn::backend::{DType, Element, Flex, TensorData};
use rayon::prelude::*;

use super::super::cpu::{all_f32, contiguous, exp, max, sum, vectorised};
use super::{CrossEntropyKernel, primitive};

/// Terms that are added in single precision before their sum joins a double: a vocabulary is too long for one `f32` sum.
const PARTIAL_SUM: usize = 4096;

impl CrossEntropyKernel for Flex {
    fn forward(logits: FlexTensor, targets: FlexTensor) -> (FlexTensor, FlexTensor) {
        let Some(indices) = indices(&targets).filter(|_| all_f32([&logits])) else {
            return primitive::forward::<Self>(logits, targets);
        };
        let logits = contiguous(logits);
        let [rows, vocab] = logits.layout().shape().dims::<2>();
        check(&indices, vocab);
        let (loss, log_sum): (Vec<f32>, Vec<f32>) = logits
            .storage::<f32>()
            .par_chunks(vocab.max(1))
            .zip(&indices)
            .map(|(row, &target)| {
                let log_sum = log_sum_exp(row);
                (log_sum - row[target], log_sum)
            })
            .unzip();
        let vector = |values| FlexTensor::from_data(TensorData::new(values, [rows]));
        (vector(loss), vector(log_sum))
    }

    fn backward(
        logits: FlexTensor,
        targets: FlexTensor,
        log_sum: FlexTensor,
        grad: FlexTensor,
    ) -> FlexTensor {
        let Some(indices) = indices(&targets).filter(|_| all_f32([&logits, &log_sum, &grad])) else {
            return primitive::backward::<Self>(logits, targets, log_sum, grad);
        };
        let (mut logits, log_sum, grad) = (contiguous(logits), contiguous(log_sum), contiguous(grad));
        let [_, vocab] = logits.layout().shape().dims::<2>();
        logits
            .storage_mut::<f32>()
            .par_chunks_mut(vocab.max(1))
            .zip(&indices)
            .zip(log_sum.storage::<f32>())
            .zip(grad.storage::<f32>())
            .for_each(|(((row, &target), &log_sum), &grad)| {
                if grad == 0.0 {
                    row.fill(0.0);
                } else {
                    softmax_times(row, log_sum, grad);
                    row[target] -= grad;
                }
            });
        logits
    }
}

/// The targets as indices, if their type is one of the two that models use. A negative one becomes a huge one.
fn indices(targets: &FlexTensor) -> Option<Vec<usize>> {
    fn read<E: Element + bytemuck::Pod>(targets: &FlexTensor, index: impl Fn(E) -> usize) -> Vec<usize> {
        contiguous(targets.clone()).storage::<E>().iter().map(|&value| index(value)).collect()
    }
    match targets.dtype() {
        DType::I64 => Some(read::<i64>(targets, |value| value as usize)),
        DType::I32 => Some(read::<i32>(targets, |value| value as usize)),
        _ => None,
    }
}

fn check(targets: &[usize], vocab: usize) {
    if let Some((row, &target)) = targets.iter().enumerate().find(|&(_, &target)| target >= vocab) {
        panic!("cross_entropy: target {} of row {row} is not in 0..{vocab}", target as isize);
    }
}

vectorised! {
    fn log_sum_exp(row: &[f32]) -> f32 {
        let largest = max(row);
        // All logits minus infinity, or one infinite: the difference below would be NaN where the answer is not.
        if largest.is_infinite() {
            return largest;
        }
        // A loop, since a chain of iterators may be compiled as a function of its own, without the vector instructions.
        let mut total = 0.0f64;
        for part in row.chunks(PARTIAL_SUM) {
            total += f64::from(sum(part, |logit| exp::<FMA>(logit - largest)));
        }
        largest + total.ln() as f32
    }
}

vectorised! {
    fn softmax_times(row: &mut [f32], log_sum: f32, factor: f32) {
        for value in row {
            *value = exp::<FMA>(*value - log_sum) * factor;
        }
    }
}
