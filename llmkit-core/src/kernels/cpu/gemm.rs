//! Matrix products of strided views, for bodies that cut their operands into tiles themselves.

use gemm::Parallelism;

/// A matrix in memory: element `(i, j)` is `rows * i + columns * j` elements behind `start`.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Matrix {
    pub(in crate::kernels) start: *const f32,
    pub(in crate::kernels) rows: usize,
    pub(in crate::kernels) columns: usize,
}

impl Matrix {
    /// A matrix whose rows lie `stride` elements apart.
    pub(in crate::kernels) fn new(start: *const f32, stride: usize) -> Self {
        Self { start, rows: stride, columns: 1 }
    }

    pub(in crate::kernels) fn transposed(self) -> Self {
        Self { start: self.start, rows: self.columns, columns: self.rows }
    }
}

/// What becomes of the values that the destination holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::kernels) enum Destination {
    /// They are overwritten and never read.
    Overwrite,
    /// The product is added to them.
    Accumulate,
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::kernels) enum Threads {
    /// The calling thread.
    One,
    /// Those of rayon's pool.
    All,
}

/// `c = factor * a b`, or `c += factor * a b`, with `a` `[m, k]`, `b` `[k, n]` and `c` `[m, n]`; the rows of `c` are `c.1` apart.
///
/// The kernels fill their registers along the columns of `c`. Still a thin product of few columns is better taken as it is than
/// transposed, where the large factor would be packed for it.
///
/// # Safety
/// The three matrices must lie within allocations, no element of `c` twice or in `a` or `b`, and nobody else may access `c` meanwhile.
/// The elements of `a` and `b`, and those of `c` if accumulating, must be initialised.
pub(in crate::kernels) unsafe fn product(
    [m, n, k]: [usize; 3],
    factor: f32,
    (a, b): (Matrix, Matrix),
    c: (*mut f32, usize),
    destination: Destination,
    threads: Threads,
) {
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: passed on to the caller; strides of one allocation fit `isize`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.0,
            1,
            c.1 as isize,
            destination == Destination::Accumulate,
            a.start,
            a.columns as isize,
            a.rows as isize,
            b.start,
            b.columns as isize,
            b.rows as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}
