use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::random;

/// How a method's tensors start: PEFT's `init_weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum InitWeights {
    /// So that the model computes as before.
    #[default]
    Identity,
    /// At random: not the identity, for tests.
    Random,
}

impl From<bool> for InitWeights {
    fn from(identity: bool) -> Self {
        if identity { Self::Identity } else { Self::Random }
    }
}

impl From<InitWeights> for bool {
    fn from(init: InitWeights) -> Self {
        init == InitWeights::Identity
    }
}

/// A matrix of zeros.
pub(crate) fn zeros(shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    filled(shape, device, || 0.0)
}

/// A matrix uniform in `±1 / sqrt(columns)`: He's initialisation with `a = sqrt(5)`, torch's for linear layers.
pub(crate) fn he_uniform(shape: [usize; 2], rng: &mut ChaCha8Rng, device: &Device) -> Param<Tensor<2>> {
    let bound = (shape[1] as f64).powf(-0.5);
    filled(shape, device, || rng.random_range(-bound..bound) as f32)
}

/// A normal tensor.
pub(crate) fn normal<const D: usize>(
    shape: [usize; D],
    mean: f32,
    std: f64,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Param<Tensor<D>> {
    let mut values = random::normal(shape.iter().product(), std, rng).into_iter();
    filled(shape, device, || mean + values.next().expect("as many as the tensor has"))
}

/// A tensor of drawn values.
pub(crate) fn filled<const D: usize>(
    shape: [usize; D],
    device: &Device,
    mut value: impl FnMut() -> f32,
) -> Param<Tensor<D>> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| value()).collect();
    Param::from_data(TensorData::new(values, shape), device)
}
