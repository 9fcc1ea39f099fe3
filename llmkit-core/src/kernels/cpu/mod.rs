//! What the CPU bodies share: vector instructions chosen at run time, buffers, and how work is split.
//!
//! Work is split at places that depend on shapes only and sums are taken in a fixed order, so that results are the same from run to
//! run whatever the number of threads.

mod buffer;
mod exp;
mod gemm;
mod simd;

pub(super) use buffer::{all_f32, contiguous, uninit, written};
pub(super) use exp::{exp, sigmoid};
pub(super) use gemm::{Destination, Matrix, Threads, product};
pub(super) use simd::{dot, dot3, max, mul_add, sum, vectorised};

/// Elements below which splitting among threads costs more than it gains.
pub(super) const PARALLEL_THRESHOLD: usize = 1 << 15;

/// How many rows of `width` elements make a task: about 16 Ki elements, which stay in the first two cache levels.
pub(super) fn rows_per_task(width: usize) -> usize {
    ((1 << 14) / width.max(1)).max(1)
}
