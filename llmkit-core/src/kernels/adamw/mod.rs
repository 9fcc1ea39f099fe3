//! A step of AdamW.

#[cfg(feature = "cpu")]
mod flex;
mod primitive;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// The numbers of one step of AdamW, the same for every parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwStep {
    /// How much of the mean gradient stays.
    pub beta1: f64,
    /// How much of the mean squared gradient stays.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// The learning rate by `1 - beta1^t`, which corrects the mean of `t` steps that began at zero.
    pub rate: f64,
    /// The root of `1 - beta2^t`, which corrects that of the mean square.
    pub correction: f64,
    /// What stays of a parameter before it moves: `1 - learning rate * weight decay`.
    pub decay: f64,
}

/// A parameter and the running means of its gradient and of its square.
#[derive(Debug, Clone)]
pub struct AdamwState {
    /// `[n]`
    pub value: Tensor<1>,
    /// `[n]`
    pub mean: Tensor<1>,
    /// `[n]`
    pub mean_square: Tensor<1>,
}

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>), in torch's order of operations:
/// `mean = beta1 mean + (1 - beta1) g`, `mean_square = beta2 mean_square + (1 - beta2) g^2`,
/// `value = decay value - rate mean / (sqrt(mean_square) / correction + eps)`.
///
/// Tensors that nobody else holds are written in place.
///
/// # Shapes
/// `[n]`, all; none of an autodiff device.
///
/// # Panics
/// If the lengths differ.
pub fn adamw(state: AdamwState, gradient: Tensor<1>, step: AdamwStep) -> AdamwState {
    let AdamwState { value, mean, mean_square } = state;
    let len = value.dims();
    assert!(
        [gradient.dims(), mean.dims(), mean_square.dims()].iter().all(|other| *other == len),
        "adamw: gradient {:?} and means {:?}, {:?} of a parameter {len:?}",
        gradient.dims(),
        mean.dims(),
        mean_square.dims()
    );
    let (value, mean, mean_square) = <Dispatch as Adamw>::adamw(
        value.into_dispatch(),
        gradient.into_dispatch(),
        mean.into_dispatch(),
        mean_square.into_dispatch(),
        step,
    );
    AdamwState {
        value: Tensor::from_dispatch(value),
        mean: Tensor::from_dispatch(mean),
        mean_square: Tensor::from_dispatch(mean_square),
    }
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(any(feature = "wgpu", feature = "cuda")))]
trait Adamw: Backend {
    fn adamw(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mean_square: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

#[cfg(feature = "cpu")]
impl Adamw for burn::backend::Flex {
    fn adamw(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mean_square: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        flex::adamw(value, gradient, mean, mean_square, step)
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl Adamw for burn::backend::Cube {
    fn adamw(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mean_square: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitive::adamw::<Self>(value, gradient, mean, mean_square, step)
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn the_fast_body_equals_the_plain_one() {
        // Longer than one task, and no multiple of a vector.
        let len = 70_003;
        let tensor = |seed: u64, positive: bool| {
            let mut state = seed;
            let values = (0..len).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let value = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                if positive { value.abs() } else { value }
            });
            FlexTensor::from_data(TensorData::new(values.collect::<Vec<_>>(), [len]))
        };
        for decay in [1.0, 0.99] {
            let step = AdamwStep { beta1: 0.9, beta2: 0.999, eps: 1e-8, rate: 1e-3, correction: 0.3, decay };
            let inputs = || (tensor(1, false), tensor(2, false), tensor(3, false), tensor(4, true));
            let (value, gradient, mean, square) = inputs();
            let fast = flex::adamw(value, gradient, mean, square, step);
            let (value, gradient, mean, square) = inputs();
            let plain = primitive::adamw::<Flex>(value, gradient, mean, square, step);
            for (fast, plain) in [(&fast.0, &plain.0), (&fast.1, &plain.1), (&fast.2, &plain.2)] {
                let pairs = fast.storage::<f32>().iter().zip(plain.storage::<f32>());
                let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
                assert!(largest < 1e-6, "{largest}");
            }
            assert_ne!(fast.0.storage::<f32>()[5], tensor(1, false).storage::<f32>()[5]);
        }
    }
}
