#[cfg(feature = "models")]
mod generation_tag;
mod message;
#[cfg(feature = "models")]
mod source;
#[cfg(feature = "models")]
mod template;
mod tool_calls;

pub use message::{Message, Role, ToolCall};
#[cfg(feature = "models")]
pub use template::{ChatTemplate, MarkedText, RenderOptions};
pub use tool_calls::{AnswerPart, AnswerReader, ToolCallFormat};
