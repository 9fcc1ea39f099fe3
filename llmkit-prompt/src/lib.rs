//! Prompts as checked values.
//!
//! A prompt is a template and the variables that it is meant to have. Both are stated where the prompt is built, and a
//! disagreement between them (a variable that the template uses and nobody declared, one that was declared and is never used, one that is
//! misspelt) is an error there, with its line, rather than a hole in what the model reads.
//!
//! ```
//! use llmkit_prompt::{ChatPrompt, Role};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), llmkit_prompt::Error> {
//! let prompt = ChatPrompt::new(
//!     "answer",
//!     [
//!         (Role::System, "Answer in {{ language }}, from the passages only."),
//!         (Role::User, "{% for passage in passages %}\n[{{ loop.index }}] {{ passage }}\n{% endfor %}\n\n{{ question }}"),
//!     ],
//!     ["language", "passages", "question"],
//! )?;
//!
//! let messages = prompt.render(json!({
//!     "language": "French",
//!     "passages": ["A tureen is a deep dish.", "A bowl is round."],
//!     "question": "What is a tureen?",
//! }))?;
//! assert_eq!(messages[0].content, "Answer in French, from the passages only.");
//! assert_eq!(messages[1].content, "[1] A tureen is a deep dish.\n[2] A bowl is round.\n\nWhat is a tureen?");
//!
//! // A slip is found when the prompt is built, not when a model has read it.
//! let error = ChatPrompt::new("answer", [(Role::User, "Translate:\n{{ txet }}")], ["text"]).unwrap_err();
//! assert!(error.to_string().contains("answer[0]:2: `txet` is not declared; did you mean `text`?"));
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! - [`PromptTemplate`]: one text with holes, in [minijinja](https://docs.rs/minijinja)'s dialect of Jinja; [`Partials`]: texts that it includes.
//! - [`ChatPrompt`]: a conversation of such texts, rendered to [`Message`]s that any
//!   [`LanguageModel`](llmkit_core::LanguageModel) takes.
//! - [`pearl`], [`summary`], [`minutes`]: long documents: questions by plan, summaries, the minutes of a meeting; [`chunks`] cuts them.
//! - [`Prompts`]: the prompts of a folder of files, in several versions, read again when they change.
//! - [`TypedPrompt`]: a prompt whose variables are the fields of a struct.
//! - [`Rendered`]: a text that knows where each of its parts comes from, and what they cost in tokens.
//! - [`mark_untrusted`] and [`ChatPrompt::with_untrusted`]: text from strangers, marked as such; [`Escape`]: values in XML, JSON or Markdown.
//! - [`builtin`]: the prompts that come with the crate, each a file to read and replace.
//! - [`Run`], [`Trace`]: how every piece calls a model, and the record of it; [`WithDefaults`]: a model with settings of the user's.
//! - [`agent`]: a model that works on a task with tools, within limits and under approval.
//! - [`parse`]: reading what a model wrote: JSON with its slips, lists, tables, dates, code.
//! - [`typed`]: answers as values of a type, asked for again until they are.
//! - [`cache`]: answers and vectors that are not made twice; with the feature `remote`, `remote`: models behind an OpenAI-compatible interface.
//! - [`testing`]: models with known answers.
//! - [`reasoning`]: chains of thought, votes, trees, checked answers: methods that compose.
//! - [`few_shot`]: examples, chosen for each query and fitted into a token budget.
//! - [`memory`]: what of a long conversation a model is shown.
//! - [`Error`] and [`VariableProblem`]: what can be wrong, and where.
//!
//! # Features
//!
//! | Feature | Default | What it adds |
//! |---|---|---|
//! | `remote` | | a client for models behind an OpenAI-compatible HTTP interface |
//! | `watch` | | prompts that are read again when their files change |
//!
//! Without them the crate needs only `llmkit-core`'s traits: no burn, no model, no network.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
pub mod builtin;
pub mod cache;
pub mod chunks;
pub mod few_shot;
pub mod memory;
pub mod minutes;
pub mod parse;
pub mod pearl;
pub mod reasoning;
#[cfg(feature = "remote")]
pub mod remote;
pub mod summary;
pub mod testing;
pub mod typed;

mod embeddings;
mod error;
mod long;
mod registry;
mod run;
mod schema;
mod template;

/// Compiles the README's program.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use error::{Error, Result, VariableProblem};
pub use llmkit_core::{ApproximateTokens, Message, Role, TokenCounter};
#[cfg(feature = "watch")]
pub use registry::PromptWatch;
pub use registry::{PromptFile, Prompts, Reload};
pub use run::{Call, Run, Trace, TraceEvent, Traced, WithDefaults};
pub use template::{
    ChatPrompt, Cleaned, Escape, FUEL, LONGEST_TEMPLATE, Marked, Part, PartSource, Partials, PromptTemplate,
    PromptTokens, Rendered, RenderedChat, TypedPrompt, TypedTemplate, UNTRUSTED_NOTE, mark_untrusted,
};
