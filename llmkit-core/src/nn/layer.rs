use super::{Embedding, Linear, Norm};

/// One of a model's layers, as [`Model::visit`](crate::models::Model::visit) shows them.
#[derive(Debug, Clone, Copy)]
pub enum Layer<'a> {
    /// A linear layer.
    Linear(&'a Linear),
    /// A normalisation.
    Norm(&'a Norm),
    /// A table of vectors.
    Embedding(&'a Embedding),
}

/// One of a model's layers, open for change in a copy of the model.
#[derive(Debug)]
pub enum LayerMut<'a> {
    /// A linear layer.
    Linear(&'a mut Linear),
    /// A normalisation.
    Norm(&'a mut Norm),
    /// A table of vectors.
    Embedding(&'a mut Embedding),
}

impl Layer<'_> {
    /// The layer's name in the checkpoint.
    pub fn path(&self) -> &str {
        match self {
            Self::Linear(layer) => layer.path(),
            Self::Norm(layer) => layer.path(),
            Self::Embedding(layer) => layer.path(),
        }
    }

    /// How many numbers the layer holds.
    pub fn num_parameters(&self) -> usize {
        let biases = |bias: &Option<burn::tensor::Tensor<1>>| bias.as_ref().map_or(0, |bias| bias.dims()[0]);
        match self {
            Self::Linear(layer) => layer.d_input() * layer.d_output() + biases(&layer.bias),
            Self::Norm(layer) => layer.weight.dims()[0] + biases(&layer.bias),
            Self::Embedding(layer) => layer.weight.dims().iter().product(),
        }
    }
}

impl LayerMut<'_> {
    /// Gives the layer the name that it has where the model stands at `place` in a larger one.
    pub(crate) fn move_below(self, place: &str) {
        let path = match self {
            Self::Linear(layer) => layer.path_mut(),
            Self::Norm(layer) => layer.path_mut(),
            Self::Embedding(layer) => layer.path_mut(),
        };
        *path = format!("{place}.{path}");
    }
}
