//! Language models on [burn](https://burn.dev): checkpoints, tokenizers, chat templates, generation, and the
//! traits that llmkit's other crates speak.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chat;
mod error;
mod model;

#[cfg(feature = "models")]
pub mod checkpoint;
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

pub use chat::{Message, Role, ToolCall};
pub use error::{Error, Result, ShapeMismatch};
pub use model::{ChatRequest, ChatResponse, Embedder, FinishReason, LanguageModel, Reranker, Usage};

#[cfg(feature = "models")]
pub use {
    adapter::{Adapter, NoAdapter, Site, Sublayer},
    chat::{ChatTemplate, RenderOptions},
    device::Device,
    tokenizer::{DecodeStream, Tokenizer},
};
