//! The layers that models share. Weights keep torch's layout and each layer knows its path in the checkpoint.
//!
//! Layers are plain values over immutable tensors: nothing here is tracked by autodiff. What trains lives in an
//! [`Adapter`](crate::Adapter).

mod attention;
mod embedding;
mod kv_cache;
mod layer;
mod linear;
mod mixture;
mod mlp;
mod norm;
mod positions;
mod rope;
mod weights;

pub use attention::{Attention, AttentionConfig};
pub use embedding::{Embedding, lookup};
pub use kv_cache::{KeyValue, KvCache, LayerCache};
pub use layer::{Layer, LayerMut};
pub use linear::{Linear, matmul_transposed};
pub use mixture::MixtureOfExperts;
pub use mlp::{Activation, Mlp, MlpConfig};
pub use norm::{Norm, NormConfig, NormKind};
pub use positions::Positions;
pub use rope::{Rope, RopeConfig, RopeScaling, RopeTable};
pub use weights::Weights;
