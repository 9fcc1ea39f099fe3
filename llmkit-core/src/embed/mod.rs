//! Texts to vectors and pairs of texts to scores, with encoders as sentence-transformers saves them.
//!
//! ```no_run
//! use llmkit_core::Device;
//! use llmkit_core::embed::SentenceEncoder;
//!
//! # fn main() -> llmkit_core::Result<()> {
//! let encoder = SentenceEncoder::load("all-MiniLM-L6-v2", &Device::Auto.resolve()?)?;
//! let vectors = encoder.encode(&["Where is the library?", "The library is across the street."])?;
//! assert_eq!(vectors[0].len(), encoder.dimensions());
//! # Ok(())
//! # }
//! ```
//!
//! [`SentenceEncoder`] is an [`Embedder`](crate::Embedder), [`CrossEncoder`] a [`Reranker`](crate::Reranker).

mod batch;
mod cross_encoder;
mod folder;
mod function;
mod pooling;
mod sentence_encoder;
mod step;
mod worker;

pub use cross_encoder::CrossEncoder;
pub use function::Function;
pub use pooling::{Pooling, PoolingMode};
pub use sentence_encoder::SentenceEncoder;
