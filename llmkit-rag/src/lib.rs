//! Documents in, passages out: splitting with byte ranges, exact vector search, retrieval over any
//! [`Embedder`](llmkit_core::Embedder).
//!
//! Every passage knows the bytes of the document that it came from, so that what a model says can be cited and checked. What would give a
//! meaningless answer (vectors of another model, of another length, zero or NaN; a chunk of a text that has changed) is an error.
//!
//! ```
//! use llmkit_core::Embedder;
//! use llmkit_rag::{Collection, Document, Metric, SentenceSplitter};
//!
//! /// Counts letters: enough for an example, where a real program takes a model.
//! struct Letters;
//!
//! #[async_trait::async_trait]
//! impl Embedder for Letters {
//!     fn id(&self) -> &str {
//!         "letters"
//!     }
//!     fn dimensions(&self) -> usize {
//!         26
//!     }
//!     async fn embed(&self, texts: &[String]) -> llmkit_core::Result<Vec<Vec<f32>>> {
//!         let count = |text: &String, letter| text.to_lowercase().matches(letter).count() as f32;
//!         Ok(texts.iter().map(|text| ('a'..='z').map(|letter| count(text, letter)).collect()).collect())
//!     }
//! }
//!
//! # async fn example() -> Result<(), llmkit_rag::Error> {
//! let kitchen = Document::new("kitchen", "A tureen is a deep dish for soup. A ladle serves from it.");
//! let mut collection = Collection::new(&Letters, Metric::Cosine);
//! collection.add(&Letters, &SentenceSplitter::new(40), kitchen.with_metadata("title", "In the kitchen")).await?;
//!
//! let passages = collection.retrieve(&Letters, "serves from a ladle", 1).await?;
//! assert_eq!(passages[0].text, "A ladle serves from it.");
//! assert_eq!(passages[0].chunk.range(), 34..57);
//! assert_eq!(passages[0].document.metadata()["title"], "In the kitchen");
//! # Ok(())
//! # }
//! # pollster::block_on(example()).expect("the example runs");
//! ```
//!
//! # Map
//!
//! - [`Document`], [`Chunk`], [`ContentHash`]: texts with names, and the pieces of them.
//! - [`Splitter`]: [`SentenceSplitter`] and [`CharacterSplitter`], or [`TextSplitter`] where a configuration file chooses.
//! - [`FlatIndex`]: exact nearest vectors by a [`Metric`].
//! - [`Collection`]: all of it together; [`Passage`] is what it finds.
//! - [`Error`]: what can be wrong, and where.
//!
//! # Features
//!
//! None. The crate needs only `llmkit-core`'s traits: no burn, no model, no network, and no async runtime of its own.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chunk;
mod collection;
mod document;
mod error;
mod index;
mod split;

/// Compiles the README's program.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use chunk::Chunk;
pub use collection::{Added, Collection, Passage};
pub use document::{ContentHash, Document};
pub use error::{Error, Result};
pub use index::{FlatIndex, Hit, Metric};
pub use split::{CharacterSplitter, SentenceSplitter, Splitter, TextSplitter};
