use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use crate::kernels::Row;

/// The least room that a cache makes, in tokens.
const LEAST_CAPACITY: usize = 64;

/// Keys and values of one layer.
///
/// # Shapes
/// `[batch, seq, kv_heads, head_dim]`, both.
#[derive(Debug, Clone)]
pub struct KeyValue {
    /// Rotated keys.
    pub key: Tensor<4>,
    /// Values.
    pub value: Tensor<4>,
}

impl KeyValue {
    /// `self` followed by `next` along the sequence.
    pub fn followed_by(self, next: Self) -> Self {
        Self {
            key: Tensor::cat(vec![self.key, next.key], 1),
            value: Tensor::cat(vec![self.value, next.value], 1),
        }
    }

    fn map(self, change: impl Fn(Tensor<4>) -> Tensor<4>) -> Self {
        Self { key: change(self.key), value: change(self.value) }
    }
}

/// What one layer remembers of the tokens before.
///
/// Keys and values lie in buffers `[batch, capacity, kv_heads, head_dim]`, which new ones are written into; where the room is used up,
/// it doubles.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    stored: Option<KeyValue>,
    lens: Vec<usize>,
    capacity: usize,
}

impl LayerCache {
    /// Whether nothing is remembered yet.
    pub fn is_empty(&self) -> bool {
        self.stored.is_none()
    }

    /// Remembers `next` behind what each row has, and gives everything remembered. Of row `b`, only the first `counts[b]` positions of
    /// `next` are real; all of them where `counts` says nothing. The second value tells the rows apart where they differ.
    pub fn append(&mut self, next: KeyValue, counts: Option<&[usize]>) -> (KeyValue, Option<Arc<[Row]>>) {
        let [batch, seq, kv_heads, head_dim] = next.key.dims();
        self.lens.resize(batch, 0);
        let starts = self.lens.clone();
        let end = starts.iter().max().map_or(0, |longest| longest + seq);
        self.make_room(end, &next);
        // Taken out while it is written: what nobody else holds is changed in place.
        let mut stored = self.stored.take().expect("room was just made");
        let even = starts.iter().all(|start| *start == starts[0]);
        if even {
            let at = [0..batch, starts[0]..end, 0..kv_heads, 0..head_dim];
            stored.key = stored.key.slice_assign(at.clone(), next.key);
            stored.value = stored.value.slice_assign(at, next.value);
        } else {
            for (row, &start) in starts.iter().enumerate() {
                let at = [row..row + 1, start..start + seq, 0..kv_heads, 0..head_dim];
                stored.key = stored.key.slice_assign(at.clone(), next.key.clone().narrow(0, row, 1));
                stored.value = stored.value.slice_assign(at, next.value.clone().narrow(0, row, 1));
            }
        }
        for (row, len) in self.lens.iter_mut().enumerate() {
            *len += counts.map_or(seq, |counts| counts[row]);
        }
        let rows = (!even || counts.is_some()).then(|| {
            // A row that rests before it has any key sees one of zeros: its result is never used.
            starts.iter().zip(&self.lens).map(|(&offset, &len)| Row { offset, keys: len.max(1) }).collect()
        });
        let seen = stored.clone().map(|x| x.narrow(1, 0, end));
        self.stored = Some(stored);
        (seen, rows)
    }

    fn make_room(&mut self, tokens: usize, like: &KeyValue) {
        let [batch, _, kv_heads, head_dim] = like.key.dims();
        if self.stored.is_some() && tokens <= self.capacity {
            return;
        }
        let old = self.stored.take();
        let doubled = if old.is_some() { 2 * self.capacity } else { self.capacity };
        self.capacity = tokens.max(doubled).max(LEAST_CAPACITY);
        let zeros = || {
            Tensor::zeros([batch, self.capacity, kv_heads, head_dim], (&like.key.device(), like.key.dtype()))
        };
        let mut new = KeyValue { key: zeros(), value: zeros() };
        if let Some(old) = old {
            let at: [Range<usize>; 4] = old.key.dims().map(|size| 0..size);
            new.key = new.key.slice_assign(at.clone(), old.key);
            new.value = new.value.slice_assign(at, old.value);
        }
        self.stored = Some(new);
    }

