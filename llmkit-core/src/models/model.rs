use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Device;
use serde_json::Value;

use super::{CausalLm, Encoder, MaskedLm, SequenceClassifier, TokenClassifier};
use crate::nn::{Layer, LayerMut};

/// What every model can say of itself, whatever it computes: all that a fine-tuning method needs to attach to it.
pub trait Model: Debug + Send + Sync {
    /// The configuration as its `config.json` holds it, fields that llmkit doesn't know included.
    fn config(&self) -> &Value;

    /// What the model computes.
    fn task(&self) -> Task;

    /// How many blocks there are.
    fn num_blocks(&self) -> usize;

    /// The device that holds the weights, without autodiff.
    fn device(&self) -> Device;

    /// The path of the layer whose scores are the model's result, if it has one: `lm_head`, or a classifier's last layer.
    fn head_path(&self) -> Option<&str>;

    /// Whether the head is the embedding's own tensor.
    fn is_tied(&self) -> bool {
        false
    }

    /// What the embedding's vectors are multiplied by before the first block; 1 for most models.
    fn embedding_scale(&self) -> f64 {
        1.0
    }

    /// Shows every layer, in the checkpoint's order. A tied head is shown as well, as the linear layer that it acts as.
    fn visit(&self, see: &mut dyn FnMut(Layer<'_>));
}

/// What a model computes from its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// The next token of each position.
    CausalLm,
    /// The token that stands at each position.
    MaskedLm,
    /// The label of each sequence.
    SequenceClassification,
    /// The label of each token.
    TokenClassification,
    /// A vector for each token.
    FeatureExtraction,
}

/// A model of which a copy with other weights can be made.
pub trait Editable: Model {
    /// A copy in which `edit` has changed those layers for which it says true; the copy shares all other tensors.
    ///
    /// Where a tied embedding or head changes, the two part, and the copy's configuration says so.
    fn edited(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<Self>;

    /// The model as what all models are.
    fn as_model(&self) -> &dyn Model;
}

impl Editable for dyn CausalLm {
    fn edited(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<Self> {
        self.with_layers(edit)
    }

    fn as_model(&self) -> &dyn Model {
        self
    }
}

impl Editable for dyn Encoder {
    fn edited(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<Self> {
        self.with_layers(edit)
    }

    fn as_model(&self) -> &dyn Model {
        self
    }
}

impl Editable for MaskedLm {
    fn edited(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<Self> {
        Arc::new(self.with_layers(edit))
    }

    fn as_model(&self) -> &dyn Model {
        self
    }
}

impl Editable for SequenceClassifier {
    fn edited(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<Self> {
        Arc::new(self.with_layers(edit))
    }

    fn as_model(&self) -> &dyn Model {
        self
    }
}

impl Editable for TokenClassifier {
    fn edited(&self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) -> Arc<Self> {
        Arc::new(self.with_layers(edit))
    }

    fn as_model(&self) -> &dyn Model {
        self
    }
}
