//! Methods that put learned positions before a sequence and leave the model's weights alone: prompts before the embedded tokens, prefixes
//! before the keys and values of every block.

mod config;
mod dense;
mod learned;
mod lstm;
mod method;
mod multitask;
mod p_tuning;
mod prefix_tuning;
mod prompt_tuning;
mod source;

pub use config::{PromptConfig, PromptScope, PromptSizes};
pub use learned::{Learned, LearnedTensor};
pub use method::PromptMethod;
pub use multitask::{
    MultitaskPrompt, MultitaskPromptTuning, MultitaskPromptTuningConfig, MultitaskPromptTuningInit,
};
pub use p_tuning::{PTuning, PTuningConfig, PromptEncoder, PromptEncoderKind};
pub use prefix_tuning::{Prefix, PrefixInit, PrefixTuning, PrefixTuningConfig};
pub use prompt_tuning::{Prompt, PromptTuning, PromptTuningConfig, PromptTuningInit};
pub use source::{ParamSource, Start};
