//! Models with known answers, to test what is built on this crate without a model.

mod hash_embedder;
mod scripted;

pub use hash_embedder::HashEmbedder;
pub use scripted::ScriptedModel;
