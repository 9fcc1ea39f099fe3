use llmkit_core::Result;
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::{MemoryPlan, ModelSizes};

use super::{Recompute, TrainConfig};
use crate::advise::MethodCost;

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
    method_memory_plan(checkpoint, config, tokens, &MethodCost::parameters(parameters))
}

/// The same for a method of which more counts than its parameters: [`Choice::cost`](crate::advise::Choice::cost) says what.
///
/// # Errors
/// As [`memory_plan`].
pub fn method_memory_plan(
    checkpoint: &Checkpoint,
    config: &TrainConfig,
    tokens: usize,
    cost: &MethodCost,
) -> Result<MemoryPlan> {
    let sizes = ModelSizes::read(checkpoint)?;
    let product = |factors: &[u64]| factors.iter().copied().fold(1, u64::saturating_mul);
    let tokens = (tokens as u64).saturating_add(cost.prompt);
    let positions = product(&[config.batch_size as u64, tokens]);
    let stream = product(&[positions, sizes.hidden]);
    let of_method = cost.kept_per_token.div_ceil(sizes.blocks.max(1));
    let block = product(&[positions, sizes.kept_numbers().saturating_add(of_method)]);
    // Scores of a chunk over the vocabulary, and their gradient.
    let scores = product(&[2, (config.loss_chunk as u64).min(positions), sizes.vocab]);
    let two_streams = stream.saturating_mul(2);
    let head = scores.saturating_add(two_streams);
    let activations = match config.recompute {
        Recompute::Off => product(&[sizes.blocks, block]).saturating_add(head),
        // Each block's input; beside them either the scores, or one block with the gradients of its output and of its input.
        Recompute::Blocks => {
            let beside = head.max(block.saturating_add(two_streams));
            product(&[sizes.blocks, stream]).saturating_add(beside)
        }
    };
    let mut plan = MemoryPlan::weights(checkpoint);
    plan.activations = activations.saturating_mul(BYTES);
    plan.adapter = cost.parameters.saturating_add(cost.fixed).saturating_mul(BYTES);
    plan.gradients = cost.parameters.saturating_mul(BYTES);
    plan.optimizer = cost.parameters.saturating_mul(2 * BYTES);
    Ok(plan)
}
