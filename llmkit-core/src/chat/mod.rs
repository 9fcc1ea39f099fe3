mod message;
#[cfg(feature = "models")]
mod template;

pub use message::{Message, Role, ToolCall};
#[cfg(feature = "models")]
pub use template::ChatTemplate;
