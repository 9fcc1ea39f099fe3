use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::super::compose::square;
use super::AdamwStep;

pub(super) fn adamw<B: Backend>(
    value: FloatTensor<B>,
    gradient: FloatTensor<B>,
    mean: FloatTensor<B>,
    mean_square: FloatTensor<B>,
    step: AdamwStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let AdamwStep { beta1, beta2, eps, rate, correction, decay } = step;
    let scaled = |x, factor: f64| B::float_mul_scalar(x, factor.into());
    let mean = B::float_add(scaled(mean, beta1), scaled(gradient.clone(), 1.0 - beta1));
    let mean_square = B::float_add(scaled(mean_square, beta2), scaled(square::<B>(gradient), 1.0 - beta2));
    let root = B::float_div_scalar(B::float_sqrt(mean_square.clone()), correction.into());
    let update = B::float_div(mean.clone(), B::float_add_scalar(root, eps.into()));
    let value = B::float_sub(scaled(value, decay), scaled(update, rate));
    (value, mean, mean_square)
}
