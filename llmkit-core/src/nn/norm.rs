use burn::tensor::Tensor;

use super::Weights;
use crate::kernels;

/// What a [`Norm`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019).
    Rms,
    /// The same with `1 + weight`, as Gemma stores its weights.
    RmsOffset,
    /// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, with the biased variance (Ba et al. 2016).
    Layer,
}

/// What distinguishes one normalisation from another, apart from its weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormConfig {
    /// What it computes.
    pub kind: NormKind,
    /// Added to the mean square or the variance before the root.
    pub eps: f64,
    /// Whether there is a bias.
    pub bias: bool,
}

impl NormConfig {
    /// A root mean square normalisation.
    pub fn rms(eps: f64) -> Self {
        Self { kind: NormKind::Rms, eps, bias: false }
    }

    /// A root mean square normalisation by `1 + weight`.
    pub fn rms_offset(eps: f64) -> Self {
        Self { kind: NormKind::RmsOffset, eps, bias: false }
    }

    /// A layer normalisation with a bias.
    pub fn layer(eps: f64) -> Self {
        Self { kind: NormKind::Layer, eps, bias: true }
    }
}

/// A normalisation of vectors.
#[derive(Debug, Clone)]
pub struct Norm {
    path: String,
    /// `[hidden]`
    pub weight: Tensor<1>,
    /// `[hidden]`
    pub bias: Option<Tensor<1>>,
    kind: NormKind,
    eps: f64,
}

impl Norm {
    /// A normalisation named `path` over tensors that are already there.
    ///
    /// # Shapes
    /// `weight` and `bias` `[hidden]`.
    pub fn new(
        path: impl Into<String>,
        weight: Tensor<1>,
        bias: Option<Tensor<1>>,
        config: NormConfig,
    ) -> Self {
        Self { path: path.into(), weight, bias, kind: config.kind, eps: config.eps }
    }

    /// Reads `weight`, and `bias` where there is one.
    pub fn load(weights: &Weights<'_>, hidden_size: usize, config: NormConfig) -> Self {
        Self {
            path: weights.path().to_owned(),
            weight: weights.tensor("weight", [hidden_size]),
            bias: config.bias.then(|| weights.tensor("bias", [hidden_size])),
            kind: config.kind,
            eps: config.eps,
        }
    }

    pub(super) fn path_mut(&mut self) -> &mut String {
        &mut self.path
    }

    /// The layer's name in the checkpoint.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it computes.
    pub fn kind(&self) -> NormKind {
        self.kind
    }

    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        self.forward_with(input, self.weight.clone(), self.bias.clone())
    }

    /// The same with another weight and bias, as an adapter that trains norms needs it.
    ///
    /// # Shapes
    /// `input [batch, seq, hidden]`, `weight` and `bias [hidden]`.
    pub fn forward_with(&self, input: Tensor<3>, weight: Tensor<1>, bias: Option<Tensor<1>>) -> Tensor<3> {
        let weight = match self.kind {
            NormKind::Rms => weight,
            NormKind::RmsOffset => weight + 1.0,
            NormKind::Layer => {
                let bias = bias.unwrap_or_else(|| Tensor::zeros(weight.dims(), &self.weight.device()));
                return kernels::layer_norm(input, weight, bias, self.eps);
            }
        };
        let output = kernels::rms_norm(input, weight, self.eps);
        match bias {
            Some(bias) => output + bias.unsqueeze(),
            None => output,
        }
    }
}
