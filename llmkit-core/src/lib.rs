//! Language models on [burn](https://burn.dev): checkpoints, tokenizers, chat templates, generation, and the traits that llmkit's
//! other crates speak.
//!
//! ```
//! # #[cfg(feature = "models")]
//! # fn main() -> llmkit_core::Result<()> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama/gguf/model.gguf");
//! use std::ops::ControlFlow;
//! use llmkit_core::models::Pretrained;
//! use llmkit_core::{Device, Message, NoAdapter};
//!
//! // A Hugging Face folder, a GGUF file, or, with the feature `hub`, a name such as "HuggingFaceTB/SmolLM2-135M-Instruct".
//! let model = Pretrained::load(path, &Device::from_env()?.resolve()?)?;
//! let answer = model.reply(&NoAdapter, &[Message::user("Hello!")], &model.generation, &mut |text| {
//!     print!("{text}");
//!     ControlFlow::Continue(())
//! })?;
//! assert!(answer.usage().completion_tokens > 0);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "models"))]
//! # fn main() {}
//! ```
//!
//! Beneath that lie tensors: `models::CausalLm::forward` takes token ids and gives the scores of every position.
//!
//! # Map
//!
//! - The root: [`LanguageModel`], [`Embedder`], [`Reranker`] and [`Message`], which applications speak; with the feature `models` also
//!   `Tokenizer`, `ChatTemplate`, `Device`, and `Adapter`, the places where a fine-tuning method acts;
//! - `checkpoint`: safetensors and GGUF, read and written;
//! - `models`: the architectures, one file each; `nn`: the layers that they share; `kernels`: fused operations under those;
//! - `generate`: logits to text; `embed`: texts to vectors, and pairs of texts to scores;
//! - `engine`: a local model on its own thread, which is a [`LanguageModel`].
//!
//! # Features
//!
//! | Feature | Default | What it adds |
//! |---|---|---|
//! | `models` | by a backend | everything that runs a model; without it, traits and plain types, and no burn |
//! | `cpu` | yes | burn's CPU backend, flex |
//! | `wgpu` | | any GPU through wgpu |
//! | `cuda` | | NVIDIA GPUs |
//! | `constrained` | | answers held to a JSON schema, a regular expression or a grammar while they are written |
//! | `hub` | | downloading from the Hugging Face hub |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chat;
mod error;
mod model;

// For `llmkit-prompt`, whose templates are written as models' own are.
#[cfg(feature = "jinja")]
#[doc(hidden)]
pub mod jinja;

#[cfg(feature = "models")]
pub mod checkpoint;
#[cfg(feature = "models")]
pub mod embed;
#[cfg(feature = "models")]
pub mod engine;
#[cfg(feature = "models")]
pub mod generate;
#[cfg(feature = "models")]
pub mod kernels;
#[cfg(feature = "models")]
pub mod models;
#[cfg(feature = "models")]
pub mod nn;

#[cfg(feature = "models")]
mod adapter;
#[cfg(feature = "models")]
mod device;
#[cfg(feature = "models")]
mod tokenizer;

#[cfg(feature = "hub")]
pub mod hub;

pub use chat::{AnswerPart, AnswerReader, Message, Role, ToolCall, ToolCallFormat};
pub use error::{Error, Result, ShapeMismatch};
pub use model::{
    ApproximateTokens, Capabilities, ChatEvent, ChatRequest, ChatResponse, ChatStream, Embedder,
    FinishReason, LanguageModel, Reranker, ResponseFormat, TokenCounter, ToolChoice, ToolDefinition, Usage,
};

#[cfg(feature = "models")]
pub use {
    adapter::{Adapter, NoAdapter, Site, Sublayer},
    chat::{ChatTemplate, MarkedText, RenderOptions},
    device::Device,
    tokenizer::{DecodeStream, Encoded, Tokenizer},
};
