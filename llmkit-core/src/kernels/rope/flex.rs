use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::cpu::{PARALLEL_THRESHOLD, all_f32, contiguous, rows_per_task, vectorised};
use super::{Direction, RopeKernel, primitive};

impl RopeKernel for Flex {
    fn rotate(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, direction: Direction) -> FlexTensor {
        if !all_f32([&x, &cos, &sin]) {
            return primitive::rotate::<Self>(x, cos, sin, direction);
        }
        let (mut x, cos, sin) = (contiguous(x), contiguous(cos), contiguous(sin));
        let [_, seq, heads, head_dim] = x.layout().shape().dims::<4>();
        let (cos, sin) = (cos.storage::<f32>(), sin.storage::<f32>());
        let sign = match direction {
            Direction::Forward => 1.0,
            Direction::Back => -1.0,
        };
        let (width, half) = (heads * head_dim, head_dim / 2);
        if x.layout().num_elements() == 0 {
            return x;
        }
        let positions = rows_per_task(width);
        let values = x.storage_mut::<f32>();
        if values.len() < PARALLEL_THRESHOLD {
            rotate_positions(values, width, half, 0, cos, sin, sign);
        } else {
            values.par_chunks_mut(positions * width).enumerate().for_each(|(task, values)| {
                rotate_positions(values, width, half, task * positions % seq, cos, sin, sign);
            });
        }
        x
    }
}

vectorised! {
    /// Rotates whole positions of `width` elements, the first of them being `start` in its sequence.
    fn rotate_positions(values: &mut [f32], width: usize, half: usize, start: usize, cos: &[f32], sin: &[f32], sign: f32) {
        let seq = cos.len() / half;
        for (offset, values) in values.chunks_exact_mut(width).enumerate() {
            let position = (start + offset) % seq;
            let cos = &cos[position * half..][..half];
            let sin = &sin[position * half..][..half];
            for head in values.chunks_exact_mut(2 * half) {
                let (low, high) = head.split_at_mut(half);
                for (((low, high), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let sin = sin * sign;
                    (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
                }
            }
        }
    }
}
