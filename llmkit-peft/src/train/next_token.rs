use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use llmkit_core::Adapter;
use llmkit_core::kernels::cross_entropy;
use llmkit_core::models::CausalLm;
use llmkit_core::nn::Positions;

use super::pass::{self, Pass};
use super::{Gradients, Objective, Score, StepOptions, StepOutput};
use crate::data::{Batch, Example};
use crate::dropout::derive;
use crate::{Error, PeftModule, Result};

/// Predicting each next token that an [`Example`] marks as one to learn.
impl Objective for dyn CausalLm + '_ {
    type Example = Example;
    type Batch = Batch;

    fn check(&self, examples: &[Example]) -> Result<()> {
        let vocab = self.vocab_size();
        for (index, example) in examples.iter().enumerate() {
            if let Some(id) = example.ids.iter().find(|id| **id as usize >= vocab) {
                let expected = format!("ids below {vocab}; encode it with the model's own tokenizer");
                return Err(Error::Example { index, expected, found: id.to_string() });
            }
        }
        Ok(())
    }

    fn tokens(&self, example: &Example) -> usize {
        example.ids.len()
    }

    fn targets(&self, example: &Example) -> usize {
        example.trained_tokens()
    }

    fn fingerprint(&self, example: &Example, hash: u64) -> u64 {
        let start = derive(hash, ((example.ids.len() as u64) << 32) | example.prompt_len as u64);
        example.ids.iter().fold(start, |hash, id| derive(hash, u64::from(*id)))
    }

    fn batch(&self, examples: &[&Example]) -> Batch {
        Batch::new(examples, &self.device())
    }

    fn loss_and_gradients<A: PeftModule>(
        &self,
        adapter: &A,
        batch: &Batch,
        options: StepOptions,
    ) -> StepOutput {
        let pass = NextToken { model: self, batch, loss_chunk: options.loss_chunk };
        let (loss_sum, gradients) = pass::backward(&pass, adapter, options.recompute);
        StepOutput { loss_sum, targets: batch.trained_tokens(), tokens: batch.tokens(), gradients }
    }

    fn score(&self, adapter: &dyn Adapter, batch: &Batch, loss_chunk: usize) -> Score {
        let (hidden, _) = pass::forward(&NextToken { model: self, batch, loss_chunk }, adapter);
        let losses = chunks(&hidden, batch, loss_chunk)
            .map(|chunk| sum(cross_entropy(scores(self, adapter, chunk.hidden), chunk.targets)));
        Score { loss_sum: losses.sum(), targets: batch.trained_tokens(), correct: None }
    }
}

struct NextToken<'a> {
    model: &'a dyn CausalLm,
    batch: &'a Batch,
    loss_chunk: usize,
}

impl Pass for NextToken<'_> {
    type Context = Positions;

    fn embed(&self, adapter: &dyn Adapter) -> (Tensor<3>, Positions) {
        let hidden = self.model.embed(self.batch.ids.clone(), adapter);
        let positions = self.model.positions(&[adapter.prefix_len()], hidden.dims()[1], None);
        (hidden, positions)
    }

    fn num_blocks(&self) -> usize {
        self.model.num_blocks()
    }

    fn block(
        &self,
        index: usize,
        hidden: Tensor<3>,
        positions: &Positions,
        adapter: &dyn Adapter,
    ) -> Tensor<3> {
        self.model.block(index, hidden, positions, None, adapter)
    }

    /// The loss goes chunk by chunk, so that the scores of the whole batch over the vocabulary never exist.
    fn head_backward<A: PeftModule>(
        &self,
        adapter: &A,
        hidden: &Tensor<3>,
        _positions: &Positions,
        gradients: &mut Gradients,
    ) -> (f64, Tensor<3>) {
        let [rows, seq, width] = hidden.dims();
        let mut loss_sum = 0.0;
        let mut gradient = Tensor::<2>::zeros([rows * seq, width], &hidden.device());
        for chunk in chunks(hidden, self.batch, self.loss_chunk) {
            let input = Tensor::from_inner(chunk.hidden).require_grad();
            let loss = cross_entropy(scores(self.model, adapter, input.clone()), chunk.targets).sum();
            let mut tape = loss.backward();
            loss_sum += sum(loss.without_autodiff());
            let chunk_gradient = input.grad_remove(&mut tape).expect("the loss depends on the hidden states");
            gradients.accumulate(adapter, tape);
            gradient = gradient.select_assign(0, chunk.positions, chunk_gradient, IndexingUpdateOp::Add);
        }
        (loss_sum, gradient.reshape([rows, seq, width]))
    }
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
