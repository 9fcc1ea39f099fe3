//! Summaries of texts that are longer than what a model reads at once.
//!
//! ```
//! use llmkit_prompt::summary::{Strategy, Summarizer};
//! use llmkit_prompt::testing::ScriptedModel;
//!
//! # pollster::block_on(async {
//! let model = ScriptedModel::from_fn(|request| {
//!     let prompt = &request.messages[1].content;
//!     if prompt.contains("summaries of consecutive parts") { "The ferry was lost, and found." } else { "Something on a ferry." }
//! });
//! let document = "The ferry left at noon.\n\n".repeat(100);
//! let summarizer = Summarizer::new(Strategy::MapReduce).with_context_tokens(400).with_summary_tokens(60);
//! let summary = summarizer.run(&model, &document).await?;
//!
//! assert_eq!(summary.value.text, "The ferry was lost, and found.");
//! assert_eq!(summary.value.chunks.len() + 1, model.requests().len());
//! println!("{}", summary.trace); // every prompt and every answer
//! # Ok::<(), llmkit_prompt::Error>(())
//! # }).unwrap();
//! ```
//!
//! A document that fits is summarized in one call, whatever the strategy. Every prompt is a file under `prompts/summary/`.

mod summarizer;

pub use summarizer::{Strategy, Summarizer, Summary};
