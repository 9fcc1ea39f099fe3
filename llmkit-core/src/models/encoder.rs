use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::Model;
use crate::adapter::Adapter;
use crate::kernels::{self, AttentionOptions, Row};
use crate::nn::{Embedding, KeyValue, LayerMut, RopeTable};

/// Where the sequences of a batch end and how their positions turn; made once a pass by [`Encoder::extent`], read by every block.
#[derive(Debug, Clone)]
pub struct Extent {
    /// How many positions of each sequence are real; the others are padding behind them.
    pub lengths: Arc<[usize]>,
    /// The rotations of the positions: one table for each kind of rotation that the model has, none where positions are embedded.
    pub ropes: Vec<RopeTable>,
}

/// A model that reads whole sequences at once and gives a vector for each token (Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>),
/// taken apart like [`CausalLm`](super::CausalLm): `embed`, then each `block`, then `finish`.
///
/// Models are immutable; fine-tuning methods act through the [`Adapter`] that every call takes. The input may belong to an autodiff
/// device or not: weights are constants either way.
///
/// A batch holds sequences of different lengths, padded on the right. What the padding is does not matter; the vectors at padded
/// positions mean nothing.
pub trait Encoder: Model {
    /// The length of each token's vector.
    fn hidden_size(&self) -> usize;

    /// The longest sequence that the model can read, in tokens.
    fn max_positions(&self) -> usize;

    /// How many token types (segments) the model tells apart; 0 if it has none.
    fn num_token_types(&self) -> usize;

    /// The table of the tokens' vectors, to which a masked-language head may be tied.
    fn word_embeddings(&self) -> &Embedding;

    /// How many tokens the model knows.
    fn vocab_size(&self) -> usize {
        self.word_embeddings().weight.dims()[0]
    }

    /// Prepares for a batch whose sequences are `lengths` long, padded to `seq`.
    fn extent(&self, lengths: &[usize], seq: usize) -> Extent;

    /// Token ids to vectors, through the adapter's prompt. Without `token_types`, every token is of type 0, as are those of the prompt.
    ///
    /// # Shapes
    /// `ids` and `token_types` `[batch, seq]` to `[batch, prompt + seq, hidden]`.
    ///
    /// # Panics
    /// If an id or type is out of range, or there are more positions than [`max_positions`](Self::max_positions).
    fn embed(
        &self,
        ids: Tensor<2, Int>,
        token_types: Option<Tensor<2, Int>>,
        adapter: &dyn Adapter,
    ) -> Tensor<3>;

    /// One transformer block.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    ///
    /// # Panics
    /// If `index` is not below [`num_blocks`](Model::num_blocks).
    fn block(&self, index: usize, hidden: Tensor<3>, extent: &Extent, adapter: &dyn Adapter) -> Tensor<3>;

    /// What follows the last block: a normalisation, in models that normalise before their sublayers.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    fn finish(&self, hidden: Tensor<3>, _adapter: &dyn Adapter) -> Tensor<3> {
        hidden
    }

    /// The pooler's view of each sequence, `tanh(W h_0 + b)`, if the checkpoint has a pooler.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]` of [`forward`](Self::forward) to `[batch, hidden]`.
    fn pooled(&self, _hidden: Tensor<3>, _adapter: &dyn Adapter) -> Option<Tensor<2>> {
        None
    }

    /// A copy without the pooler, for heads that don't read it; it shares all tensors.
    fn without_pooler(&self) -> Arc<dyn Encoder>;

    /// A copy of the model in which `edit` has changed those layers for which it says true; the copy shares all other tensors.
    fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<dyn Encoder>;

    /// A vector for each token. `lengths` says how many tokens of each row are real. Where the adapter has a prompt, its vectors come
    /// first.
    ///
    /// # Shapes
    /// `ids` and `token_types` `[batch, seq]` to `[batch, prompt + seq, hidden]`.
    ///
    /// # Panics
    /// As [`embed`](Self::embed), and if `lengths` are not one for each row, each from 1 to `seq`.
    fn forward(
        &self,
        ids: Tensor<2, Int>,
        lengths: &[usize],
        token_types: Option<Tensor<2, Int>>,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        assert_eq!(lengths.len(), batch, "encoder: lengths for a batch of {batch}");
        assert!(
            lengths.iter().all(|length| (1..=seq).contains(length)),
            "encoder: lengths {lengths:?} must be from 1 to {seq}"
        );
        let mut hidden = self.embed(ids, token_types, adapter);
        let [_, longer, _] = hidden.dims();
        let lengths: Vec<_> = lengths.iter().map(|length| length + longer - seq).collect();
        let extent = self.extent(&lengths, longer);
        for index in 0..self.num_blocks() {
            hidden = self.block(index, hidden, &extent, adapter);
        }
        self.finish(hidden, adapter)
    }
}

/// Attention of every token to every other, or to those within `window` on either side, after the adapter's prefix for `layer`, whose
/// keys stand before the first token.
///
/// # Shapes
/// `[batch, seq, heads, head_dim]`, all.
pub(super) fn attend(
    layer: usize,
    query: Tensor<4>,
    mut seen: KeyValue,
    extent: &Extent,
    window: Option<usize>,
    adapter: &dyn Adapter,
) -> Tensor<4> {
    let [batch, seq, _, head_dim] = query.dims();
    let mut offset = 0;
    if let Some(prefix) = adapter.prefix(layer, batch) {
        offset = prefix.key.dims()[1];
        seen = prefix.followed_by(seen);
    }
    let padded = extent.lengths.iter().any(|length| *length < seq);
    let rows =
        padded.then(|| extent.lengths.iter().map(|length| Row { offset, keys: offset + length }).collect());
    let options = AttentionOptions::new((head_dim as f64).powf(-0.5)).with_window(window).with_rows(rows);
    kernels::attention(query, seen.key, seen.value, options)
}

/// The first position of each sequence.
///
/// # Shapes
/// `[batch, seq, hidden]` to `[batch, 1, hidden]`.
pub(super) fn first(hidden: Tensor<3>) -> Tensor<3> {
    hidden.narrow(1, 0, 1)
}

/// 1 at real positions and 0 behind them.
///
/// # Shapes
/// `[batch, seq, 1]` for `batch` lengths.
pub(crate) fn mask(lengths: &[usize], seq: usize, device: &Device) -> Tensor<3> {
    let values: Vec<f32> = lengths
        .iter()
        .flat_map(|length| (0..seq).map(move |position| if position < *length { 1.0 } else { 0.0 }))
        .collect();
    Tensor::from_data(TensorData::new(values, [lengths.len(), seq, 1]), device)
}
