use std::collections::BTreeMap;

use burn::module::ParamId;

use super::LoraLayer;
use crate::layers::{Named, ParamRef};

/// LoRA+ (Hayou et al. 2024, <https://arxiv.org/abs/2402.12354>): `B` learns faster than `A`.
///
/// As PEFT's `create_loraplus_optimizer` groups them, `ratio` multiplies the learning rate of every `lora_B` and of every vector (biases,
/// norms, DoRA's magnitudes), and `embedding` that of an embedding's factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraPlus {
    /// By what the learning rate of `B` is larger; the paper advises 16, with a smaller rate for `A` than LoRA's usual one.
    pub ratio: f64,
    /// By what the learning rate is multiplied for an embedding's factors; default 1.
    pub embedding: f64,
}

impl LoraPlus {
    /// `B` learns `ratio` times as fast as `A`.
    pub fn new(ratio: f64) -> Self {
        Self { ratio, embedding: 1.0 }
    }

    /// An embedding's factors learn at `rate` while the others learn at `learning_rate`: PEFT's `loraplus_lr_embedding` (1e-6 there).
    pub fn with_embedding_rate(self, rate: f64, learning_rate: f64) -> Self {
        Self { embedding: rate / learning_rate, ..self }
    }
}

/// By what the learning rate is multiplied for each tensor.
pub(super) fn factors(layers: &[LoraLayer], others: &[Named<'_>]) -> BTreeMap<ParamId, f64> {
    let Some(plus) = layers.iter().find_map(|layer| layer.plus) else { return BTreeMap::new() };
    let vectors = others.iter().filter(|named| matches!(named.param, ParamRef::Vector(_)));
    let mut factors: BTreeMap<_, _> = vectors.map(|named| (named.param.id(), plus.ratio)).collect();
    for layer in layers {
        if layer.is_embedding() {
            factors.extend([&layer.lora_a, &layer.lora_b].map(|factor| (factor.id, plus.embedding)));
        } else {
            factors.insert(layer.lora_b.id, plus.ratio);
        }
        let vectors = [&layer.lora_b_bias, &layer.magnitude].into_iter().flatten();
        factors.extend(vectors.map(|vector| (vector.id, plus.ratio)));
    }
    factors
}
