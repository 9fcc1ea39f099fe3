//! Model architectures, one file each, and the interface that they share.

mod auto;
mod causal_lm;
mod config;
mod decoder;
mod llama;
mod next_token;
mod pretrained;

pub use auto::load_causal_lm;
pub use causal_lm::CausalLm;
pub use config::ConfigReader;
pub use decoder::Decoder;
pub use llama::{LlamaConfig, load_llama};
pub use next_token::CachedModel;
pub use pretrained::Pretrained;
