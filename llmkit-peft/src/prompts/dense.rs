use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{LearnedTensor, ParamSource, Start};

/// A linear layer that trains, `y = x W^T + b`, with torch's names, layout and start.
#[derive(Module, Debug)]
pub(super) struct Dense {
    /// `[out, in]`
    weight: Param<Tensor<2>>,
    /// `[out]`
    bias: Param<Tensor<1>>,
}

impl Dense {
    /// Fresh, uniform in `±1 / sqrt(in)`, as torch's `Linear` starts.
    pub(super) fn new(path: &str, d_input: usize, d_output: usize, source: &mut ParamSource<'_>) -> Self {
        let start = Start::Uniform((d_input as f64).powf(-0.5));
        Self {
            weight: source.param(&format!("{path}.weight"), [d_output, d_input], start.clone()),
            bias: source.param(&format!("{path}.bias"), [d_output], start),
        }
    }

    /// `count` layers that are one in the file, whose outputs are theirs one behind the other.
    pub(super) fn split(
        path: &str,
        d_input: usize,
        d_output: usize,
        count: usize,
        zero: bool,
        source: &mut ParamSource<'_>,
    ) -> Vec<Self> {
        let start = if zero { Start::Zeros } else { Start::Uniform((d_input as f64).powf(-0.5)) };
        let weights = source.params(&format!("{path}.weight"), [d_output, d_input], count, 0, start.clone());
        let biases = source.params(&format!("{path}.bias"), [d_output], count, 0, start);
        weights.into_iter().zip(biases).map(|(weight, bias)| Self { weight, bias }).collect()
    }

    /// # Shapes
    /// `[n, in]` to `[n, out]`.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }

    pub(super) fn tensors(&self, path: &str) -> [LearnedTensor<'_>; 2] {
        Self::joined(std::slice::from_ref(self), path)
    }

    /// The tensors of what [`split`](Self::split) made.
    pub(super) fn joined<'a>(layers: &'a [Self], path: &str) -> [LearnedTensor<'a>; 2] {
        [
            LearnedTensor::parts(format!("{path}.weight"), 0, layers.iter().map(|layer| &layer.weight)),
            LearnedTensor::parts(format!("{path}.bias"), 0, layers.iter().map(|layer| &layer.bias)),
        ]
    }
}
