use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::Adapter;
use llmkit_core::kernels::cross_entropy;
use llmkit_core::models::CausalLm;
use serde::{Deserialize, Serialize};

use super::Gradients;
use crate::PeftModule;
use crate::data::Batch;

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

/// The loss of one batch. Sums, not means: batches of different length add up to the mean over all their tokens.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// The negative log-likelihood, in nats, summed over the learned tokens.
    pub loss_sum: f64,
    /// How many tokens are learned.
    pub tokens: usize,
    /// The gradients of `loss_sum`.
    pub gradients: Gradients,
}

/// The loss of `batch` and its gradients.
///
/// `adapter` must be in training state (burn's [`Module::train`](burn::module::Module::train)); the model's weights are
/// constants.
pub fn loss_and_gradients<A: PeftModule>(
    model: &dyn CausalLm,
    adapter: &A,
    batch: &Batch,
    options: StepOptions,
) -> StepOutput {
    match options.recompute {
        Recompute::Off => ordinary(model, adapter, batch, options.loss_chunk),
        Recompute::Blocks => recomputing(model, adapter, batch, options.loss_chunk),
    }
}

/// The loss of `batch` without gradients, as a sum over its learned tokens.
pub fn evaluate_batch(model: &dyn CausalLm, adapter: &dyn Adapter, batch: &Batch, loss_chunk: usize) -> f64 {
    let hidden = forward(model, adapter, batch);
    chunks(&hidden, batch, loss_chunk)
        .map(|chunk| sum(cross_entropy(scores(model, adapter, chunk.hidden), chunk.targets)))
        .sum()
}

fn forward(model: &dyn CausalLm, adapter: &dyn Adapter, batch: &Batch) -> Tensor<3> {
    let hidden = model.embed(batch.ids.clone(), adapter);
    let positions = model.positions(&[0], hidden.dims()[1], None);
    (0..model.num_blocks())
        .fold(hidden, |hidden, index| model.block(index, hidden, &positions, None, adapter))
}

fn ordinary<A: PeftModule>(
    model: &dyn CausalLm,
    adapter: &A,
    batch: &Batch,
    loss_chunk: usize,
) -> StepOutput {
    let mut gradients = Gradients::new();
    let hidden = forward(model, adapter, batch);
    let (loss_sum, from_head) =
        head_backward(model, adapter, &hidden.clone().without_autodiff(), batch, loss_chunk, &mut gradients);
    if hidden.is_tracked() {
        gradients.accumulate(adapter, (hidden * from_head).sum().backward());
    }
    StepOutput { loss_sum, tokens: batch.trained_tokens(), gradients }
}

fn recomputing<A: PeftModule>(
    model: &dyn CausalLm,
    adapter: &A,
    batch: &Batch,
    loss_chunk: usize,
) -> StepOutput {
    let mut gradients = Gradients::new();
    let frozen = adapter.valid();

    let embedded = model.embed(batch.ids.clone(), &frozen);
    let positions = model.positions(&[0], embedded.dims()[1], None);
    let mut inputs = Vec::with_capacity(model.num_blocks());
    let mut hidden = embedded;
    for index in 0..model.num_blocks() {
        inputs.push(hidden.clone());
        hidden = model.block(index, hidden, &positions, None, &frozen);
    }

    let (loss_sum, mut gradient) = head_backward(model, adapter, &hidden, batch, loss_chunk, &mut gradients);
    drop(hidden);
    for (index, input) in inputs.into_iter().enumerate().rev() {
        let input = Tensor::from_inner(input).require_grad();
        let output = model.block(index, input.clone(), &positions, None, adapter);
        let mut tape = (output * gradient).sum().backward();
        gradient = input.grad_remove(&mut tape).expect("a block's output depends on its input");
        gradients.accumulate(adapter, tape);
    }
    let embedded = model.embed(batch.ids.clone(), adapter);
    if embedded.is_tracked() {
        gradients.accumulate(adapter, (embedded * gradient).sum().backward());
    }
    StepOutput { loss_sum, tokens: batch.trained_tokens(), gradients }
}

/// The loss, and its gradient with respect to the last block's output, chunk by chunk.
///
/// # Shapes
/// `hidden [batch, seq, hidden]`, without autodiff; the gradient has the same shape.
fn head_backward<A: PeftModule>(
    model: &dyn CausalLm,
    adapter: &A,
    hidden: &Tensor<3>,
    batch: &Batch,
    loss_chunk: usize,
    gradients: &mut Gradients,
) -> (f64, Tensor<3>) {
    let [rows, seq, width] = hidden.dims();
    let mut loss_sum = 0.0;
    let mut gradient = Tensor::<2>::zeros([rows * seq, width], &hidden.device());
    for chunk in chunks(hidden, batch, loss_chunk) {
        let input = Tensor::from_inner(chunk.hidden).require_grad();
        let loss = cross_entropy(scores(model, adapter, input.clone()), chunk.targets).sum();
        let mut tape = loss.backward();
        loss_sum += sum(loss.without_autodiff());
        let chunk_gradient = input.grad_remove(&mut tape).expect("the loss depends on the hidden states");
        gradients.accumulate(adapter, tape);
        gradient =
            gradient.select_assign(0, chunk.positions, chunk_gradient, burn::tensor::IndexingUpdateOp::Add);
    }
    (loss_sum, gradient.reshape([rows, seq, width]))
}

struct Chunk {
    /// `[n, hidden]`
    hidden: Tensor<2>,
    /// `[n]`
    positions: Tensor<1, Int>,
    /// `[n]`
    targets: Tensor<1, Int>,
}

/// The hidden states from which tokens are learned, a few at a time.
fn chunks<'a>(
    hidden: &'a Tensor<3>,
    batch: &'a Batch,
    loss_chunk: usize,
) -> impl Iterator<Item = Chunk> + 'a {
    let [rows, seq, width] = hidden.dims();
    let [_, read] = batch.ids.dims();
    // A prompt lengthens every row in front; nothing is learned from it.
    let place = move |position: &usize| (position / read * seq + (seq - read) + position % read) as i32;
    let flat = hidden.clone().reshape([rows * seq, width]);
    let device = hidden.device();
    let ints = move |values: Vec<i32>| {
        let len = values.len();
        Tensor::<1, Int>::from_data(TensorData::new(values, [len]), &device)
    };
    batch.positions.chunks(loss_chunk).zip(batch.targets.chunks(loss_chunk)).map(
        move |(positions, targets)| {
            let positions = ints(positions.iter().map(place).collect());
            Chunk {
                hidden: flat.clone().select(0, positions.clone()),
                positions,
                targets: ints(targets.iter().map(|target| *target as i32).collect()),
            }
        },
    )
}

/// # Shapes
/// `hidden [n, hidden]` to `[n, vocab]`.
fn scores(model: &dyn CausalLm, adapter: &dyn Adapter, hidden: Tensor<2>) -> Tensor<2> {
    model.head(hidden.unsqueeze(), adapter).squeeze_dim(0)
}

fn sum(losses: Tensor<1>) -> f64 {
    f64::from(losses.sum().into_scalar::<f32>())
}
