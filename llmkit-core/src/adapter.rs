use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::nn::{Embedding, KeyValue, Linear, Norm};

/// The places in a transformer where a fine-tuning method may act.
///
/// The base model is immutable and shared; its layers ask the adapter instead of changing themselves. Every layer knows its
/// path (`model.layers.0.self_attn.q_proj`), by which a method looks up its own state. A method overrides what it needs: each
/// default is the base model as it is.
///
/// An adapter must be pure: block-by-block recomputation calls it twice with the same input and expects the same output, dropout
/// included.
pub trait Adapter: Send + Sync {
    /// Token ids to vectors.
    ///
    /// # Shapes
    /// `ids [batch, seq]` to `[batch, seq, hidden]`.
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        base.forward(ids)
    }

    /// A linear layer.
    ///
    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        base.forward(input)
    }

    /// A normalisation.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        base.forward(input)
    }

    /// Joins the `output` of an attention or feed-forward sublayer to the residual stream, from which the sublayer (with its
    /// normalisation, in models that normalise before) read `residual`. `norm` acts on the sum in models that normalise after.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]`, all.
    fn join(&self, _site: Site, output: Tensor<3>, residual: Tensor<3>, norm: Option<&Norm>) -> Tensor<3> {
        let sum = output + residual;
        match norm {
            Some(norm) => self.norm(norm, sum),
            None => sum,
        }
    }

    /// Keys and values that precede the sequence in `layer`, as prefix tuning learns them. Keys are not rotated.
    ///
    /// # Shapes
    /// `[batch, prefix, kv_heads, head_dim]`, both, with the `prefix` of [`prefix_len`](Self::prefix_len).
    fn prefix(&self, _layer: usize, _batch: usize) -> Option<KeyValue> {
        None
    }

    /// How many positions the keys and values of [`prefix`](Self::prefix) take: the first token stands behind them. A layer without a
    /// prefix has its tokens there as well.
    fn prefix_len(&self) -> usize {
        0
    }

    /// The embedded sequence, before the first block; prompt tuning lengthens it in front.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]` to `[batch, prompt + seq, hidden]`, with the `prompt` of [`prompt_len`](Self::prompt_len).
    fn prompt(&self, embeddings: Tensor<3>) -> Tensor<3> {
        embeddings
    }

    /// By how many positions [`prompt`](Self::prompt) lengthens a sequence.
    fn prompt_len(&self) -> usize {
        0
    }

    /// The adapter for a batch whose row `i` is what row `parents[i]` was; none where an adapter treats all rows alike. Generation asks
    /// when rows end or branch.
    fn select(&self, _parents: &[usize]) -> Option<Arc<dyn Adapter>> {
        None
    }
}

/// Which sublayer of which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Site {
    /// The block's index, from 0.
    pub layer: usize,
    /// Which half of the block.
    pub sublayer: Sublayer,
}

/// The halves of a transformer block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sublayer {
    /// Self-attention.
    Attention,
    /// The feed-forward network.
    Mlp,
}

/// The base model as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAdapter;

impl Adapter for NoAdapter {}
