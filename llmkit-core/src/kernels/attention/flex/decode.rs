//! One query a sequence: the step of generation. There is no product to block, only keys and values to be read once.

use burn::backend::Flex;
use rayon::prelude::*;

use super::super::Outputs;
use super::forward::exponentials;
use super::view::{Dims, View};
use crate::kernels::cpu::{PARALLEL_THRESHOLD, mul_add, sum, uninit, vectorised, written};

pub(super) fn forward(dims: Dims, q: View<'_>, k: View<'_>, v: View<'_>) -> Outputs<Flex> {
    let Dims { batch, s, heads, kv_heads, group, head_dim, .. } = dims;
    let mut output = vec![0.0f32; batch * heads * head_dim];
    let mut log_sum = uninit(batch * heads);
    let head = |(at, (output, log_sum)): (usize, (&mut [f32], &mut [_]))| {
        let (b, kv) = (at / kv_heads, at % kv_heads);
        let queries: Vec<&[f32]> = (0..group).map(|g| q.row(b, 0, kv * group + g)).collect();
        let mut weights = vec![0.0; group * s];
        let (keys, key_stride) = k.head(b, kv);
        score(&queries, keys, key_stride, dims.scale, &mut weights);
        let scales: Vec<f32> = weights
            .chunks_exact_mut(s)
            .zip(log_sum)
            .map(|(weights, log_sum): (_, &mut std::mem::MaybeUninit<f32>)| {
                let (largest, total) = exponentials(weights);
                log_sum.write(largest + total.ln());
                1.0 / total
            })
            .collect();
        let (values, value_stride) = v.head(b, kv);
        mix(&weights, &scales, values, value_stride, output);
    };
    if batch * kv_heads * s * head_dim < PARALLEL_THRESHOLD {
        output.chunks_mut(group * head_dim).zip(log_sum.chunks_mut(group)).enumerate().for_each(head);
    } else {
        output.par_chunks_mut(group * head_dim).zip(log_sum.par_chunks_mut(group)).enumerate().for_each(head);
    }
    let output = burn::backend::TensorData::new(output, [batch, 1, heads, head_dim]);
    // SAFETY: each head's chunk is written.
    Outputs {
        output: burn::backend::flex::FlexTensor::from_data(output),
        log_sum: unsafe { written(log_sum, [batch, heads, 1]) },
    }
}

vectorised! {
    /// `weights[g, j] = scale * queries[g] . keys[j]`
    fn score(queries: &[&[f32]], keys: &[f32], stride: usize, scale: f32, weights: &mut [f32]) {
        let (s, dim) = (weights.len() / queries.len(), queries[0].len());
        for j in 0..s {
            let key = &keys[j * stride..][..dim];
            for (g, query) in queries.iter().enumerate() {
                let query = &query[..dim];
                weights[g * s + j] = scale * sum(dim, |i| query[i] * key[i]);
            }
        }
    }
}

vectorised! {
    /// `output[g] = scales[g] * sum_j weights[g, j] values[j]`, starting from an output of zeros.
    fn mix(weights: &[f32], scales: &[f32], values: &[f32], stride: usize, output: &mut [f32]) {
        let (s, dim) = (weights.len() / scales.len(), output.len() / scales.len());
        for j in 0..s {
            let value = &values[j * stride..][..dim];
            for (g, output) in output.chunks_exact_mut(dim).enumerate() {
                let weight = weights[g * s + j];
                for (output, &value) in output.iter_mut().zip(value) {
                    *output = mul_add::<FMA>(weight, value, *output);
                }
            }
        }
        for (output, &scale) in output.chunks_exact_mut(dim).zip(scales) {
            output.iter_mut().for_each(|output| *output *= scale);
        }
    }
}
