use std::ops::Range;
use std::sync::Arc;

/// Which keys a query of [`attention`](super::attention) sees, and how it weighs them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// What the dot products are multiplied by; usually `1 / sqrt(head_dim)`.
    pub scale: f64,
    /// Whether a query sees only the keys up to its own position. Default false.
    pub causal: bool,
    /// How far a query sees: causal ones the last `window` keys up to their own, others `window` keys to each side and their own.
    /// Default without limit.
    pub window: Option<usize>,
    /// Where the sequences of a batch stand, one for each. Default: the last query at the last key, and all keys are real.
    pub rows: Option<Arc<[Row]>>,
}

/// One sequence of a batch whose sequences differ in length: its real keys come first, and what follows them is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The position of the first query among the keys.
    pub offset: usize,
    /// How many keys are real, at least 1.
    pub keys: usize,
}

impl AttentionOptions {
    /// Every query sees every key.
    pub fn new(scale: f64) -> Self {
        Self { scale, causal: false, window: None, rows: None }
    }

    /// A query sees the keys up to its own position: query `i` of `t` sees keys `0..=s - t + i` of `s`.
    pub fn causal(scale: f64) -> Self {
        Self { causal: true, ..Self::new(scale) }
    }

    /// Sets [`window`](Self::window).
    pub fn with_window(mut self, window: Option<usize>) -> Self {
        self.window = window;
        self
    }

    /// Sets [`rows`](Self::rows).
    pub fn with_rows(mut self, rows: Option<Arc<[Row]>>) -> Self {
        self.rows = rows;
        self
    }

    pub(super) fn check(&self, batch: usize, t: usize, s: usize) {
        match &self.rows {
            Some(rows) => {
                assert_eq!(rows.len(), batch, "attention: rows for a batch of {batch}");
                let wrong = rows.iter().find(|row| row.keys == 0 || row.keys > s);
                assert!(wrong.is_none(), "attention: {wrong:?} must have 1 to {s} keys");
            }
            None => {
                assert!(!self.causal || s >= t, "attention: {t} causal queries need as many keys, found {s}");
            }
        }
        assert!(self.window != Some(0), "attention: a window of no keys");
    }

    /// The keys that query `i` of `t` in sequence `b` sees, of `s`: never none. Both ends grow with `i`.
    pub(super) fn visible(&self, b: usize, i: usize, [t, s]: [usize; 2]) -> Range<usize> {
        let row = match &self.rows {
            Some(rows) => rows[b],
            None => Row { offset: s.saturating_sub(t), keys: s },
        };
        let position = row.offset + i;
        let (start, end) = match (self.causal, self.window) {
            (true, None) => (0, position + 1),
            (true, Some(window)) => ((position + 1).saturating_sub(window), position + 1),
            (false, None) => (0, row.keys),
            (false, Some(window)) => (position.saturating_sub(window), position + window + 1),
        };
        let end = end.min(row.keys);
        // A padding query may stand beyond what it could see; it sees the last key, so that its result is a number.
        start.min(end - 1)..end
    }

    /// Whether anything is hidden from any of `t` queries.
    pub(super) fn hides(&self, t: usize) -> bool {
        (self.causal && t > 1) || self.window.is_some() || self.rows.is_some()
    }
}
