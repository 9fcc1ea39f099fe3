//! Model architectures, one file each, and the interface that they share.

mod auto;
mod auto_encoder;
mod bert;
mod causal_lm;
mod config;
mod decoder;
mod distilbert;
mod encoder;
mod encoder_config;
mod heads;
mod llama;
mod locate;
mod memory_plan;
mod modernbert;
mod next_token;
mod pretrained;
mod save;

pub use auto::load_causal_lm;
pub use auto_encoder::{load_encoder, load_masked_lm, load_sequence_classifier, load_token_classifier};
pub use bert::{Bert, BertConfig};
pub use causal_lm::CausalLm;
pub use config::ConfigReader;
pub use decoder::Decoder;
pub use distilbert::{DistilBertConfig, load_distilbert};
pub use encoder::{Encoder, Extent};
pub use heads::{MaskedLm, SequenceClassifier, TokenClassifier};
pub use llama::{LlamaConfig, load_llama};
pub use locate::locate;
pub use memory_plan::{MemoryPlan, ModelSizes};
pub use modernbert::{ModernBert, ModernBertConfig};
pub use next_token::CachedModel;
pub use pretrained::Pretrained;
pub use save::{ModelTensors, SaveOptions, save_model};
