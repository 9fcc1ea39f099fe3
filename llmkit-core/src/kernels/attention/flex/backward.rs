use std::cell::RefCell;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::{InputGrads, Inputs, Outputs, Wanted};
use super::view::{Dims, SharedOutput, View, only, strided, tile};
use crate::kernels::cpu::{
    Destination, Matrix, Threads, contiguous, dot, exp, product, uninit, vectorised, written,
};

thread_local! {
    /// A block's weights and their gradients; kept, so that each thread maps its pages once.
    static TILES: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// The tensors of a call, for reading.
struct Operands<'a> {
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    output: View<'a>,
    grad: View<'a>,
    log_sum: &'a [f32],
}

/// Where the gradients go, as far as they are wanted.
#[derive(Clone, Copy)]
struct Targets {
    q: Option<SharedOutput>,
    k: Option<SharedOutput>,
    v: Option<SharedOutput>,
}

pub(super) fn backward(
    dims: &Dims,
    inputs: Inputs<Flex>,
    outputs: Outputs<Flex>,
    grad: FlexTensor,
    wanted: Wanted,
) -> InputGrads<Flex> {
    let &Dims { batch, t, s, heads, kv_heads, head_dim, .. } = dims;
    let tensors = [inputs.q, inputs.k, inputs.v, outputs.output, grad].map(strided);
    let [q, k, v, output, grad] = tensors.each_ref().map(View::new);
    let log_sum = contiguous(outputs.log_sum);
    let operands = Operands { q, k, v, output, grad, log_sum: log_sum.storage::<f32>() };

    let buffer = |wanted: bool, len: usize| wanted.then(|| uninit(len));
    let mut grad_q = buffer(wanted.q, batch * t * heads * head_dim);
    let mut grad_k = buffer(wanted.k, batch * s * kv_heads * head_dim);
    let mut grad_v = buffer(wanted.v, batch * s * kv_heads * head_dim);
    let shared = |buffer: &mut Option<Vec<_>>, positions, heads| {
        buffer.as_mut().map(|buffer: &mut Vec<std::mem::MaybeUninit<f32>>| {
            SharedOutput::new(buffer.as_mut_ptr().cast(), positions, heads, head_dim)
        })
    };
    let targets = Targets {
        q: shared(&mut grad_q, t, heads),
        k: shared(&mut grad_k, s, kv_heads),
        v: shared(&mut grad_v, s, kv_heads),
    };
    // A task owns a key head, so that its gradients are added up by one thread in one order.
    (0..batch * kv_heads).into_par_iter().for_each(|at| {
        key_head(dims, &operands, targets, at / kv_heads, at % kv_heads);
    });
    // SAFETY: `key_head` fills the gradients of its keys, values and queries, and the tasks cover all heads.
    let tensor = |buffer: Option<Vec<_>>, shape| buffer.map(|buffer| unsafe { written(buffer, shape) });
    InputGrads {
        q: tensor(grad_q, [batch, t, heads, head_dim]),
        k: tensor(grad_k, [batch, s, kv_heads, head_dim]),
        v: tensor(grad_v, [batch, s, kv_heads, head_dim]),
    }
}

/// With `p` the weights and `D = rowsum(grad * output)`: `dv = p^T grad`, `ds = p (grad v^T - D)`, `dq = scale ds k`,
/// `dk = scale ds^T q`, for one key head and the query heads that share it.
fn key_head(dims: &Dims, operands: &Operands<'_>, targets: Targets, b: usize, kv: usize) {
    let &Dims { t, s, heads, group, head_dim, scale, .. } = dims;
    let block = dims.block();
    // Where the last block sees all keys, it comes first and overwrites their gradients; the others add to them.
    let last = (t - 1) / block * block;
    let mut destination = if dims.seen_by(b, last, t - last) == (0..s) {
        Destination::Overwrite
    } else {
        for target in [targets.k, targets.v].into_iter().flatten() {
            for position in 0..s {
                // SAFETY: the rows of this key head are in the buffer and this task's alone.
                unsafe { target.row(b, position, kv).0.write_bytes(0, head_dim) };
            }
        }
        Destination::Accumulate
    };
    for first in (0..t).step_by(block).rev() {
        let rows = block.min(t - first);
        let seen = dims.seen_by(b, first, rows);
        let visible = seen.len();
        for head in kv * group..(kv + 1) * group {
            TILES.with_borrow_mut(|[weights, slopes]| {
                let weights = tile(weights, rows * visible);
                let slopes = tile(slopes, rows * visible);
                let [queries, grads] = [&operands.q, &operands.grad].map(|view| view.matrix(b, first, head));
                let [keys, values] = [&operands.k, &operands.v].map(|view| view.matrix(b, seen.start, kv));
                let needs_slopes = targets.q.is_some() || targets.k.is_some();
                // SAFETY: the views hold `rows` queries from `first` on and the keys `seen`, and the tiles are this thread's.
                unsafe {
                    let size = [rows, visible, head_dim];
                    let tile = (weights.as_mut_ptr(), visible);
                    product(
                        size,
                        scale,
                        (queries, keys.transposed()),
                        tile,
                        Destination::Overwrite,
                        Threads::One,
                    );
                    if needs_slopes {
                        let tile = (slopes.as_mut_ptr(), visible);
                        product(
                            size,
                            1.0,
                            (grads, values.transposed()),
                            tile,
                            Destination::Overwrite,
                            Threads::One,
                        );
                    }
                }
                let tiles = weights.chunks_exact_mut(visible).zip(slopes.chunks_exact_mut(visible));
                for (row, (weights, slopes)) in tiles.enumerate() {
                    let position = first + row;
                    let range = dims.visible(b, position);
                    let weights = only(weights, range.clone(), seen.start);
                    let slopes = only(slopes, range, seen.start);
                    let log_sum = operands.log_sum[(b * heads + head) * t + position];
                    let grad = operands.grad.row(b, position, head);
                    let output = operands.output.row(b, position, head);
                    softmax_backward(weights, slopes, log_sum, grad, output);
                }
                let weights = Matrix::new(weights.as_ptr(), visible);
                let slopes = Matrix::new(slopes.as_ptr(), visible);
                let size = [visible, head_dim, rows];
                // SAFETY: this task alone writes the rows of these query heads and of this key head; where it accumulates, the
                // buffer has been written before.
                unsafe {
                    if let Some(target) = targets.v {
                        product(
                            size,
                            1.0,
                            (weights.transposed(), grads),
                            target.row(b, seen.start, kv),
                            destination,
                            Threads::One,
                        );
                    }
                    if let Some(target) = targets.k {
                        product(
                            size,
                            scale,
                            (slopes.transposed(), queries),
                            target.row(b, seen.start, kv),
                            destination,
                            Threads::One,
                        );
                    }
                    if let Some(target) = targets.q {
                        let target = target.row(b, first, head);
                        let size = [rows, head_dim, visible];
                        product(size, scale, (slopes, keys), target, Destination::Overwrite, Threads::One);
                    }
                }
            });
            destination = Destination::Accumulate;
        }
    }
}

vectorised! {
    /// Replaces the scores of a query by its weights, and the gradients of the weights by those of the scores.
    fn softmax_backward(scores: &mut [f32], slopes: &mut [f32], log_sum: f32, grad: &[f32], output: &[f32]) {
        let delta = dot::<FMA>(grad, output);
        for (score, slope) in scores.iter_mut().zip(slopes) {
            let weight = exp::<FMA>(*score - log_sum);
            *score = weight;
            *slope = weight * (*slope - delta);
        }
    }
}
