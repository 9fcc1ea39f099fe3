//! Answers and vectors that are not made twice.
//!
//! - [`Cached`]: a model whose answers to the very same request are remembered;
//! - [`SemanticCache`]: a model whose answers to similar questions are given again;
//! - [`CachedEmbedder`]: an embedder that turns no text into a vector twice.
//!
//! What they remember is kept in a [`CacheStore`]: [`MemoryStore`], or [`FolderStore`] to keep it from run to run.

mod cached;
mod embedder;
mod folder;
mod key;
mod replay;
mod semantic;
mod store;

pub use cached::{CacheStats, Cached};
pub use embedder::CachedEmbedder;
pub use folder::FolderStore;
pub use key::CacheKey;
pub use semantic::{CacheReport, SemanticCache};
pub use store::{CacheStore, MemoryStore, Record};
