use llmkit_core::Result;
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::{MemoryPlan, ModelSizes};

use super::{Recompute, TrainConfig};

/// What is computed in `f32`.
const BYTES: u64 = 4;

/// What training an adapter of `parameters` numbers on the model in `checkpoint` will take, with sequences of at most `tokens` tokens;
/// known before the model is loaded.
///
/// # Errors
/// [`Error::Config`](llmkit_core::Error::Config) naming a size of the model that is missing or impossible.
pub fn memory_plan(
    checkpoint: &Checkpoint,
    config: &TrainConfig,
    tokens: usize,
    parameters: u64,
) -> Result<MemoryPlan> {
    let sizes = ModelSizes::read(checkpoint)?;
    let positions = (config.batch_size * tokens) as u64;
    let block = positions * sizes.kept_numbers();
    // Scores of a chunk over the vocabulary, and their gradient.
    let head = 2 * (config.loss_chunk as u64).min(positions) * sizes.vocab + 2 * positions * sizes.hidden;
    let activations = match config.recompute {
        Recompute::Off => sizes.blocks * block + head,
        // Each block's input; beside them either the scores, or one block with the gradients of its output and of its input.
        Recompute::Blocks => {
            sizes.blocks * positions * sizes.hidden + head.max(block + 2 * positions * sizes.hidden)
        }
    };
    let mut plan = MemoryPlan::weights(checkpoint);
    plan.activations = activations * BYTES;
    plan.adapter = parameters * BYTES;
    plan.gradients = parameters * BYTES;
    plan.optimizer = 2 * parameters * BYTES;
    Ok(plan)
}
