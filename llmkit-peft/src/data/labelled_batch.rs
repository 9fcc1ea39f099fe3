use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Label, Labelled};

/// Labelled examples side by side, padded at the end to the longest.
#[derive(Debug, Clone)]
pub struct LabelledBatch {
    /// `[batch, seq]`
    pub ids: Tensor<2, Int>,
    /// `[batch, seq]`, for models that tell types apart.
    pub types: Option<Tensor<2, Int>>,
    /// How many tokens of each row are real.
    pub lengths: Vec<usize>,
    /// What is to be learned.
    pub labels: Labels,
}

/// The labels of a batch.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one a batch")]
pub enum Labels {
    /// The class of each row.
    Classes(Vec<usize>),
    /// `[batch, labels]`: a number for each of the model's labels.
    Values(Tensor<2>),
}

impl LabelledBatch {
    /// Puts `examples` side by side on `device`, with `pad` behind them; `types` tells whether the model tells token types apart.
    ///
    /// # Panics
    /// If there are none, one has no tokens, or their labels are of different kind or number.
    pub fn new(examples: &[&Labelled], pad: u32, types: bool, device: &Device) -> Self {
        let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
        let seq = lengths.iter().copied().max().expect("a batch has examples");
        let padded = |values: &dyn Fn(&Labelled) -> &[u32], pad: u32| {
            let rows = examples.iter().flat_map(|example| {
                let row = values(example);
                let missing = std::iter::repeat_n(pad, seq - row.len());
                row.iter().copied().chain(missing).map(|id| id as i32).collect::<Vec<_>>()
            });
            Tensor::from_data(TensorData::new(rows.collect(), [examples.len(), seq]), device)
        };
        Self {
            ids: padded(&|example| &example.ids, pad),
            types: types.then(|| padded(&|example| &example.type_ids, 0)),
            lengths,
            labels: Labels::new(examples, device),
        }
    }
}

impl Labels {
    fn new(examples: &[&Labelled], device: &Device) -> Self {
        if let Label::Class(_) = examples[0].label {
            let class = |example: &&Labelled| match example.label {
                Label::Class(class) => class,
                Label::Values(_) => panic!("a batch of classes holds an example of values"),
            };
            return Self::Classes(examples.iter().map(class).collect());
        }
        let values = |example: &&Labelled| match &example.label {
            Label::Values(values) => values.clone(),
            Label::Class(_) => panic!("a batch of values holds an example of a class"),
        };
        let rows: Vec<f32> = examples.iter().flat_map(values).collect();
        let shape = [examples.len(), rows.len() / examples.len()];
        Self::Values(Tensor::from_data(TensorData::new(rows, shape), device))
    }
}
