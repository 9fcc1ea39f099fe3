use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use super::Transform;
use crate::adapter::Adapter;
use crate::models::encoder::{first, mask};
use crate::models::{Encoder, Model, Task};
use crate::nn::{Layer, LayerMut, Linear};

/// An encoder with a head that scores each sequence: what `*ForSequenceClassification` computes.
#[derive(Debug, Clone)]
pub struct SequenceClassifier {
    pub(in crate::models) encoder: Arc<dyn Encoder>,
    pub(in crate::models) pooling: Pooling,
    /// `[labels, hidden]`
    pub(in crate::models) output: Linear,
    pub(in crate::models) labels: Vec<String>,
    pub(in crate::models) config: Value,
}

/// One vector for a sequence, for the last layer to read.
#[derive(Debug, Clone)]
pub(in crate::models) enum Pooling {
    /// The encoder's own pooler.
    Pooler,
    /// The first position, transformed.
    First(Transform),
    /// The mean of the real positions, transformed.
    Mean(Transform),
}

impl SequenceClassifier {
    /// The encoder under the head.
    pub fn encoder(&self) -> &Arc<dyn Encoder> {
        &self.encoder
    }

    /// The labels' names, in the order of the scores. A model that gives a number instead has one.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The labels' scores before any softmax or sigmoid; the arguments are those of [`Encoder::forward`].
    ///
    /// # Shapes
    /// `ids` and `token_types` `[batch, seq]` to `[batch, labels]`.
    ///
    /// # Panics
    /// As [`Encoder::forward`].
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        lengths: &[usize],
        token_types: Option<Tensor<2, Int>>,
        adapter: &dyn Adapter,
    ) -> Tensor<2> {
        let [_, given] = ids.dims();
        let hidden = self.encoder.forward(ids, lengths, token_types, adapter);
        let [_, seq, _] = hidden.dims();
        let lengths: Vec<_> = lengths.iter().map(|length| length + seq - given).collect();
        self.head(hidden, &lengths, adapter)
    }

    /// The head alone, over what [`Encoder::finish`] gave; `lengths` count the positions of the adapter's prompt, if there is one.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]` to `[batch, labels]`.
    pub fn head(&self, hidden: Tensor<3>, lengths: &[usize], adapter: &dyn Adapter) -> Tensor<2> {
        let pooled = match &self.pooling {
            Pooling::Pooler => {
                let pooled = self.encoder.pooled(hidden, adapter);
                pooled.expect("loading insisted on the pooler").unsqueeze_dim(1)
            }
            Pooling::First(transform) => transform.forward(first(hidden), adapter),
            Pooling::Mean(transform) => {
                let mask = mask(lengths, hidden.dims()[1], &hidden.device());
                let mean = (hidden * mask.clone()).sum_dim(1) / mask.sum_dim(1);
                transform.forward(mean, adapter)
            }
        };
        adapter.linear(&self.output, pooled).squeeze_dim(1)
    }

    /// A copy in which `edit` has changed those layers for which it says true; the copy shares all other tensors.
    pub fn with_layers(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Self {
        let mut model = self.clone();
        model.encoder = self.encoder.with_layers(edit);
        if let Pooling::First(transform) | Pooling::Mean(transform) = &mut model.pooling {
            transform.visit_mut(edit);
        }
        edit(LayerMut::Linear(&mut model.output));
        model
    }
}

impl Model for SequenceClassifier {
    fn config(&self) -> &Value {
        &self.config
    }

    fn task(&self) -> Task {
        Task::SequenceClassification
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
        if let Pooling::First(transform) | Pooling::Mean(transform) = &self.pooling {
            transform.visit(see);
        }
        see(Layer::Linear(&self.output));
    }
}
