//! One query a sequence, the step of generation: keys and values are read where they are, while a product would repack them.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorData};
use rayon::prelude::*;

use super::super::Outputs;
use super::forward::{SCORES, exponentials};
use super::view::{Dims, View, tile};
use crate::kernels::cpu::{PARALLEL_THRESHOLD, dot, mul_add, uninit, vectorised, written};

pub(super) fn forward(dims: &Dims, q: View<'_>, k: View<'_>, v: View<'_>) -> Outputs<Flex> {
    let &Dims { batch, s, heads, kv_heads, group, head_dim, .. } = dims;
    let mut output = vec![0.0f32; batch * heads * head_dim];
    let mut log_sum = uninit(batch * heads);
    let head = |(at, (output, log_sum)): (usize, (&mut [f32], &mut [MaybeUninit<f32>]))| {
        let (b, kv) = (at / kv_heads, at % kv_heads);
        SCORES.with_borrow_mut(|scores| {
            let seen = dims.visible(b, 0);
            let visible = seen.len();
            let scores = tile(scores, group * visible);
            let (keys, stride) = k.head(b, kv, seen.clone());
            for (g, scores) in scores.chunks_exact_mut(visible).enumerate() {
                score(q.row(b, 0, kv * group + g), keys, stride, dims.scale, scores);
            }
            for (scores, log_sum) in scores.chunks_exact_mut(visible).zip(log_sum) {
                let (largest, total) = exponentials(scores);
                scores.iter_mut().for_each(|score| *score /= total);
                log_sum.write(largest + total.ln());
            }
            let (values, stride) = v.head(b, kv, seen);
            mix(scores, values, stride, output);
        });
    };
    if batch * kv_heads * s * head_dim < PARALLEL_THRESHOLD {
        output.chunks_mut(group * head_dim).zip(log_sum.chunks_mut(group)).enumerate().for_each(head);
    } else {
        output.par_chunks_mut(group * head_dim).zip(log_sum.par_chunks_mut(group)).enumerate().for_each(head);
    }
    // SAFETY: the chunks cover all heads, and each is written.
    unsafe {
        Outputs {
            output: FlexTensor::from_data(TensorData::new(output, [batch, 1, heads, head_dim])),
            log_sum: written(log_sum, [batch, heads, 1]),
        }
    }
}

vectorised! {
    /// `scores[j] = scale * query . keys[j]`
    fn score(query: &[f32], keys: &[f32], stride: usize, scale: f32, scores: &mut [f32]) {
        for (score, key) in scores.iter_mut().zip(keys.chunks(stride)) {
            *score = scale * dot::<FMA>(query, &key[..query.len()]);
        }
    }
}

vectorised! {
    /// `output[g] = sum_j weights[g, j] values[j]`, starting from an output of zeros. A value is used for all heads of the group while
    /// it is in the cache.
    fn mix(weights: &[f32], values: &[f32], stride: usize, output: &mut [f32]) {
        let s = values.chunks(stride).len();
        let dim = output.len() / (weights.len() / s);
        for (j, value) in values.chunks(stride).enumerate() {
            for (weights, output) in weights.chunks_exact(s).zip(output.chunks_exact_mut(dim)) {
                let weight = weights[j];
                for (output, &value) in output.iter_mut().zip(value) {
                    *output = mul_add::<FMA>(weight, value, *output);
                }
            }
        }
    }
}
