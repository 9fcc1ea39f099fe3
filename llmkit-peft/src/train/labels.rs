use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::Adapter;
use llmkit_core::kernels::cross_entropy;
use llmkit_core::models::{Extent, Model, SequenceClassifier};
use serde_json::Value;

use super::pass::{self, Pass};
use super::{Gradients, Objective, Score, StepOptions, StepOutput};
use crate::data::{Label, Labelled, LabelledBatch, Labels};
use crate::dropout::derive;
use crate::{Error, PeftModule, Result};

/// What a classifier's scores mean, and so what its loss is: transformers' `problem_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Numbers to predict: the mean squared error.
    Regression,
    /// One class applies: cross-entropy.
    SingleLabel,
    /// Each label applies or not, whatever the others do: binary cross-entropy.
    MultiLabel,
}

impl Problem {
    /// What the configuration says, or else what `label` shows, as transformers decides it: a model of one label predicts a number.
    fn of(model: &SequenceClassifier, label: &Label) -> Self {
        match model.config().get("problem_type").and_then(Value::as_str) {
            Some("regression") => Self::Regression,
            Some("single_label_classification") => Self::SingleLabel,
            Some("multi_label_classification") => Self::MultiLabel,
            _ if model.labels().len() == 1 => Self::Regression,
            _ => match label {
                Label::Class(_) => Self::SingleLabel,
                Label::Values(_) => Self::MultiLabel,
            },
        }
    }

    fn of_batch(model: &SequenceClassifier, labels: &Labels) -> Self {
        Self::of(
            model,
            &match labels {
                Labels::Classes(_) => Label::Class(0),
                Labels::Values(_) => Label::Values(Vec::new()),
            },
        )
    }
}

/// Telling each sequence's label: cross-entropy for classes, binary cross-entropy where several labels may apply, the squared error for
/// numbers, as the configuration's `problem_type` says or, where it is silent, the labels show.
///
/// The dropout of the base model's own configuration (BERT's 0.1) is not applied; a method brings its own.
impl Objective for SequenceClassifier {
    type Example = Labelled;
    type Batch = LabelledBatch;

    fn check(&self, examples: &[Labelled]) -> Result<()> {
        let (vocab, longest) = (self.encoder().vocab_size(), self.encoder().max_positions());
        let types = self.encoder().num_token_types();
        let count = self.labels().len();
        for (index, example) in examples.iter().enumerate() {
            let wrong = |expected: String, found: String| Err(Error::Example { index, expected, found });
            if example.ids.is_empty() || example.ids.len() > longest {
                return wrong(format!("from 1 to {longest} tokens"), example.ids.len().to_string());
            }
            if let Some(id) = example.ids.iter().find(|id| **id as usize >= vocab) {
                let expected = format!("ids below {vocab}; encode it with the model's own tokenizer");
                return wrong(expected, id.to_string());
            }
            if types > 1 && example.type_ids.len() != example.ids.len() {
                return wrong(
                    format!("{} token types", example.ids.len()),
                    example.type_ids.len().to_string(),
                );
            }
            if let Some(kind) = example.type_ids.iter().find(|kind| types > 1 && **kind as usize >= types) {
                return wrong(format!("token types below {types}"), kind.to_string());
            }
            let found = || format!("{:?}", example.label);
            match (Problem::of(self, &example.label), &example.label) {
                (Problem::SingleLabel, Label::Class(class)) if *class < count => {}
                (Problem::SingleLabel, _) => return wrong(format!("a class below {count}"), found()),
                (Problem::Regression, Label::Values(values))
                    if values.len() == count && values.iter().all(|value| value.is_finite()) => {}
                (Problem::Regression, _) => return wrong(format!("{count} finite values"), found()),
                (Problem::MultiLabel, Label::Values(values))
                    if values.len() == count && values.iter().all(|value| (0.0..=1.0).contains(value)) => {}
                (Problem::MultiLabel, _) => {
                    let expected = format!(
                        "{count} values from 0 to 1 (for numbers to predict, the configuration's `problem_type` is \"regression\")"
                    );
                    return wrong(expected, found());
                }
            }
        }
        // A batch holds one kind.
        let kind = |example: &Labelled| std::mem::discriminant(&example.label);
        if let Some(index) = examples.iter().position(|example| kind(example) != kind(&examples[0])) {
            let expected = format!("a label of the same kind as the first, {:?}", examples[0].label);
            return Err(Error::Example { index, expected, found: format!("{:?}", examples[index].label) });
        }
        Ok(())
    }

    fn longest(&self) -> Option<usize> {
        Some(self.encoder().max_positions())
    }

    fn tokens(&self, example: &Labelled) -> usize {
        example.ids.len()
    }

    fn targets(&self, example: &Labelled) -> usize {
        match &example.label {
            Label::Class(_) => 1,
            Label::Values(values) => values.len(),
        }
    }

    fn fingerprint(&self, example: &Labelled, hash: u64) -> u64 {
        let start = derive(hash, example.ids.len() as u64);
        let ids = example.ids.iter().chain(&example.type_ids);
        let hash = ids.fold(start, |hash, id| derive(hash, u64::from(*id)));
        match &example.label {
            Label::Class(class) => derive(hash, *class as u64),
            Label::Values(values) => {
                values.iter().fold(hash, |hash, value| derive(hash, u64::from(value.to_bits())))
            }
        }
    }

