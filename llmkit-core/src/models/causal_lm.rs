use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use super::Model;
use crate::adapter::Adapter;
use crate::nn::{KvCache, LayerCache, LayerMut, Positions};

/// A decoder-only language model, taken apart so that training can go block by block: `embed`, then each `block`, then `head`.
///
/// Models are immutable; fine-tuning methods act through the [`Adapter`] that every call takes. The input may belong to an autodiff
/// device or not: weights are constants either way.
pub trait CausalLm: Model {
    /// How many tokens the output head scores.
    fn vocab_size(&self) -> usize;

    /// The longest sequence that the model was made for, in tokens.
    fn max_positions(&self) -> usize;

    /// Prepares for `len` positions from each sequence's start on; one start stands for all sequences. Only the first `counts[b]` of
    /// them are real in sequence `b`, all where there are no counts.
    fn positions(&self, starts: &[usize], len: usize, counts: Option<Arc<[usize]>>) -> Positions;

    /// The length in tokens beyond which the model computes a sequence differently from its first token on, as LongRoPE does: a cache
    /// of a sequence that grows beyond it must be filled anew, which [`CachedModel`](super::CachedModel) does by itself.
    fn switches_at(&self) -> Option<usize> {
        None
    }

    /// Token ids to vectors, through the adapter's prompt.
    ///
    /// # Shapes
    /// `ids [batch, seq]` to `[batch, seq, hidden]`.
    fn embed(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3>;

    /// One transformer block.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    ///
    /// # Panics
    /// If `index` is not below [`Model::num_blocks`].
    fn block(
        &self,
        index: usize,
        hidden: Tensor<3>,
        positions: &Positions,
        cache: Option<&mut LayerCache>,
        adapter: &dyn Adapter,
    ) -> Tensor<3>;

    /// The last normalisation and the scores over the vocabulary. It acts on each position by itself, so it may be given any of them.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]` to `[batch, seq, vocab]`.
    fn head(&self, hidden: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3>;

    /// A copy of the model in which `edit` has changed those layers for which it says true; the copy shares all other tensors.
    ///
    /// Where a tied embedding or head changes, the two part, and the copy's configuration says so.
    fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<dyn CausalLm>;

    /// The scores for every position.
    ///
    /// # Shapes
    /// `ids [batch, seq]` to `[batch, seq, vocab]`.
    fn forward(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        let mut hidden = self.embed(ids, adapter);
        let positions = self.positions(&[adapter.prefix_len()], hidden.dims()[1], None);
        for index in 0..self.num_blocks() {
            hidden = self.block(index, hidden, &positions, None, adapter);
        }
        self.head(hidden, adapter)
    }

    /// Continues the sequences that `cache` remembers and scores what follows the last position.
    ///
    /// # Shapes
    /// `ids [batch, seq]` to `[batch, 1, vocab]`.
    ///
    /// # Panics
    /// If the cache holds another number of sequences.
    fn forward_cached(&self, ids: Tensor<2, Int>, cache: &mut KvCache, adapter: &dyn Adapter) -> Tensor<3> {
        continue_rows(self, ids, None, cache, adapter)
    }

    /// Continues sequences by different numbers of tokens, `counts[b]` of them in row `b`: `ids` are padded behind, with any id. Scores
    /// what follows each row's last token; the scores of a row that gets none mean nothing.
    ///
    /// # Shapes
    /// `ids [batch, seq]` to `[batch, 1, vocab]`.
    ///
    /// # Panics
    /// If there is not one count for each row, a count is more than `seq`, or the cache holds another number of sequences.
    fn forward_ragged(
        &self,
        ids: Tensor<2, Int>,
        counts: &[usize],
        cache: &mut KvCache,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        assert_eq!(counts.len(), batch, "counts for ids [{batch}, {seq}]");
        assert!(counts.iter().all(|count| *count <= seq), "counts {counts:?} for ids [{batch}, {seq}]");
        continue_rows(self, ids, Some(counts), cache, adapter)
    }
}

fn continue_rows<M: CausalLm + ?Sized>(
    model: &M,
    ids: Tensor<2, Int>,
    counts: Option<&[usize]>,
    cache: &mut KvCache,
    adapter: &dyn Adapter,
) -> Tensor<3> {
    let tokens = ids.dims()[1];
    let first = cache.is_empty();
    let mut hidden = if first {
        model.embed(ids, adapter)
    } else {
        // The adapter's prompt stands before the first token only.
        model.embed(ids, &WithoutPrompt(adapter))
    };
    let [batch, seq, width] = hidden.dims();
    assert!(
        cache.rows() == 0 || cache.rows() == batch,
        "{batch} sequences continue a cache of {}",
        cache.rows()
    );
    if first {
        // What the layers will keep of a prefix takes the first positions.
        cache.advance(batch, adapter.prefix_len(), None);
    }
    // The prompt lengthens every row alike.
    let counts: Option<Arc<[usize]>> =
        counts.map(|counts| counts.iter().map(|count| count + seq - tokens).collect());
    let even = cache.lens().iter().all(|len| *len == cache.len());
    let positions = match cache.lens() {
        starts if !even => model.positions(starts, seq, counts.clone()),
        _ => model.positions(&[cache.len()], seq, counts.clone()),
    };
    for index in 0..model.num_blocks() {
        hidden = model.block(index, hidden, &positions, Some(cache.layer(index)), adapter);
    }
    cache.advance(batch, seq, counts.as_deref());
    let last = match counts {
        None => hidden.slice([0..batch, seq - 1..seq, 0..width]),
        Some(counts) => {
            let at =
                counts.iter().enumerate().map(|(row, count)| (row * seq + count.saturating_sub(1)) as i32);
            let at = TensorData::new(at.collect::<Vec<_>>(), [batch]);
            let at = Tensor::<1, Int>::from_data(at, &hidden.device());
            hidden.reshape([batch * seq, width]).select(0, at).reshape([batch, 1, width])
        }
    };
    model.head(last, adapter)
}

struct WithoutPrompt<'a>(&'a dyn Adapter);

impl Adapter for WithoutPrompt<'_> {
    fn embed(&self, base: &crate::nn::Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        self.0.embed(base, ids)
    }
}
