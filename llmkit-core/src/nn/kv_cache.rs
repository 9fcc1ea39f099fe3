use burn::tensor::Tensor;

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
}

/// What one layer remembers of the tokens before.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    stored: Option<KeyValue>,
}

impl LayerCache {
    /// Whether nothing is remembered yet.
    pub fn is_empty(&self) -> bool {
        self.stored.is_none()
    }

    /// Remembers `next` and gives everything remembered.
    pub fn append(&mut self, next: KeyValue) -> KeyValue {
        let all = match self.stored.take() {
            Some(stored) => stored.followed_by(next),
            None => next,
        };
        self.stored = Some(all.clone());
        all
    }
}

/// What a model remembers of the tokens before, so that each is computed once.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
}

impl KvCache {
    /// An empty cache for a model of `num_layers` blocks.
    pub fn new(num_layers: usize) -> Self {
        Self { layers: vec![LayerCache::default(); num_layers], len: 0 }
    }

    /// How many tokens are remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.layers.len());
    }

    pub(crate) fn layer(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}
