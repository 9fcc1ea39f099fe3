//! Parameter-efficient fine-tuning of language models on [burn](https://burn.dev).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod data;
mod dropout;
mod error;
mod lora;
mod merge;
mod module;
mod parameters;
mod summary;
mod targets;
pub mod train;

pub use error::{Error, Result};
pub use lora::{Bias, InitLora, Lora, LoraConfig, Sizes};
pub use merge::{merge, save_merged};
pub use module::PeftModule;
pub use summary::{ParameterSummary, print_trainable_parameters};
pub use targets::{TargetModules, Targets};