    fn batch(&self, examples: &[&Labelled]) -> LabelledBatch {
        // RoBERTa counts positions by what the padding is.
        let pad = self.config().get("pad_token_id").and_then(Value::as_u64);
        let vocab = self.encoder().vocab_size() as u64;
        let pad = pad.filter(|pad| *pad < vocab).unwrap_or(0) as u32;
        LabelledBatch::new(examples, pad, self.encoder().num_token_types() > 1, &self.device())
    }

    fn loss_and_gradients<A: PeftModule>(
        &self,
        adapter: &A,
        batch: &LabelledBatch,
        options: StepOptions,
    ) -> StepOutput {
        let pass = Classify { model: self, batch };
        let (loss_sum, gradients) = pass::backward(&pass, adapter, options.recompute);
        let tokens = batch.ids.dims().iter().product();
        StepOutput { loss_sum, targets: pass.targets(), tokens, gradients }
    }

    fn score(&self, adapter: &dyn Adapter, batch: &LabelledBatch, _loss_chunk: usize) -> Score {
        let pass = Classify { model: self, batch };
        let (hidden, extent) = pass::forward(&pass, adapter);
        let scores = pass.scores(hidden, &extent, adapter).without_autodiff();
        let correct = pass.correct(scores.clone());
        let loss_sum = f64::from(pass.loss(scores).into_scalar::<f32>());
        Score { loss_sum, targets: pass.targets(), correct }
    }
}

struct Classify<'a> {
    model: &'a SequenceClassifier,
    batch: &'a LabelledBatch,
}

impl Classify<'_> {
    fn targets(&self) -> usize {
        match &self.batch.labels {
            Labels::Classes(classes) => classes.len(),
            Labels::Values(values) => values.dims().iter().product(),
        }
    }

    /// # Shapes
    /// `[batch, labels]`
    fn scores(&self, hidden: Tensor<3>, extent: &Extent, adapter: &dyn Adapter) -> Tensor<2> {
        let hidden = self.model.encoder().finish(hidden, adapter);
        self.model.head(hidden, &extent.lengths, adapter)
    }

    /// The loss summed over the targets, `[1]`.
    fn loss(&self, scores: Tensor<2>) -> Tensor<1> {
        match (&self.batch.labels, Problem::of_batch(self.model, &self.batch.labels)) {
            (Labels::Classes(classes), _) => cross_entropy(scores, self.classes(classes)).sum(),
            (Labels::Values(values), Problem::MultiLabel) => {
                // ln(1 + e^x) - x y, without overflow.
                let soft = scores.clone().clamp_min(0.0) + scores.clone().abs().neg().exp().log1p();
                (soft - scores * values.clone()).sum()
            }
            (Labels::Values(values), _) => (scores - values.clone()).square().sum(),
        }
    }

    fn correct(&self, scores: Tensor<2>) -> Option<usize> {
        let right = match (&self.batch.labels, Problem::of_batch(self.model, &self.batch.labels)) {
            (Labels::Classes(classes), _) => {
                scores.argmax(1).squeeze_dim::<1>(1).equal(self.classes(classes)).int().sum()
            }
            (Labels::Values(values), Problem::MultiLabel) => {
                scores.greater_elem(0.0).equal(values.clone().greater_elem(0.5)).int().sum()
            }
            (Labels::Values(_), _) => return None,
        };
        Some(right.into_scalar::<i64>() as usize)
    }

    fn classes(&self, classes: &[usize]) -> Tensor<1, Int> {
        let classes: Vec<i32> = classes.iter().map(|class| *class as i32).collect();
        let shape = [classes.len()];
        Tensor::from_data(TensorData::new(classes, shape), &self.model.device())
    }
}

impl Pass for Classify<'_> {
    type Context = Extent;

    fn embed(&self, adapter: &dyn Adapter) -> (Tensor<3>, Extent) {
        let LabelledBatch { ids, types, lengths, .. } = self.batch;
        let encoder = self.model.encoder();
        let hidden = encoder.embed(ids.clone(), types.clone(), adapter);
        let ([_, seq, _], [_, given]) = (hidden.dims(), ids.dims());
        let lengths: Vec<_> = lengths.iter().map(|length| length + seq - given).collect();
        (hidden, encoder.extent(&lengths, seq))
    }

    fn num_blocks(&self) -> usize {
        self.model.num_blocks()
    }

    fn block(&self, index: usize, hidden: Tensor<3>, extent: &Extent, adapter: &dyn Adapter) -> Tensor<3> {
        self.model.encoder().block(index, hidden, extent, adapter)
    }

    fn head_backward<A: PeftModule>(
        &self,
        adapter: &A,
        hidden: &Tensor<3>,
        extent: &Extent,
        gradients: &mut Gradients,
    ) -> (f64, Tensor<3>) {
        let input = Tensor::from_inner(hidden.clone()).require_grad();
        let loss = self.loss(self.scores(input.clone(), extent, adapter));
        let mut tape = loss.backward();
        let gradient = input.grad_remove(&mut tape).expect("the loss depends on the hidden states");
        gradients.accumulate(adapter, tape);
        (f64::from(loss.without_autodiff().into_scalar::<f32>()), gradient)
    }
}
