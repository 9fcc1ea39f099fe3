mod budget;
mod config;
mod importance;
mod layer;

use crate::LayerMethod;

pub use config::AdaLoraConfig;
pub use layer::AdaLoraLayer;

/// AdaLoRA (Zhang et al. 2023, <https://arxiv.org/abs/2303.10512>): updates in the form of a singular value decomposition,
/// `y = W x + scale * B (E * (A x))`, whose singular values `E` compete for a budget that falls while training, so that layers which
/// matter more end with a higher rank. A penalty keeps `A` and `B` near to orthogonal.
///
/// `E` starts at zero, so a fresh AdaLoRA leaves the model as it is. The importance of each singular value is measured after every optimizer
/// step; its file holds those that the last allocation kept, or that have grown back since.
pub type AdaLora = LayerMethod<AdaLoraLayer>;
