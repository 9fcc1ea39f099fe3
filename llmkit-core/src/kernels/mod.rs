//! Fused tensor operations with hand-written backward passes.
//!
//! Each works on every backend and float type through a body composed of ordinary operations, and has a faster body for `f32` on
//! the CPU. Their inputs may mix tensors of a plain device with tensors of its autodiff device: the plain ones are constants, and
//! gradients are computed only for inputs that ask for them.

mod adamw;
mod attention;
mod compose;
#[cfg(feature = "cpu")]
mod cpu;
mod cross_entropy;
mod gelu;
mod layer_norm;
mod lora_linear;
mod rms_norm;
mod rope;
mod swiglu;

pub use adamw::{AdamwState, AdamwStep, adamw};
pub use attention::{AttentionOptions, Row, attention};
pub use cross_entropy::cross_entropy;
pub use gelu::gelu;
pub use layer_norm::layer_norm;
pub use lora_linear::{LoraFactors, lora_linear};
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use swiglu::swiglu;
