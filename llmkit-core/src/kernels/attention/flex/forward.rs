use std::cell::RefCell;

use burn::backend::Flex;
use rayon::prelude::*;

use super::super::Outputs;
use super::view::{Dims, SharedOutput, View, only, tile};
use crate::kernels::cpu::{
    Destination, Matrix, Threads, exp, max, product, sum, uninit, vectorised, written,
};

thread_local! {
    /// The scores of a block; kept, so that each thread maps its pages once.
    pub(super) static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn forward(dims: &Dims, q: View<'_>, k: View<'_>, v: View<'_>) -> Outputs<Flex> {
    let &Dims { batch, t, heads, head_dim, .. } = dims;
    let mut output = uninit(batch * t * heads * head_dim);
    let mut log_sum = uninit(batch * heads * t);
    let shared = SharedOutput::new(output.as_mut_ptr().cast(), t, heads, head_dim);
    let block = dims.block();
    log_sum.par_chunks_mut(t).enumerate().for_each(|(at, log_sum)| {
        let (b, h) = (at / heads, at % heads);
        log_sum.par_chunks_mut(block).enumerate().for_each(|(index, log_sum)| {
            let first = index * block;
            let rows = log_sum.len();
            let seen = dims.seen_by(b, first, rows);
            let visible = seen.len();
            SCORES.with_borrow_mut(|scores| {
                let scores = tile(scores, rows * visible);
                let operands = (q.matrix(b, first, h), k.matrix(b, seen.start, h / dims.group).transposed());
                let target = (scores.as_mut_ptr(), visible);
                // SAFETY: the views hold `rows` queries from `first` on and the keys `seen`; the scores are this thread's.
                unsafe {
                    product(
                        [rows, visible, head_dim],
                        dims.scale,
                        operands,
                        target,
                        Destination::Overwrite,
                        Threads::One,
                    );
                }
                let mut scales = [0.0; 64];
                for (row, (scores, log_sum)) in scores.chunks_exact_mut(visible).zip(log_sum).enumerate() {
                    let (largest, total) =
                        exponentials(only(scores, dims.visible(b, first + row), seen.start));
                    scales[row] = 1.0 / total;
                    log_sum.write(largest + total.ln());
                }
                let operands =
                    (Matrix::new(scores.as_ptr(), visible), v.matrix(b, seen.start, h / dims.group));
                let target = shared.row(b, first, h);
                // SAFETY: the rows `first..first + rows` of head `h` are in the buffer and this task's alone.
                unsafe {
                    product(
                        [rows, head_dim, visible],
                        1.0,
                        operands,
                        target,
                        Destination::Overwrite,
                        Threads::One,
                    );
                }
                for (row, &scale) in scales[..rows].iter().enumerate() {
                    // SAFETY: as above, and the product has written them.
                    let values =
                        unsafe { std::slice::from_raw_parts_mut(target.0.add(row * target.1), head_dim) };
                    values.iter_mut().for_each(|value| *value *= scale);
                }
            });
        });
    });
    // SAFETY: the blocks cover all rows of all heads.
    let (output, log_sum) =
        unsafe { (written(output, [batch, t, heads, head_dim]), written(log_sum, [batch, heads, t])) };
    Outputs { output, log_sum }
}

vectorised! {
    /// Replaces scores by the exponentials of their distances from the largest; returns that and the sum.
    pub(super) fn exponentials(scores: &mut [f32]) -> (f32, f32) {
        let largest = max(scores);
        for score in scores.iter_mut() {
            *score = exp::<FMA>(*score - largest);
        }
        (largest, sum(scores, |score| score))
    }
}
