//! Training: one optimizer step after another, with nothing silent and nothing lost.

mod adamw;
mod checkpoint;
mod config;
mod gradients;
mod labels;
mod memory;
mod next_token;
mod objective;
mod pass;
mod schedule;
mod sweep;
mod trainer;

pub use adamw::{AdamW, AdamWConfig};
pub use config::TrainConfig;
pub use gradients::Gradients;
pub use labels::Problem;
pub use memory::{memory_plan, method_memory_plan};
pub use objective::{Evaluation, Objective, Recompute, Score, StepOptions, StepOutput, loss_and_gradients};
pub use schedule::{Decay, Schedule};
pub use sweep::{RankRow, RankSweep, rank_sweep};
pub use trainer::{Observer, Report, Silent, StepReport, Trainer, evaluate};
