use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::super::{AttentionOptions, Inputs};
use crate::kernels::cpu::{Matrix, contiguous};

/// The sizes of one call, and who sees what.
#[derive(Clone)]
pub(super) struct Dims {
    pub(super) batch: usize,
    /// Queries.
    pub(super) t: usize,
    /// Keys.
    pub(super) s: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Query heads that share a key head.
    pub(super) group: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f32,
    options: AttentionOptions,
}

impl Dims {
    pub(super) fn of(inputs: &Inputs<Flex>) -> Self {
        let [batch, t, heads, head_dim] = inputs.q.layout().shape().dims();
        let [_, s, kv_heads, _] = inputs.k.layout().shape().dims();
        let options = inputs.options.clone();
        let scale = options.scale as f32;
        Self { batch, t, s, heads, kv_heads, group: heads / kv_heads, head_dim, scale, options }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batch * self.t * self.heads * self.head_dim == 0
    }

    /// The keys that query `i` of sequence `b` sees.
    pub(super) fn visible(&self, b: usize, i: usize) -> Range<usize> {
        self.options.visible(b, i, [self.t, self.s])
    }

    /// The keys that any of the `rows` queries from `first` on sees.
    pub(super) fn seen_by(&self, b: usize, first: usize, rows: usize) -> Range<usize> {
        self.visible(b, first).start..self.visible(b, first + rows - 1).end
    }

    /// Queries of a block: as many as keep its scores within a megabyte, 16 to 64. It depends on the shapes only.
    pub(super) fn block(&self) -> usize {
        ((1 << 18) / self.s).clamp(16, 64)
    }
}

/// The tensor if each head's values lie together and its positions apart, which is all that the bodies ask for, otherwise a copy of
/// which that is true.
pub(super) fn strided(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    let [_, positions, _, head_dim] = layout.shape().dims::<4>();
    let strides = layout.strides();
    let apart = positions == 1 || strides[1] >= head_dim as isize;
    if strides[3] == 1 && apart && strides.iter().all(|&stride| stride >= 0) {
        tensor
    } else {
        contiguous(tensor)
    }
}

/// The first `len` elements of a buffer that grows as needed.
pub(super) fn tile(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// The part of a tile's row that belongs to the keys `visible`, where the tile's first column is key `start`; the rest becomes 0.
pub(super) fn only(row: &mut [f32], visible: Range<usize>, start: usize) -> &mut [f32] {
    let (before, rest) = row.split_at_mut(visible.start - start);
    let (seen, after) = rest.split_at_mut(visible.len());
    before.fill(0.0);
    after.fill(0.0);
    seen
}

/// `[batch, positions, heads, head_dim]` in memory, the last dimension dense.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    strides: [usize; 3],
    head_dim: usize,
}

impl<'a> View<'a> {
    /// # Panics
    /// If the tensor is not [`strided`].
    pub(super) fn new(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let [batch, positions, heads, head_dim] = layout.shape().dims::<4>();
        let strides: Vec<usize> = layout.strides().iter().map(|&stride| stride as usize).collect();
        assert_eq!(strides[3], 1, "the last dimension must be dense");
        let values = &tensor.storage::<f32>()[layout.start_offset()..];
        let last =
            (batch - 1) * strides[0] + (positions - 1) * strides[1] + (heads - 1) * strides[2] + head_dim;
        assert!(last <= values.len(), "the view reaches beyond its buffer");
        Self { values, strides: [strides[0], strides[1], strides[2]], head_dim }
    }

    /// A head's values at the positions `at`, of which there is at least one, and the distance between positions.
    pub(super) fn head(&self, batch: usize, head: usize, at: Range<usize>) -> (&'a [f32], usize) {
        let [sb, st, sh] = self.strides;
        let len = (at.len() - 1) * st + self.head_dim;
        // A single position may have any stride.
        (&self.values[batch * sb + at.start * st + head * sh..][..len], st.max(self.head_dim))
    }

    /// A head's values at a position.
    pub(super) fn row(&self, batch: usize, position: usize, head: usize) -> &'a [f32] {
        let [sb, st, sh] = self.strides;
        &self.values[batch * sb + position * st + head * sh..][..self.head_dim]
    }

    /// A head's matrix `[positions - first, head_dim]` from position `first` on.
    pub(super) fn matrix(&self, batch: usize, first: usize, head: usize) -> Matrix {
        Matrix::new(self.row(batch, first, head).as_ptr(), self.strides[1])
    }
}

/// A buffer `[batch, positions, heads, head_dim]` whose heads are written by several threads.
#[derive(Clone, Copy)]
pub(super) struct SharedOutput {
    start: *mut f32,
    positions: usize,
    heads: usize,
    head_dim: usize,
}

// SAFETY: it is only an address; who writes through it vouches that no other thread uses the same elements.
unsafe impl Send for SharedOutput {}
// SAFETY: as above.
unsafe impl Sync for SharedOutput {}

impl SharedOutput {
    pub(super) fn new(start: *mut f32, positions: usize, heads: usize, head_dim: usize) -> Self {
        Self { start, positions, heads, head_dim }
    }

    /// The address of a head's row, and the distance to its next.
    pub(super) fn row(&self, batch: usize, position: usize, head: usize) -> (*mut f32, usize) {
        let index = ((batch * self.positions + position) * self.heads + head) * self.head_dim;
        (self.start.wrapping_add(index), self.heads * self.head_dim)
    }
}
