//! Fine-tune and apply large language models in Rust, without Python: on CUDA, on any GPU through wgpu, or on the CPU.
//!
//! This crate is a facade over a family of crates, each of which can be taken alone. What is [`llmkit_core`]'s is at the root; the others
//! are modules.
//!
//! ```
//! # #[cfg(feature = "prompt")]
//! # fn main() -> Result<(), llmkit::prompt::Error> {
//! use llmkit::prompt::ChatPrompt;
//! use llmkit::{ChatRequest, Role};
//!
//! let prompt = ChatPrompt::new(
//!     "define",
//!     [(Role::System, "You write dictionaries."), (Role::User, "Define the word \"{{ word }}\".")],
//!     ["word"],
//! )?;
//! let messages = prompt.render(std::collections::HashMap::from([("word", "harbor")]))?;
//!
//! // Any `llmkit::LanguageModel` answers it, local or remote.
//! let request = ChatRequest { max_tokens: Some(40), temperature: Some(0.0), ..ChatRequest::new(messages) };
//! assert_eq!(request.messages[1].content, "Define the word \"harbor\".");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "prompt"))]
//! # fn main() {}
//! ```
//!
//! # Map
//!
//! - The root: [`LanguageModel`], [`Embedder`] and [`Reranker`], which applications speak; [`Message`] and its kin; and with the feature
//!   `models` all that runs a model, in `models`, `checkpoint`, `generate`, `nn` and `kernels`.
//! - `peft`: adapters, PEFT's files, and training.
//! - `prompt`: templates whose variables are checked when they are built.
//! - `rag`: documents, splitting, vector search and retrieval.
//!
//! Each crate has its own `Error`; the one at the root is `llmkit_core`'s.
//!
//! # Features
//!
//! | Feature | Default | What it adds |
//! |---|---|---|
//! | `peft`, `prompt`, `rag` | yes | the modules of these names |
//! | `cpu` | yes | burn's CPU backend |
//! | `wgpu` | | any GPU through wgpu |
//! | `cuda` | | NVIDIA GPUs |
//! | `models` | by a backend, `peft` or `hub` | what runs a model |
//! | `hub` | | downloading models from the Hugging Face hub |
//!
//! Backends add up; which of those built in runs is chosen when the program runs.

pub use llmkit_core::{
    ChatEvent, ChatRequest, ChatResponse, ChatStream, Embedder, Error, FinishReason, LanguageModel, Message,
    Reranker, Result, Role, ShapeMismatch, ToolCall, Usage,
};

#[cfg(feature = "models")]
pub use llmkit_core::{
    Adapter, ChatTemplate, Device, NoAdapter, Site, Sublayer, Tokenizer, checkpoint, embed, engine, generate,
    kernels, models, nn,
};

#[cfg(feature = "hub")]
pub use llmkit_core::hub;

#[cfg(feature = "peft")]
pub use llmkit_peft as peft;

#[cfg(feature = "prompt")]
pub use llmkit_prompt as prompt;

#[cfg(feature = "rag")]
pub use llmkit_rag as rag;
