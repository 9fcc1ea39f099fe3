use std::fmt;

use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::models::{CausalLm, Editable, Encoder, MaskedLm, SequenceClassifier, TokenClassifier};
use llmkit_core::{Adapter, NoAdapter};

use crate::{Error, Method, Result};

/// A model whose outputs can be compared with another's.
pub trait Scored: Editable {
    /// The outputs for one sequence: scores of the vocabulary or of labels, or an encoder's vectors.
    ///
    /// # Shapes
    /// `ids [1, seq]` to `[1, positions, outputs]`.
    fn outputs(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3>;
}

impl Scored for dyn CausalLm {
    fn outputs(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        self.forward(ids, adapter)
    }
}

impl Scored for dyn Encoder {
    fn outputs(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        let lengths = [ids.dims()[1]];
        self.forward(ids, &lengths, None, adapter)
    }
}

impl Scored for MaskedLm {
    fn outputs(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        let lengths = [ids.dims()[1]];
        self.forward(ids, &lengths, None, adapter)
    }
}

impl Scored for TokenClassifier {
    fn outputs(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        let lengths = [ids.dims()[1]];
        self.forward(ids, &lengths, None, adapter)
    }
}

impl Scored for SequenceClassifier {
    fn outputs(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        let lengths = [ids.dims()[1]];
        self.forward(ids, &lengths, None, adapter).unsqueeze_dim(1)
    }
}

/// How far a merged model is from the base with its adapter, on sample text.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeReport {
    /// Where the outputs differ most.
    pub largest: Difference,
    /// The mean of all absolute differences.
    pub mean: f64,
    /// The largest absolute output of the base with its adapter, to measure differences by.
    pub largest_output: f32,
    /// The mean of the absolute differences between the base with and without its adapter: what merging was to bring about.
    pub mean_effect: f64,
    /// Positions compared.
    pub positions: usize,
    /// At how many of them the best output is the same.
    pub same_best: usize,
}

/// One output that differs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Which sample, from 0.
    pub sample: usize,
    /// Which position of it, from 0.
    pub position: usize,
    /// Which output: a token or label.
    pub output: usize,
    /// What the base gives with its adapter.
    pub adapted: f32,
    /// What the merged model gives.
    pub merged: f32,
}

impl Difference {
    /// How much it is.
    pub fn size(&self) -> f32 {
        (self.merged - self.adapted).abs()
    }
}

impl fmt::Display for MergeReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { sample, position, output, adapted, merged } = self.largest;
        writeln!(
            formatter,
            "largest difference {:.1e}: output {output} at position {position} of sample {sample} is {merged:.5}, unmerged {adapted:.5}",
            self.largest.size()
        )?;
        writeln!(
            formatter,
            "mean difference {:.1e}, where the adapter itself makes {:.1e} and outputs go up to {:.1}",
            self.mean, self.mean_effect, self.largest_output
        )?;
        write!(formatter, "the best output is the same at {} of {} positions", self.same_best, self.positions)
    }
}

/// Compares a merged model with the base and the adapter that it was merged from, on `samples` of token ids.
///
/// # Errors
/// [`Error::NoData`] if there is no sample or an empty one, [`Error::Output`] if an output is not a number.
pub fn verify_merge<M: Scored + ?Sized>(
    base: &M,
    merged: &M,
    adapter: &dyn Method,
    samples: &[Vec<u32>],
) -> Result<MergeReport> {
    if samples.is_empty() || samples.iter().any(Vec::is_empty) {
        return Err(Error::NoData { reason: "a merge is verified on samples of at least one token".into() });
    }
    let none = Difference { sample: 0, position: 0, output: 0, adapted: 0.0, merged: 0.0 };
    let mut report = MergeReport {
        largest: none,
        mean: 0.0,
        largest_output: 0.0,
        mean_effect: 0.0,
        positions: 0,
        same_best: 0,
    };
    let mut count = 0usize;
    for (sample, ids) in samples.iter().enumerate() {
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let len = ids.len();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, len]), &base.device());
        let read = |model: &M, adapter: &dyn Adapter| -> (Vec<f32>, usize) {
            let outputs = model.outputs(ids.clone(), adapter);
            let width = outputs.dims()[2];
            let values = outputs.without_autodiff().into_data().convert::<f32>();
            (values.try_to_vec().expect("the data was converted to f32"), width)
        };
        let ((adapted, width), (merged, _), (plain, _)) =
            (read(base, adapter), read(merged, &NoAdapter), read(base, &NoAdapter));
        if let Some(value) = adapted.iter().chain(&merged).find(|value| !value.is_finite()) {
            return Err(Error::Output { sample, value: *value });
        }
        count += adapted.len();
        for (index, (adapted, merged)) in adapted.iter().zip(&merged).enumerate() {
            let (position, output) = (index / width, index % width);
            let difference = Difference { sample, position, output, adapted: *adapted, merged: *merged };
            if difference.size() > report.largest.size() {
                report.largest = difference;
            }
            report.mean += f64::from(difference.size());
            report.largest_output = report.largest_output.max(adapted.abs());
        }
        report.mean_effect += adapted
            .iter()
            .zip(&plain)
            .map(|(adapted, plain)| f64::from((adapted - plain).abs()))
            .sum::<f64>();
        let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|best| best.0);
        for (adapted, merged) in adapted.chunks_exact(width).zip(merged.chunks_exact(width)) {
            report.positions += 1;
            report.same_best += usize::from(best(adapted) == best(merged));
        }
    }
    report.mean /= count as f64;
    report.mean_effect /= count as f64;
    Ok(report)
}
