mod config;
mod dora;
mod eva;
mod init;
mod layer;
mod loftq;
mod pca;
mod plus;

pub use config::{LoraConfig, Sizes};
pub use eva::{Eva, EvaConfig, eva_lora};
pub use init::InitLora;
pub use layer::{LoraLayer, LoraShared};
pub use loftq::loftq;
pub use plus::LoraPlus;

use crate::layers::{LayerMethod, TunedLayer};

/// LoRA (Hu et al. 2021): beside each chosen linear layer `y = W x`, a trained update of low rank, `y = W x + scale * B A x`.
///
/// It works on activations: `W` is never tracked, and no gradient of its size exists. The update starts at zero, so a fresh LoRA
/// leaves the model as it is.
pub type Lora = LayerMethod<LoraLayer>;

impl Lora {
    /// The paths of the layers that have an update, in the model's order, with its rank and scale.
    pub fn targets(&self) -> impl Iterator<Item = (&str, Sizes)> {
        self.layers().iter().map(|layer| (layer.path(), layer.sizes()))
    }
}
