//! Texts and conversations with holes.

mod analysis;
mod chat;
mod checked;
mod engine;
mod escape;
mod filters;
mod names;
mod partials;
mod rendered;
mod shape;
mod suggest;
mod syntax;
mod text;
mod typed;
mod untrusted;
mod variables;

pub(crate) use engine::normalised;
pub(crate) use suggest::closest;

pub use chat::ChatPrompt;
pub use engine::{FUEL, LONGEST_TEMPLATE};
pub use escape::Escape;
pub use partials::Partials;
pub use rendered::{Part, PartSource, PromptTokens, Rendered, RenderedChat};
pub use text::PromptTemplate;
pub use typed::{TypedPrompt, TypedTemplate};
pub use untrusted::{Cleaned, Marked, UNTRUSTED_NOTE, mark_untrusted};
