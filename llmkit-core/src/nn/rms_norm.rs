use burn::tensor::Tensor;

use super::Weights;
use crate::kernels;

/// `y = x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019).
#[derive(Debug, Clone)]
pub struct RmsNorm {
    path: String,
    /// `[hidden]`
    pub weight: Tensor<1>,
    eps: f64,
}

impl RmsNorm {
    /// Reads `weight`.
    pub fn load(weights: &Weights<'_>, hidden_size: usize, eps: f64) -> Self {
        Self { path: weights.path().to_owned(), weight: weights.tensor("weight", [hidden_size]), eps }
    }

    /// The layer's name in the checkpoint.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        self.forward_with(input, self.weight.clone())
    }

    /// The same with another weight, as an adapter that trains norms needs it.
    ///
    /// # Shapes
    /// `input [batch, seq, hidden]`, `weight [hidden]`.
    pub fn forward_with(&self, input: Tensor<3>, weight: Tensor<1>) -> Tensor<3> {
        kernels::rms_norm(input, weight, self.eps)
    }
}
