//! What stands on top of an encoder.

mod fresh;
mod masked_lm;
mod sequence_classifier;
mod token_classifier;
mod transform;

pub use masked_lm::MaskedLm;
pub use sequence_classifier::SequenceClassifier;
pub use token_classifier::TokenClassifier;

pub(super) use sequence_classifier::Pooling;
pub(super) use transform::Transform;
