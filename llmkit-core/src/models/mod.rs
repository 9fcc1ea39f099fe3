//! Model architectures, one file each, and the interface that they share.

mod auto;
mod causal_lm;
mod config;
mod decoder;
mod gemma3;
mod llama;
mod locate;
mod mistral;
mod mixtral;
mod next_token;
mod phi3;
mod pretrained;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rope_config;
mod save;
mod shape;

pub use auto::load_causal_lm;
pub use causal_lm::CausalLm;
pub use config::ConfigReader;
pub use decoder::Decoder;
pub use gemma3::{Gemma3Config, load_gemma3};
pub use llama::{LlamaConfig, load_llama};
pub use locate::locate;
pub use mistral::{MistralConfig, load_mistral};
pub use mixtral::{MixtralConfig, load_mixtral};
pub use next_token::CachedModel;
pub use phi3::{Phi3Config, load_phi3};
pub use pretrained::Pretrained;
pub use qwen2::{Qwen2Config, load_qwen2};
pub use qwen3::{Qwen3Config, load_qwen3};
pub use qwen3_moe::{Qwen3MoeConfig, load_qwen3_moe};
pub use save::{SaveOptions, named_tensors, save_model};
pub use shape::DecoderShape;
