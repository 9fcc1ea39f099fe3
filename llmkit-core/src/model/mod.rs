//! What applications speak: local and remote models alike, behind async, object-safe traits.

mod capabilities;
mod format;
mod request;
mod response;
mod tokens;
mod tool;
mod traits;

pub use capabilities::Capabilities;
pub use format::ResponseFormat;
pub use request::ChatRequest;
pub use response::{ChatEvent, ChatResponse, ChatStream, FinishReason, Usage};
pub use tokens::{ApproximateTokens, TokenCounter};
pub use tool::{ToolChoice, ToolDefinition};
pub use traits::{Embedder, LanguageModel, Reranker};
