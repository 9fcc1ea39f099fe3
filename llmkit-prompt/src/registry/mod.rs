//! Prompts in files and folders.

mod file;
mod prompts;
mod version;
#[cfg(feature = "watch")]
mod watch;

pub use file::PromptFile;
pub use prompts::{Prompts, Reload};
#[cfg(feature = "watch")]
pub use watch::PromptWatch;
