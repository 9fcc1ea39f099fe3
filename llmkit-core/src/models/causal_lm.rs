use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};

use crate::adapter::Adapter;
use crate::nn::{KvCache, Layer, LayerCache, LayerMut, RopeTable};

/// Where a forward pass stands in its sequences; made once a pass by [`CausalLm::positions`], read by every block.
#[derive(Debug, Clone)]
pub struct Positions {
    /// The rotations of these positions.
    pub rope: RopeTable,
}

/// A decoder-only language model, taken apart so that training can go block by block: `embed`, then each `block`, then `head`.
///
/// Models are immutable; fine-tuning methods act through the [`Adapter`] that every call takes. The input may belong to an autodiff
/// device or not: weights are constants either way.
pub trait CausalLm: Debug + Send + Sync {
    /// The configuration as its `config.json` holds it, fields that llmkit doesn't know included.
    fn config(&self) -> &serde_json::Value;

    /// How many blocks there are.
    fn num_blocks(&self) -> usize;

    /// How many tokens the output head scores.
    fn vocab_size(&self) -> usize;

    /// The longest sequence that the model was made for, in tokens.
    fn max_positions(&self) -> usize;

    /// The device that holds the weights, without autodiff.
    fn device(&self) -> Device;

    /// Prepares for positions `start..start + len`.
    fn positions(&self, start: usize, len: usize) -> Positions;

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
    /// If `index` is not below [`CausalLm::num_blocks`].
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

    /// Whether the output head is the embedding's own tensor.
    fn is_tied(&self) -> bool;

    /// Shows every layer, in the checkpoint's order. A tied head is shown as well, as the linear layer that it acts as.
    fn visit(&self, see: &mut dyn FnMut(Layer<'_>));

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
        let positions = self.positions(0, hidden.dims()[1]);
        for index in 0..self.num_blocks() {
            hidden = self.block(index, hidden, &positions, None, adapter);
        }
        self.head(hidden, adapter)
    }

    /// Continues the sequences that `cache` remembers and scores what follows the last position.
    ///
    /// # Shapes
    /// `ids [batch, seq]` to `[batch, 1, vocab]`.
    fn forward_cached(&self, ids: Tensor<2, Int>, cache: &mut KvCache, adapter: &dyn Adapter) -> Tensor<3> {
        let mut hidden = if cache.is_empty() {
            self.embed(ids, adapter)
        } else {
            // The adapter's prompt stands before the first token only.
            self.embed(ids, &WithoutPrompt(adapter))
        };
        let [batch, seq, width] = hidden.dims();
        let positions = self.positions(cache.len(), seq);
        for index in 0..self.num_blocks() {
            hidden = self.block(index, hidden, &positions, Some(cache.layer(index)), adapter);
        }
        cache.advance(seq);
        self.head(hidden.slice([0..batch, seq - 1..seq, 0..width]), adapter)
    }
}

struct WithoutPrompt<'a>(&'a dyn Adapter);

impl Adapter for WithoutPrompt<'_> {
    fn embed(&self, base: &crate::nn::Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        self.0.embed(base, ids)
    }
}
