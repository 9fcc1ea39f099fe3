//! Model architectures, one file each, and the interface that they share.

mod auto;
mod causal_lm;
mod config;
mod llama;
mod next_token;
mod pretrained;

pub use auto::load_causal_lm;
pub use causal_lm::{CausalLm, Positions};
pub use config::ConfigReader;
pub use llama::{Llama, LlamaConfig};
pub use next_token::CachedModel;
pub use pretrained::Pretrained;
