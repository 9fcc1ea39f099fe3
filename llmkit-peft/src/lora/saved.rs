use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use llmkit_core::nn::{Embedding, Layer, Linear, Norm, lookup, matmul_transposed};

/// A layer that trains whole (PEFT's `modules_to_save`), or whose bias alone does: a copy that stands in for the base's.
#[derive(Module, Debug)]
pub(crate) struct SavedLayer {
    /// A linear layer's `[out, in]`, or an embedding's `[vocab, hidden]`.
    pub(crate) matrix: Option<Param<Tensor<2>>>,
    /// A norm's `[hidden]`.
    pub(crate) vector: Option<Param<Tensor<1>>>,
    /// `[out]`
    pub(crate) bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) path: String,
}

impl SavedLayer {
    /// A copy of the whole layer.
    pub(crate) fn whole(layer: Layer<'_>) -> Self {
        let (matrix, vector, bias) = match layer {
            Layer::Linear(linear) => (Some(&linear.weight), None, linear.bias.as_ref()),
            Layer::Norm(norm) => (None, Some(&norm.weight), norm.bias.as_ref()),
            Layer::Embedding(embedding) => (Some(&embedding.weight), None, None),
        };
        Self {
            matrix: matrix.map(|matrix| Param::from_tensor(matrix.clone())),
            vector: vector.map(|vector| Param::from_tensor(vector.clone())),
            bias: bias.map(|bias| Param::from_tensor(bias.clone())),
            path: layer.path().to_owned(),
        }
    }

    /// A copy of a linear layer's bias.
    pub(crate) fn bias_only(linear: &Linear) -> Option<Self> {
        let bias = Param::from_tensor(linear.bias.clone()?);
        Some(Self { matrix: None, vector: None, bias: Some(bias), path: linear.path().to_owned() })
    }

    pub(crate) fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        let weight = self.matrix.as_ref().map_or_else(|| base.weight.clone(), Param::val);
        let output = matmul_transposed(input, weight);
        match &self.bias {
            Some(bias) => output + bias.val().unsqueeze(),
            None => output,
        }
    }

    pub(crate) fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        match &self.matrix {
            Some(matrix) => lookup(matrix.val(), ids),
            None => base.forward(ids),
        }
    }

    pub(crate) fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        match &self.vector {
            Some(vector) => base.forward_with(input, vector.val(), self.bias.as_ref().map(Param::val)),
            None => base.forward(input),
        }
    }
}
