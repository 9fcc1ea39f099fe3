use burn::tensor::Tensor;

/// The squared lengths of the rows of `W + s B A`, from those of `W`:
/// `|w_i|^2 + 2 s <w_i, (B A)_i> + s^2 |(B A)_i|^2`, without ever forming `B A`.
///
/// DoRA (Liu et al. 2024, <https://arxiv.org/abs/2402.09353>, section 4.3) takes these lengths as constants: nothing here is tracked.
///
/// # Shapes
/// `squares [out]` (of `W`), `weight [out, in]`, `a [r, in]`, `b [out, r]`, result `[out]`.
pub(super) fn lengths(
    squares: &Tensor<1>,
    weight: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
) -> Tensor<1> {
    let (a, b) = (a.without_autodiff(), b.without_autodiff());
    let inner = weight.matmul(a.clone().transpose()) * (2.0 * scale);
    let gram = a.clone().matmul(a.transpose()) * (scale * scale);
    let change = ((inner + b.clone().matmul(gram)) * b).sum_dim(1).squeeze_dim::<1>(1);
    // Rounding must not give a negative square, nor a row of zeros something that is no number.
    (squares.clone() + change).clamp_min(f32::MIN_POSITIVE).sqrt()
}

/// The squared lengths of the rows of `weight`.
///
/// # Shapes
/// `[out, in]` to `[out]`.
pub(super) fn squares(weight: Tensor<2>) -> Tensor<1> {
    weight.square().sum_dim(1).squeeze_dim::<1>(1)
}

#[cfg(test)]
mod tests {
    use super::{lengths, squares};
    use burn::tensor::{Device, Tensor};

    #[test]
    fn the_closed_form_gives_the_lengths_of_the_sum() {
        let device = Device::flex();
        let weight = Tensor::<2>::from_data([[1.0f32, -2.0, 3.0], [0.5, 0.25, -1.0]], &device);
        let a = Tensor::<2>::from_data([[0.5f32, 1.0, -1.5], [2.0, 0.0, 1.0]], &device);
        let b = Tensor::<2>::from_data([[1.0f32, -0.5], [0.25, 2.0]], &device);
        let found = lengths(&squares(weight.clone()), weight.clone(), a.clone(), b.clone(), 1.5);
        let sum = weight + b.matmul(a) * 1.5;
        let expected = squares(sum).sqrt();
        let difference: f32 = (found - expected).abs().max().into_scalar();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn a_row_that_vanishes_has_a_length() {
        let device = Device::flex();
        let weight = Tensor::<2>::zeros([1, 2], &device);
        let (a, b) = (Tensor::<2>::ones([1, 2], &device), Tensor::<2>::zeros([1, 1], &device));
        let length: f32 = lengths(&squares(weight.clone()), weight, a, b, 1.0).into_scalar();
        assert!(length > 0.0 && length.is_finite());
    }
}
