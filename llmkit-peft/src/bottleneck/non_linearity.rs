use burn::tensor::{Tensor, activation};

/// The function between a bottleneck's projections, by its name in AdapterHub (and transformers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonLinearity {
    /// `max(x, 0)`: `relu`.
    #[default]
    Relu,
    /// `max(x, 0)^2`: `relu2`.
    Relu2,
    /// `min(max(x, 0), 6)`: `relu6`.
    Relu6,
    /// `x` where positive, else `0.01 x`: `leaky_relu` or `leakyrelu`.
    LeakyRelu,
    /// `x Phi(x)` by the error function: `gelu` or `gelu_python`.
    Gelu,
    /// GELU, clipped to ±10: `gelu_10`.
    Gelu10,
    /// GELU's approximation by the hyperbolic tangent: `gelu_new`, `gelu_pytorch_tanh`, `gelu_python_tanh`, `gelu_accurate` or `gelu_fast`.
    GeluTanh,
    /// GELU's approximation `x sigmoid(1.702 x)`: `quick_gelu`.
    QuickGelu,
    /// `x sigmoid(x)`: `swish` or `silu`.
    Swish,
    /// The hyperbolic tangent: `tanh`.
    Tanh,
    /// `1 / (1 + exp(-x))`: `sigmoid`.
    Sigmoid,
    /// `x tanh(ln(1 + exp(x)))`: `mish` (Misra 2019).
    Mish,
    /// The distribution function of a normal distribution that resembles `relu2`: `laplace` (Ma et al. 2022).
    Laplace,
    /// Nothing: `linear`.
    Linear,
}

use NonLinearity as N;

/// All names; of several for one function the first is the one for a new file.
const NAMES: [(&str, NonLinearity); 21] = [
    ("relu", N::Relu),
    ("relu2", N::Relu2),
    ("relu6", N::Relu6),
    ("leaky_relu", N::LeakyRelu),
    ("leakyrelu", N::LeakyRelu),
    ("gelu", N::Gelu),
    ("gelu_python", N::Gelu),
    ("gelu_10", N::Gelu10),
    ("gelu_new", N::GeluTanh),
    ("gelu_pytorch_tanh", N::GeluTanh),
    ("gelu_python_tanh", N::GeluTanh),
    ("gelu_accurate", N::GeluTanh),
    ("gelu_fast", N::GeluTanh),
    ("quick_gelu", N::QuickGelu),
    ("swish", N::Swish),
    ("silu", N::Swish),
    ("tanh", N::Tanh),
    ("sigmoid", N::Sigmoid),
    ("mish", N::Mish),
    ("laplace", N::Laplace),
    ("linear", N::Linear),
];

impl NonLinearity {
    /// The function of this name; letters of either case.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, function)| *function)
    }

    /// The name in AdapterHub's files.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, function)| *function == self).expect("every function has a name").0
    }

    /// Every name that is understood.
    pub(super) fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// The function at each element of `x`.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => activation::relu(x),
            Self::Relu2 => activation::relu(x).square(),
            Self::Relu6 => activation::relu(x).clamp_max(6.0),
            Self::LeakyRelu => activation::leaky_relu(x, 0.01),
            Self::Gelu => activation::gelu(x),
            Self::Gelu10 => activation::gelu(x).clamp(-10.0, 10.0),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Swish => activation::silu(x),
            Self::Tanh => activation::tanh(x),
            Self::Sigmoid => activation::sigmoid(x),
            Self::Mish => activation::mish(x),
            Self::Laplace => {
                // The mean sqrt(1/2), the variance 1 / (4 pi).
                let deviation = (4.0 * std::f64::consts::PI).powf(-0.5);
                let centered = x - std::f64::consts::FRAC_1_SQRT_2;
                ((centered / (deviation * std::f64::consts::SQRT_2)).erf() + 1.0) * 0.5
            }
            Self::Linear => x,
        }
    }
}
