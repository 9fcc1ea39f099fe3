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
        let [_, _, heads, head_dim] = x.layout().shape().dims::<4>();
        let half = cos.layout().shape()[2];
        let (cos, sin) = (cos.storage::<f32>(), sin.storage::<f32>());
        let sign = match direction {
            Direction::Forward => 1.0,
            Direction::Back => -1.0,
        };
        let width = heads * head_dim;
        if x.layout().num_elements() == 0 || half == 0 {
            return x;
        }
        let positions = rows_per_task(width);
        let values = x.storage_mut::<f32>();
        if values.len() < PARALLEL_THRESHOLD {
            rotate_positions(values, [width, head_dim, half], 0, cos, sin, sign);
        } else {
            values.par_chunks_mut(positions * width).enumerate().for_each(|(task, values)| {
                rotate_positions(values, [width, head_dim, half], task * positions, cos, sin, sign);
            });
        }
        x
    }
}

vectorised! {
    /// Rotates whole positions of `width` elements, the first of them being number `start` of the batch. The tables hold the angles
    /// of one sequence for all, or of all positions of the batch.
    fn rotate_positions(
        values: &mut [f32],
        sizes: [usize; 3],
        start: usize,
        cos: &[f32],
        sin: &[f32],
        sign: f32,
    ) {
        let [width, head_dim, half] = sizes;
        let positions = cos.len() / half;
        for (offset, values) in values.chunks_exact_mut(width).enumerate() {
            let position = (start + offset) % positions;
            let cos = &cos[position * half..][..half];
            let sin = &sin[position * half..][..half];
            for head in values.chunks_exact_mut(head_dim) {
                let (low, high) = head[..2 * half].split_at_mut(half);
                for (((low, high), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let sin = sin * sign;
                    (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
                }
            }
        }
    }
}
