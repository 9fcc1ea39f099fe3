use std::cell::RefCell;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::{InputGrads, Inputs, Outputs, Wanted};
use super::view::{Dims, SharedOutput, View, strided, tile};
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
    dims: Dims,
    inputs: Inputs<Flex>,
    outputs: Outputs<Flex>,
    grad: FlexTensor,
    wanted: Wanted,
) -> InputGrads<Flex> {
    let Dims { batch, t, s, heads, kv_heads, head_dim, .. } = dims;
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
fn key_head(dims: Dims, operands: &Operands<'_>, targets: Targets, b: usize, kv: usize) {
    let Dims { t, heads, group, head_dim, scale, .. } = dims;
    let block = dims.block();
    // The last block sees all keys, so it comes first and overwrites the gradients of keys and values; the others add to them.
    let mut destination = Destination::Overwrite;
    for first in (0..t).step_by(block).rev() {
        let rows = block.min(t - first);
        let visible = dims.visible(first + rows - 1);
        for head in kv * group..(kv + 1) * group {
            TILES.with_borrow_mut(|[weights, slopes]| {
                let weights = tile(weights, rows * visible);
                let slopes = tile(slopes, rows * visible);
                let [queries, grads] = [&operands.q, &operands.grad].map(|view| view.matrix(b, first, head));
                let [keys, values] = [&operands.k, &operands.v].map(|view| view.matrix(b, 0, kv));
                let needs_slopes = targets.q.is_some() || targets.k.is_some();
                // SAFETY: the views hold `rows` queries from `first` on and `visible` keys, and the tiles are this thread's.
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
                    let (seen, hidden) = weights.split_at_mut(dims.visible(position));
                    let (seen_slopes, hidden_slopes) = slopes.split_at_mut(seen.len());
                    hidden.fill(0.0);
                    hidden_slopes.fill(0.0);
                    let log_sum = operands.log_sum[(b * heads + head) * t + position];
                    let grad = operands.grad.row(b, position, head);
                    let output = operands.output.row(b, position, head);
                    softmax_backward(seen, seen_slopes, log_sum, grad, output);
                }
                let weights = Matrix::new(weights.as_ptr(), visible);
                let slopes = Matrix::new(slopes.as_ptr(), visible);
                let size = [visible, head_dim, rows];
                // SAFETY: this task alone writes the rows of these query heads and of this key head; where it accumulates, the
                // block that came first has written all of them.
                unsafe {
                    if let Some(target) = targets.v {
                        product(
                            size,
                            1.0,
                            (weights.transposed(), grads),
                            target.row(b, 0, kv),
                            destination,
                            Threads::One,
                        );
                    }
                    if let Some(target) = targets.k {
                        product(
                            size,
                            scale,
                            (slopes.transposed(), queries),
                            target.row(b, 0, kv),
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
