use burn::tensor::{Tensor, activation};

use crate::Error;
use crate::embed::folder::Json;

/// A function at the end of a layer, as sentence-transformers names it by its torch class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `x`.
    Identity,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// `x Phi(x)`.
    Gelu,
    /// `x sigmoid(x)`.
    Silu,
}

impl Function {
    /// The function of a class such as `torch.nn.modules.activation.Tanh`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let class = name.strip_prefix("torch.")?.rsplit('.').next()?;
        match class {
            "Identity" => Some(Self::Identity),
            "Sigmoid" => Some(Self::Sigmoid),
            "Tanh" => Some(Self::Tanh),
            "ReLU" => Some(Self::Relu),
            "GELU" => Some(Self::Gelu),
            "SiLU" => Some(Self::Silu),
            _ => None,
        }
    }

    /// The error for a name that [`named`](Self::named) doesn't know.
    pub(super) fn unknown(json: &Json, field: &str, found: &str) -> Error {
        let known = "torch's Identity, Sigmoid, Tanh, ReLU, GELU or SiLU, with its module's name";
        json.wrong(field, known, found)
    }

    /// The function at each element of `x`.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Identity => x,
            Self::Sigmoid => activation::sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Relu => activation::relu(x),
            Self::Gelu => activation::gelu(x),
            Self::Silu => activation::silu(x),
        }
    }
}
