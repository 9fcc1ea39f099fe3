use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use super::Transform;
use crate::adapter::Adapter;
use crate::models::{Encoder, Model, Task};
use crate::nn::{Layer, LayerMut, Linear};

/// An encoder with a head that scores each token: what `*ForTokenClassification` computes.
#[derive(Debug, Clone)]
pub struct TokenClassifier {
    pub(in crate::models) encoder: Arc<dyn Encoder>,
    pub(in crate::models) transform: Option<Transform>,
    /// `[labels, hidden]`
    pub(in crate::models) output: Linear,
    pub(in crate::models) labels: Vec<String>,
}

impl TokenClassifier {
    /// The encoder under the head.
    pub fn encoder(&self) -> &Arc<dyn Encoder> {
        &self.encoder
    }

    /// The labels' names, in the order of the scores.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The labels' scores at every position, before any softmax; the arguments are those of [`Encoder::forward`].
    ///
    /// # Shapes
    /// `ids` and `token_types` `[batch, seq]` to `[batch, prompt + seq, labels]`.
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
        let hidden = self.encoder.forward(ids, lengths, token_types, adapter);
        let hidden = match &self.transform {
            Some(transform) => transform.forward(hidden, adapter),
            None => hidden,
        };
        adapter.linear(&self.output, hidden)
    }

    /// A copy in which `edit` has changed those layers for which it says true; the copy shares all other tensors.
    pub fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Self {
        let mut model = self.clone();
        model.encoder = self.encoder.with_layers(edit);
        if let Some(transform) = &mut model.transform {
            transform.visit_mut(edit);
        }
        edit(LayerMut::Linear(&mut model.output));
        model
    }
}

impl Model for TokenClassifier {
    fn config(&self) -> &Value {
        self.encoder.config()
    }

    fn task(&self) -> Task {
        Task::TokenClassification
    }

    fn num_blocks(&self) -> usize {
        self.encoder.num_blocks()
    }

    fn device(&self) -> Device {
        self.encoder.device()
    }

    fn head_path(&self) -> Option<&str> {
        Some(self.output.path())
    }

    fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        self.encoder.visit(see);
        if let Some(transform) = &self.transform {
            transform.visit(see);
        }
        see(Layer::Linear(&self.output));
    }
}