    /// `row` by itself, without its last `forgotten` positions.
    fn beginning(&self, row: usize, forgotten: usize) -> Self {
        let Some(stored) = &self.stored else { return Self::default() };
        let len = self.lens[row] - forgotten;
        let mut copy = Self { stored: None, lens: vec![len], capacity: 0 };
        let first = stored.clone().map(|x| x.narrow(0, row, 1).narrow(1, 0, len));
        // A buffer of its own: the view would keep all of the old one.
        copy.make_room(len, &first);
        let mut own = copy.stored.take().expect("room was just made");
        let at: [Range<usize>; 4] = first.key.dims().map(|size| 0..size);
        own.key = own.key.slice_assign(at.clone(), first.key);
        own.value = own.value.slice_assign(at, first.value);
        copy.stored = Some(own);
        copy
    }

    fn select(&mut self, parents: &[usize]) {
        self.lens = parents.iter().map(|&parent| self.lens[parent]).collect();
        self.stored = self.stored.take().map(|stored| {
            let indices: Vec<i32> = parents.iter().map(|&parent| parent as i32).collect();
            let indices = TensorData::new(indices, [parents.len()]);
            let indices = Tensor::<1, Int>::from_data(indices, &stored.key.device());
            stored.map(|x| x.select(0, indices.clone()))
        });
    }
}

/// What a model remembers of the tokens before, so that each is computed once.
///
/// It holds one or more rows: sequences that are continued side by side, each of its own length.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    lens: Vec<usize>,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for a model of `num_layers` blocks. The first tokens say how many rows there are.
    pub fn new(num_layers: usize) -> Self {
        Self::with_capacity(num_layers, 0)
    }

    /// An empty cache that makes room for `capacity` tokens a row at once, so that it need not grow before that.
    pub fn with_capacity(num_layers: usize, capacity: usize) -> Self {
        let layer = LayerCache { capacity, ..LayerCache::default() };
        Self { layers: vec![layer; num_layers], lens: Vec::new(), capacity }
    }

    /// How many sequences there are; none before the first tokens.
    pub fn rows(&self) -> usize {
        self.lens.len()
    }

    /// How many positions each row remembers: its tokens, and what an adapter put before them.
    pub fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// How many positions are remembered, by the longest row.
    pub fn len(&self) -> usize {
        self.lens.iter().copied().max().unwrap_or(0)
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::with_capacity(self.layers.len(), self.capacity);
    }

    /// Row `i` becomes a copy of what row `parents[i]` was; there are as many rows as `parents` afterwards.
    ///
    /// # Panics
    /// If a parent is not a row.
    pub fn select(&mut self, parents: &[usize]) {
        if parents.iter().copied().eq(0..self.rows()) {
            return;
        }
        self.lens = parents.iter().map(|&parent| self.lens[parent]).collect();
        self.layers.iter_mut().filter(|layer| !layer.is_empty()).for_each(|layer| layer.select(parents));
    }

    /// Forgets of `row` all but its first `len` positions.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn truncate(&mut self, row: usize, len: usize) {
        let forgotten = self.lens[row].saturating_sub(len);
        self.lens[row] -= forgotten;
        for layer in &mut self.layers {
            // An adapter may give only some layers a prefix, so a layer is told how much to forget, not what to keep.
            layer.lens[row] -= forgotten;
        }
    }

    /// A copy of the first `len` positions of `row`, which takes no more memory than they need.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn beginning(&self, row: usize, len: usize) -> Self {
        let len = len.min(self.lens[row]);
        let forgotten = self.lens[row] - len;
        let layers = self.layers.iter().map(|layer| layer.beginning(row, forgotten)).collect();
        Self { layers, lens: vec![len], capacity: 0 }
    }

    pub(crate) fn layer(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }

    pub(crate) fn advance(&mut self, batch: usize, seq: usize, counts: Option<&[usize]>) {
        self.lens.resize(batch, 0);
        for (row, len) in self.lens.iter_mut().enumerate() {
            *len += counts.map_or(seq, |counts| counts[row]);
        }
    }
}
