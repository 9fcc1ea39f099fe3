use llmkit_core::Adapter;
use serde::{Deserialize, Serialize};

use super::Gradients;
use crate::{PeftModule, Result};

/// What a [`Trainer`](super::Trainer) makes smaller: which examples there are, how they become batches, and what a batch's loss and its
/// gradients are.
///
/// A language model ([`CausalLm`](llmkit_core::models::CausalLm)) is the objective of predicting the next token, a
/// [`SequenceClassifier`](llmkit_core::models::SequenceClassifier) that of its labels. Implement it for a type of your own to train
/// for something else; batches, schedule, clipping, checkpoints and resuming stay the trainer's.
pub trait Objective: Send + Sync {
    /// One example.
    type Example;
    /// Examples side by side.
    type Batch;

    /// Refuses examples that the model can't read.
    ///
    /// # Errors
    /// [`Error::Example`](crate::Error::Example) naming the first.
    fn check(&self, examples: &[Self::Example]) -> Result<()>;

    /// The most positions that the model can read, where there is a bound: those that an adapter puts before an example count too.
    fn longest(&self) -> Option<usize> {
        None
    }

    /// The length of an example, in tokens: examples of like length share a batch.
    fn tokens(&self, example: &Self::Example) -> usize;

    /// How many things an example teaches: tokens or labels. The loss is the mean over all of them.
    fn targets(&self, example: &Self::Example) -> usize;

    /// A hash of the example, begun from `hash`: equal for equal examples, otherwise almost never.
    fn fingerprint(&self, example: &Self::Example, hash: u64) -> u64;

    /// Puts examples side by side on the device.
    ///
    /// # Panics
    /// If there are none.
    fn batch(&self, examples: &[&Self::Example]) -> Self::Batch;

    /// The loss of `batch` and its gradients.
    ///
    /// `adapter` is in training state (burn's [`Module::train`](burn::module::Module::train)); the model's weights are
    /// constants.
    fn loss_and_gradients<A: PeftModule>(
        &self,
        adapter: &A,
        batch: &Self::Batch,
        options: StepOptions,
    ) -> StepOutput;

    /// The loss of `batch` without gradients; `loss_chunk` as in [`StepOptions`].
    fn score(&self, adapter: &dyn Adapter, batch: &Self::Batch, loss_chunk: usize) -> Score;
}

/// Whether the forward pass keeps what the backward pass needs, or computes it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Everything is kept: fastest.
    #[default]
    Off,
    /// Only each block's input is kept, and one block at a time is computed again (Chen et al. 2016): the memory of one block, for about half
    /// again the time. The gradients are the same.
    Blocks,
}

/// How a batch's loss is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepOptions {
    /// Whether blocks are computed again.
    pub recompute: Recompute,
    /// How many tokens are scored over the vocabulary at a time; default 256. The scores of a whole batch never exist.
    pub loss_chunk: usize,
}

impl Default for StepOptions {
    fn default() -> Self {
        Self { recompute: Recompute::Off, loss_chunk: 256 }
    }
}

/// The loss of one batch. Sums, not means: batches of different length add up to the mean over all that they teach.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// The loss, summed over the targets: of tokens and classes the negative log-likelihood in nats.
    pub loss_sum: f64,
    /// How many tokens or labels are learned.
    pub targets: usize,
    /// Tokens read, padding included.
    pub tokens: usize,
    /// The gradients of `loss_sum`.
    pub gradients: Gradients,
}

/// What a batch scores without training on it, as sums.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    /// The loss, summed over the targets.
    pub loss_sum: f64,
    /// How many tokens or labels there are.
    pub targets: usize,
    /// How many labels were told right, where the objective decides between some.
    pub correct: Option<usize>,
}

impl Score {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        let correct = match (self.correct, other.correct) {
            (Some(a), Some(b)) => Some(a + b),
            (one, None) | (None, one) => one,
        };
        Self { loss_sum: self.loss_sum + other.loss_sum, targets: self.targets + other.targets, correct }
    }
}

/// How well a model does on held-out data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// The mean loss: of tokens and classes in nats, of numbers the squared error.
    pub loss: f64,
    /// The share of the labels that were told right, from 0 to 1, where the objective decides between some.
    pub accuracy: Option<f64>,
}

/// The loss of `batch` and its gradients: [`Objective::loss_and_gradients`].
pub fn loss_and_gradients<O: Objective + ?Sized, A: PeftModule>(
    objective: &O,
    adapter: &A,
    batch: &O::Batch,
    options: StepOptions,
) -> StepOutput {
    objective.loss_and_gradients(adapter, batch, options)
}
