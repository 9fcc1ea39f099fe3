//! Few-shot prompting: worked examples, chosen for each query and fitted into a token budget.
//!
//! [`FewShot`] puts the pieces together: [`Examples`] out of JSONL or structs, two templates that are checked against their fields, and one
//! [`ExampleSelector`]:
//!
//! | Selector | Chooses | Needs |
//! |---|---|---|
//! | [`LengthSelector`] | the first ones, as many as fit | nothing |
//! | [`RandomSelector`] | by lot, the same for all queries or others for each | nothing |
//! | [`NgramSelector`] | those that share words and sequences of words with the query | nothing |
//! | [`KnnSelector`] | those that mean most nearly the same | an [`Embedder`](llmkit_core::Embedder) |
//! | [`MmrSelector`] | those that mean nearly the same and differ from each other | an [`Embedder`](llmkit_core::Embedder) |
//! | [`BalancedSelector`] | as another does, from each class alike | |
//!
//! Each choice says why it was made ([`Why`]), and the same query gets the same examples on every machine.

mod balanced;
mod builder;
mod example;
mod knn;
mod length;
mod mmr;
mod ngram;
mod random;
mod selector;
mod shots;

pub use balanced::BalancedSelector;
pub use builder::{FewShot, Order};
pub use example::{Example, Examples};
pub use knn::KnnSelector;
pub use length::LengthSelector;
pub use mmr::MmrSelector;
pub use ngram::NgramSelector;
pub use random::RandomSelector;
pub use selector::{Candidate, ExampleSelector, Query, Selected, Why};
pub use shots::{LeftOut, Reason, Shot, Shots};
