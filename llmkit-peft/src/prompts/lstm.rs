use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

use super::{LearnedTensor, ParamSource, Start};
use crate::Dropout;

/// A long short-term memory (Hochreiter and Schmidhuber 1997) that reads one sequence in both directions, as torch's `LSTM` does with
/// `bidirectional=True`.
#[derive(Module, Debug)]
pub(super) struct BiLstm {
    /// Of each layer, the one that reads forwards and the one that reads backwards.
    directions: Vec<Direction>,
}

/// One layer in one direction. Of each four parts, one behind the other: input gate, forget gate, cell, output gate.
#[derive(Module, Debug)]
struct Direction {
    /// `[4 hidden, in]`
    weight_ih: Param<Tensor<2>>,
    /// `[4 hidden, hidden]`
    weight_hh: Param<Tensor<2>>,
    /// `[4 hidden]`
    bias_ih: Param<Tensor<1>>,
    /// `[4 hidden]`
    bias_hh: Param<Tensor<1>>,
}

impl BiLstm {
    /// Fresh, uniform in `±1 / sqrt(hidden)`, as torch starts. The output of each layer is `2 * hidden` long.
    pub(super) fn new(
        path: &str,
        d_input: usize,
        hidden: usize,
        layers: usize,
        source: &mut ParamSource<'_>,
    ) -> Self {
        let bound = (hidden as f64).powf(-0.5);
        let directions = (0..2 * layers).map(|index| {
            let d_input = if index < 2 { d_input } else { 2 * hidden };
            let name = |part| Self::name(path, part, index);
            Direction {
                weight_ih: source.param(&name("weight_ih"), [4 * hidden, d_input], Start::Uniform(bound)),
                weight_hh: source.param(&name("weight_hh"), [4 * hidden, hidden], Start::Uniform(bound)),
                bias_ih: source.param(&name("bias_ih"), [4 * hidden], Start::Uniform(bound)),
                bias_hh: source.param(&name("bias_hh"), [4 * hidden], Start::Uniform(bound)),
            }
        });
        Self { directions: directions.collect() }
    }

    /// torch's name of a tensor of the direction of this index.
    fn name(path: &str, part: &str, index: usize) -> String {
        format!("{path}.{part}_l{}{}", index / 2, if index % 2 == 0 { "" } else { "_reverse" })
    }

    /// Dropout acts between layers.
    ///
    /// # Shapes
    /// `[n, in]` to `[n, 2 * hidden]`.
    pub(super) fn forward(&self, mut x: Tensor<2>, dropout: Option<Dropout>) -> Tensor<2> {
        for (layer, pair) in self.directions.chunks(2).enumerate() {
            if let Some(dropout) = dropout
                && layer > 0
            {
                x = dropout.derive(layer as u64).apply(x);
            }
            let [forwards, backwards] = pair else { unreachable!("each layer has two directions") };
            x = Tensor::cat(vec![forwards.forward(x.clone(), false), backwards.forward(x, true)], 1);
        }
        x
    }

    pub(super) fn tensors(&self, path: &str) -> Vec<LearnedTensor<'_>> {
        self.directions
            .iter()
            .enumerate()
            .flat_map(|(index, direction)| {
                let name = |part| Self::name(path, part, index);
                [
                    LearnedTensor::new(name("weight_ih"), &direction.weight_ih),
                    LearnedTensor::new(name("weight_hh"), &direction.weight_hh),
                    LearnedTensor::new(name("bias_ih"), &direction.bias_ih),
                    LearnedTensor::new(name("bias_hh"), &direction.bias_hh),
                ]
            })
            .collect()
    }
}

impl Direction {
    /// # Shapes
    /// `[n, in]` to `[n, hidden]`, row for row, in whichever direction it reads.
    fn forward(&self, x: Tensor<2>, backwards: bool) -> Tensor<2> {
        let n = x.dims()[0];
        let biases = self.bias_ih.val() + self.bias_hh.val();
        let from_input = x.matmul(self.weight_ih.val().transpose()) + biases.unsqueeze();
        let recurrent = self.weight_hh.val().transpose();
        let hidden = recurrent.dims()[0];

        // What was said last, and the cell; both are zero before the first step.
        let mut state: Option<(Tensor<2>, Tensor<2>)> = None;
        let mut outputs = Vec::with_capacity(n);
        for step in 0..n {
            let row = if backwards { n - 1 - step } else { step };
            let gates = from_input.clone().narrow(0, row, 1);
            let gates = match &state {
                Some((said, _)) => gates + said.clone().matmul(recurrent.clone()),
                None => gates,
            };
            let part = |index: usize| gates.clone().narrow(1, index * hidden, hidden);
            let new = sigmoid(part(0)) * part(2).tanh();
            let cell = match state {
                Some((_, cell)) => sigmoid(part(1)) * cell + new,
                None => new,
            };
            let said = sigmoid(part(3)) * cell.clone().tanh();
            outputs.push(said.clone());
            state = Some((said, cell));
        }
        if backwards {
            outputs.reverse();
        }
        Tensor::cat(outputs, 0)
    }
}
