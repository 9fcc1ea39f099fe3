//! Turning logits into text.
//!
//! Nothing here knows a tensor: a model is a [`NextToken`], a tokenizer a [`TextDecoder`], and [`generate`] runs the loop between
//! them. So the same code serves every architecture and every backend, and is tested with models of known logits.
//!
//! ```
//! use std::ops::ControlFlow;
//! use llmkit_core::generate::{GenerationConfig, NextToken, TextDecoder, generate};
//! use llmkit_core::{FinishReason, Result};
//!
//! /// A model of five tokens that always counts up.
//! struct Counter(Vec<u32>);
//!
//! impl NextToken for Counter {
//!     fn feed(&mut self, tokens: &[u32], logits: &mut Vec<f32>) -> Result<()> {
//!         self.0.extend(tokens);
//!         logits.clear();
//!         logits.resize(5, 0.0);
//!         logits[(tokens[tokens.len() - 1] as usize + 1) % 5] = 1.0;
//!         Ok(())
//!     }
//!     fn position(&self) -> usize {
//!         self.0.len()
//!     }
//!     fn max_positions(&self) -> usize {
//!         100
//!     }
//! }
//!
//! /// Each token is written as its number.
//! struct Numbers;
//!
//! impl TextDecoder for Numbers {
//!     fn step(&mut self, id: u32) -> Result<Option<String>> {
//!         Ok(Some(format!("{id} ")))
//!     }
//!     fn finish(&mut self) -> Result<Option<String>> {
//!         Ok(None)
//!     }
//! }
//!
//! let config = GenerationConfig::new().with_eos_token_ids([4]);
//! let answer = generate(&mut Counter(Vec::new()), &mut Numbers, &[0, 1], &config, &mut |event| {
//!     print!("{}", event.text());
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(answer.ids, [2, 3, 4]);
//! assert_eq!(answer.text, "2 3 ");
//! assert_eq!(answer.finish_reason, FinishReason::Stop);
//! # Ok::<(), llmkit_core::Error>(())
//! ```
//!
//! Several prompts at once, on a model that can continue several rows:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use llmkit_core::generate::{BatchRequest, Sampling, generate_batch};
//! use llmkit_core::models::{CachedModel, Pretrained};
//! use llmkit_core::{Device, NoAdapter};
//!
//! # fn main() -> llmkit_core::Result<()> {
//! let pretrained = Pretrained::load("SmolLM2-135M-Instruct", &Device::Auto.resolve()?)?;
//! let config = pretrained.generation.clone().with_sampling(Sampling::new(0.8).with_min_p(0.05));
//! let prompts = pretrained.tokenizer.encode_batch(&["The sea is", "Once upon a time"], true)?;
//! let requests: Vec<_> = prompts.iter().map(|prompt| BatchRequest { prompt, config: &config }).collect();
//! let answers = generate_batch(
//!     &mut CachedModel::new(pretrained.model.as_ref(), &NoAdapter),
//!     &requests,
//!     &mut || pretrained.tokenizer.decode_stream(true),
//!     &mut |_, _| ControlFlow::Continue(()),
//! )?;
//! for answer in answers {
//!     println!("{}", answer.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is where:
//! - [`GenerationConfig`], [`Decoding`], [`Sampling`]: the settings, and the Hugging Face file of them;
//! - [`Sampler`]: logits to a token, in transformers' order and with its semantics;
//! - [`StopScanner`]: ending at a text that may span tokens;
//! - [`generate`], [`Event`], [`Generated`]: the loop; [`Logprobs`]: how likely its tokens were;
//! - [`generate_batch`]: several prompts, or several answers to one, side by side over a [`NextTokens`];
//! - [`generate_beams`]: beam search;
//! - [`Constraint`], [`generate_constrained`]: answers of a given form; with the feature `constrained`, `Grammar` and `GrammarCompiler` for
//!   JSON schemas, regular expressions and context-free grammars.

mod answer;
mod batch;
mod beams;
mod candidate;
mod config;
mod config_file;
mod constraint;
mod decoding;
#[cfg(feature = "constrained")]
mod grammar;
mod logprobs;
mod next_token;
mod next_tokens;
mod processors;
mod sampler;
mod stop;
mod stream;
mod text_decoder;
mod warpers;

pub use batch::{BatchRequest, generate_batch};
pub use beams::{Beam, BeamSearch, EarlyStopping, generate_beams};
pub use config::GenerationConfig;
pub use constraint::Constraint;
pub use decoding::{Decoding, Sampling};
#[cfg(feature = "constrained")]
pub(crate) use grammar::{BLANKS, ONE_BLANK, prepare_schema};
#[cfg(feature = "constrained")]
pub use grammar::{Grammar, GrammarCompiler, GrammarConstraint};
pub use logprobs::{Logprobs, TokenLogprob};
pub use next_token::NextToken;
pub use next_tokens::NextTokens;
pub use processors::Dry;
pub use sampler::Sampler;
pub use stop::StopScanner;
pub(crate) use stream::run;
pub use stream::{Event, Generated, PREFILL_CHUNK, generate, generate_constrained};
pub use text_decoder::TextDecoder;
pub use warpers::mirostat::Mirostat;
