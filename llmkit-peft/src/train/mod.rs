//! Training: one optimizer step after another, with nothing silent and nothing lost.

mod adamw;
mod checkpoint;
mod config;
mod gradients;
mod memory;
mod schedule;
mod step;
mod trainer;

pub use adamw::{AdamW, AdamWConfig};
pub use config::TrainConfig;
pub use gradients::Gradients;
pub use memory::memory_plan;
pub use schedule::{Decay, Schedule};
pub use step::{Recompute, StepOptions, StepOutput, evaluate_batch, loss_and_gradients};
pub use trainer::{Observer, Report, Silent, StepReport, Trainer, evaluate};
