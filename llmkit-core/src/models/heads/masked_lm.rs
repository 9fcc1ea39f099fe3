use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use super::Transform;
use crate::adapter::Adapter;
use crate::models::{Encoder, Model, Task};
use crate::nn::{Layer, LayerMut, Linear};

/// An encoder with a head that scores, at each position, which token stands there: what `*ForMaskedLM` computes.
#[derive(Debug, Clone)]
pub struct MaskedLm {
    pub(in crate::models) encoder: Arc<dyn Encoder>,
    pub(in crate::models) transform: Transform,
    /// `[vocab, hidden]`
    pub(in crate::models) decoder: Linear,
    pub(in crate::models) tied: bool,
    pub(in crate::models) config: Value,
}

impl MaskedLm {
    /// The encoder under the head.
    pub fn encoder(&self) -> &Arc<dyn Encoder> {
        &self.encoder
    }

    /// The scores of every token at every position; the arguments are those of [`Encoder::forward`].
    ///
    /// # Shapes
    /// `ids` and `token_types` `[batch, seq]` to `[batch, prompt + seq, vocab]`.
    ///
    /// # Panics
    /// As [`Encoder::forward`].
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        lengths: &[usize],
        token_types: Option<Tensor<2, Int>>,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        self.head(self.encoder.forward(ids, lengths, token_types, adapter), adapter)
    }

    /// The head alone, which acts on each position by itself.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]` to `[batch, seq, vocab]`.
    pub fn head(&self, hidden: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        adapter.linear(&self.decoder, self.transform.forward(hidden, adapter))
    }

    /// A copy in which `edit` has changed those layers for which it says true; the copy shares all other tensors.
    ///
    /// Where a tied embedding or last layer changes, the two part, and the copy's configuration says so.
    pub fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Self {
        let mut model = self.clone();
        let table = self.encoder.word_embeddings().path();
        let mut parted = false;
        model.encoder = self.encoder.with_layers(&mut |layer| {
            let is_table = matches!(&layer, LayerMut::Embedding(embedding) if embedding.path() == table);
            let changed = edit(layer);
            parted |= changed && is_table;
            changed
        });
        model.transform.visit_mut(edit);
        parted |= edit(LayerMut::Linear(&mut model.decoder));
        if model.tied && parted {
            model.tied = false;
            model.config["tie_word_embeddings"] = Value::Bool(false);
        }
        model
    }
}

impl Model for MaskedLm {
    fn config(&self) -> &Value {
        &self.config
    }

    fn task(&self) -> Task {
        Task::MaskedLm
    }

    fn num_blocks(&self) -> usize {
        self.encoder.num_blocks()
    }

    fn device(&self) -> Device {
        self.encoder.device()
    }

    fn head_path(&self) -> Option<&str> {
        Some(self.decoder.path())
    }

    fn is_tied(&self) -> bool {
        self.tied
    }

    fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        self.encoder.visit(see);
        self.transform.visit(see);
        see(Layer::Linear(&self.decoder));
    }
}
