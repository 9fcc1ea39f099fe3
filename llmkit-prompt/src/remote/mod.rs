//! Models behind an HTTP interface like OpenAI's: at OpenAI, DeepSeek and Qwen, and from one's own vLLM, llama.cpp or Ollama.
//!
//! [`OpenAi`] is a [`LanguageModel`](llmkit_core::LanguageModel) and [`OpenAiEmbedder`] an [`Embedder`](llmkit_core::Embedder), so everything in this
//! crate runs on them. They work under any executor: requests run on a thread of their own, and dropping a future or a stream closes its
//! connection.
//!
//! - [`Timeouts`] bound every part of a request, so nothing hangs;
//! - [`Retries`] make failed requests again, with pauses that double and are drawn at random;
//! - [`RateLimit`] holds requests back before the server refuses them;
//! - [`Provider`] knows where servers differ, and what they can do.
//!
//! An answer's size is bounded, redirects are not followed, proxy variables of the environment are not read, and keys appear in no error, log or
//! `Debug` output, even where a server sends them back.

mod answer;
mod embedder;
mod endpoint;
mod failure;
mod openai;
mod provider;
mod rate_limit;
mod request;
mod retries;
mod runtime;
mod secrets;
mod sse;
mod stream;
mod strict;
mod timeouts;

pub use embedder::OpenAiEmbedder;
pub use openai::OpenAi;
pub use provider::Provider;
pub use rate_limit::RateLimit;
pub use retries::Retries;
pub use timeouts::Timeouts;
