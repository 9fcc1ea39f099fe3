use burn::tensor::Tensor;
use llmkit_core::models::Model;
use llmkit_core::nn::Layer;

use crate::linalg::Matrix;
use crate::{Error, Result};

/// What one layer of a model holds, whatever kind of layer it is. Tensors are shared with the model.
#[derive(Debug, Clone)]
pub(crate) struct LayerWeights {
    pub(crate) path: String,
    pub(crate) kind: LayerKind,
    weight: Weight,
    bias: Option<Tensor<1>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerKind {
    Linear,
    Norm,
    Embedding,
}

#[derive(Debug, Clone)]
enum Weight {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

/// The weights of one layer in two models.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) before: LayerWeights,
    pub(crate) after: LayerWeights,
}

impl LayerWeights {
    fn of(layer: Layer<'_>) -> Self {
        let path = layer.path().to_owned();
        match layer {
            Layer::Linear(linear) => Self {
                path,
                kind: LayerKind::Linear,
                weight: Weight::Matrix(linear.weight.clone()),
                bias: linear.bias.clone(),
            },
            Layer::Norm(norm) => Self {
                path,
                kind: LayerKind::Norm,
                weight: Weight::Vector(norm.weight.clone()),
                bias: norm.bias.clone(),
            },
            Layer::Embedding(embedding) => Self {
                path,
                kind: LayerKind::Embedding,
                weight: Weight::Matrix(embedding.weight.clone()),
                bias: None,
            },
        }
    }

    fn shape(&self) -> (Vec<usize>, Option<usize>) {
        let weight = match &self.weight {
            Weight::Vector(vector) => vector.dims().to_vec(),
            Weight::Matrix(matrix) => matrix.dims().to_vec(),
        };
        (weight, self.bias.as_ref().map(|bias| bias.dims()[0]))
    }

    /// The weight on the host; a vector is one row.
    pub(crate) fn matrix(&self) -> Matrix {
        match &self.weight {
            Weight::Vector(vector) => Matrix::from_tensor(vector.clone().unsqueeze()),
            Weight::Matrix(matrix) => Matrix::from_tensor(matrix.clone()),
        }
    }

    pub(crate) fn bias(&self) -> Option<Vec<f32>> {
        self.bias.clone().map(|bias| Matrix::from_tensor(bias.unsqueeze()).values)
    }
}

impl Pair {
    /// What the weight of the second has more than that of the first.
    pub(crate) fn difference(&self) -> Matrix {
        let (before, mut after) = (self.before.matrix(), self.after.matrix());
        after.values.iter_mut().zip(before.values).for_each(|(after, before)| *after -= before);
        after
    }

    /// The same for the biases, if there are any.
    pub(crate) fn bias_difference(&self) -> Option<Vec<f32>> {
        let (before, after) = self.before.bias().zip(self.after.bias())?;
        Some(after.into_iter().zip(before).map(|(after, before)| after - before).collect())
    }
}

/// The layers of two models of one architecture, side by side, in the first one's order.
///
/// # Errors
/// [`Error::OtherModel`] naming the first layer that differs in name or shape.
pub(crate) fn pairs(before: &dyn Model, after: &dyn Model) -> Result<Vec<Pair>> {
    let layers = |model: &dyn Model| {
        let mut layers = Vec::new();
        model.visit(&mut |layer| layers.push(LayerWeights::of(layer)));
        layers
    };
    let (before, after) = (layers(before), layers(after));
    if before.len() != after.len() {
        return Err(Error::OtherModel {
            path: "(all)".into(),
            expected: format!("{} layers", before.len()),
            found: format!("{} layers", after.len()),
        });
    }
    let pair = |(before, after): (LayerWeights, LayerWeights)| {
        let described = |layer: &LayerWeights| format!("{} of shape {:?}", layer.path, layer.shape());
        if before.path == after.path && before.shape() == after.shape() {
            Ok(Pair { before, after })
        } else {
            Err(Error::OtherModel {
                path: before.path.clone(),
                expected: described(&before),
                found: described(&after),
            })
        }
    };
    before.into_iter().zip(after).map(pair).collect()
}

/// The sum of squares, in double precision.
pub(crate) fn squares(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum()
}
