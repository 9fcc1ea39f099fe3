//! Model architectures, one file each, and the interface that they share.

mod auto;
mod causal_lm;
mod config;
mod decoder;
mod llama;
mod locate;
mod memory_plan;
mod next_token;
mod pretrained;
mod save;

pub use auto::load_causal_lm;
pub use causal_lm::CausalLm;
pub use config::ConfigReader;
pub use decoder::Decoder;
pub use llama::{LlamaConfig, load_llama};
pub use locate::locate;
pub use memory_plan::{MemoryPlan, ModelSizes};
pub use next_token::CachedModel;
pub use pretrained::Pretrained;
pub use save::{SaveOptions, named_tensors, save_model};
