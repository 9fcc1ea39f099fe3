//! Rotations by blocks, which OFT and BOFT learn.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Skew-symmetric matrices `Q = -Q^T` from the elements above their diagonals, row by row.
///
/// # Shapes
/// `[blocks, size (size - 1) / 2]` to `[blocks, size, size]`.
pub(crate) fn skew_symmetric(upper: Tensor<2>, size: usize) -> Tensor<3> {
    let [blocks, elements] = upper.dims();
    debug_assert_eq!(elements, size * (size - 1) / 2);
    let device = upper.device().without_autodiff();
    let (mut indices, mut signs) = (vec![0_i32; size * size], vec![0_f32; size * size]);
    let mut next = 0;
    for row in 0..size {
        for column in row + 1..size {
            for (place, sign) in [(row * size + column, 1.0), (column * size + row, -1.0)] {
                indices[place] = next;
                signs[place] = sign;
            }
            next += 1;
        }
    }
    if elements == 0 {
        return Tensor::zeros([blocks, size, size], &device);
    }
    // The diagonal reads some element, and its sign is zero.
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [size * size]), &device);
    let signs = Tensor::<2>::from_data(TensorData::new(signs, [1, size * size]), &device);
    (upper.select(1, indices) * signs).reshape([blocks, size, size])
}

/// The Cayley transform `(I - Q) (I + Q)^-1`: a rotation for every skew-symmetric `Q` (Cayley 1846).
///
/// # Shapes
/// `[blocks, size, size]`, both.
pub(crate) fn cayley(skew: Tensor<3>) -> Tensor<3> {
    let eye = identity(skew.dims()[1], &skew.device());
    // I - Q = 2 I - (I + Q), which saves a product.
    inverse_plus_identity(skew) * 2.0 - eye
}

/// The sum of a Neumann series for `(I + Q) (I - Q)^-1`, as PEFT sums it: `I + 2 Q + 2 Q^2 + .. + Q^(terms - 1)`, with the factor 2
/// for all powers but the last; with 3 or 4 terms the last is `Q^3`. Note that it turns the other way round than [`cayley`].
///
/// # Shapes
/// `[blocks, size, size]`, both.
pub(crate) fn cayley_neumann(skew: Tensor<3>, terms: usize) -> Tensor<3> {
    let mut sum = identity(skew.dims()[1], &skew.device()).repeat_dim(0, skew.dims()[0]);
    if terms > 1 {
        sum = sum + skew.clone() * 2.0;
    }
    if terms > 2 {
        let mut power = skew.clone().matmul(skew.clone());
        sum = sum + power.clone() * 2.0;
        for _ in 3..terms.saturating_sub(1) {
            power = power.matmul(skew.clone());
            sum = sum + power.clone() * 2.0;
        }
        sum = sum + power.matmul(skew);
    }
    sum
}

/// `(I + Q)^-1`, with its gradient.
///
/// The inverse is found on the host, in `f64`, outside of the graph: one read from the device a call. One step of Newton's iteration from there,
/// `Y' = 2 Y - Y (I + Q) Y` with `Y` a constant, has the same value and the inverse's own derivative, `-Y dQ Y`.
fn inverse_plus_identity(skew: Tensor<3>) -> Tensor<3> {
    let [blocks, size, _] = skew.dims();
    let device = skew.device();
    let values = host_inverse(skew.clone().without_autodiff());
    let inverse = Tensor::<3>::from_data(
        TensorData::new(values, [blocks, size, size]),
        &device.clone().without_autodiff(),
    );
    let matrix = skew + identity(size, &device);
    inverse.clone() * 2.0 - inverse.clone().matmul(matrix).matmul(inverse)
}

/// `(I + Q)^-1` for each block, by Gauss and Jordan's method in place.
///
/// Without pivoting: as `Q` is skew-symmetric, the symmetric part of `I + Q` is the identity, and after each step what is left has at
/// least that on its diagonal. So no pivot is below 1.
fn host_inverse(skew: Tensor<3>) -> Vec<f32> {
    let [_, size, _] = skew.dims();
    let values = skew.try_into_vec_as::<f32>().expect("floats convert to f32");
    let mut inverses: Vec<f64> = values.into_iter().map(f64::from).collect();
    let mut pivot_row = vec![0.0; size];
    for block in inverses.chunks_exact_mut(size * size) {
        (0..size).for_each(|place| block[place * size + place] += 1.0);
        for pivot in 0..size {
            let row = &mut block[pivot * size..][..size];
            let factor = row[pivot].recip();
            row[pivot] = 1.0;
            row.iter_mut().for_each(|value| *value *= factor);
            pivot_row.copy_from_slice(row);
            for (place, row) in block.chunks_exact_mut(size).enumerate() {
                if place != pivot {
                    let factor = std::mem::replace(&mut row[pivot], 0.0);
                    row.iter_mut().zip(&pivot_row).for_each(|(value, above)| *value -= factor * above);
                }
            }
        }
    }
    inverses.into_iter().map(|value| value as f32).collect()
}

/// Turns the last dimension block by block: `x R`, where `R` has the blocks on its diagonal. A single block serves all.
///
/// # Shapes
/// - `x`: `[batch, seq, blocks * size]`
/// - `rotation`: `[blocks or 1, size, size]`
/// - result: as `x`
pub(crate) fn rotate(x: Tensor<3>, rotation: Tensor<3>) -> Tensor<3> {
    let [batch, seq, width] = x.dims();
    let [blocks, size, _] = rotation.dims();
    let rotated = if blocks == 1 {
        x.reshape([batch * seq * width / size, size])
            .matmul(rotation.squeeze_dim(0))
            .reshape([batch, seq, width])
    } else {
        let by_block = x.reshape([batch * seq, blocks, size]).swap_dims(0, 1);
        by_block.matmul(rotation).swap_dims(0, 1).reshape([batch, seq, width])
    };
    rotated
}

/// Puts the identity in the place of the blocks that are dropped.
///
/// # Shapes
/// `[blocks, size, size]`, both.
pub(crate) fn keep_blocks(rotation: Tensor<3>, dropped: &[bool]) -> Tensor<3> {
    let [blocks, size, _] = rotation.dims();
    let device = rotation.device();
    let mask: Vec<f32> = dropped.iter().map(|&dropped| if dropped { 1.0 } else { 0.0 }).collect();
    let mask =
        Tensor::<3>::from_data(TensorData::new(mask, [blocks, 1, 1]), &device.clone().without_autodiff());
    rotation * (mask.clone() * -1.0 + 1.0) + mask * identity(size, &device)
}

/// `[1, size, size]`
fn identity(size: usize, device: &Device) -> Tensor<3> {
    Tensor::<2>::eye(size, &device.clone().without_autodiff()).unsqueeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        llmkit_core::Device::from_env().unwrap().resolve().unwrap()
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.try_into_vec_as::<f32>().unwrap()
    }

    /// What is above the diagonals of two 5 x 5 matrices, by a fixed rule.
    fn upper() -> Vec<f32> {
        (0..20).map(|i| ((i * 37 + 11) % 23) as f32 / 23.0 - 0.45).collect()
    }

    #[test]
    fn a_skew_symmetric_matrix_has_its_elements_row_by_row() {
        let upper = Tensor::<2>::from_data([[1.0, 2.0, 3.0]], &device());
        let expected = [0.0, 1.0, 2.0, -1.0, 0.0, 3.0, -2.0, -3.0, 0.0];
        assert_eq!(values(skew_symmetric(upper, 3)), expected);
        let none = Tensor::<2>::zeros([2, 0], &device());
        assert_eq!(values(skew_symmetric(none, 1)), [0.0, 0.0]);
    }

    #[test]
    fn the_cayley_transform_is_orthogonal_and_the_series_comes_close_to_it() {
        let upper = Tensor::<2>::from_data(TensorData::new(upper(), [2, 10]), &device());
        let rotation = cayley(skew_symmetric(upper.clone(), 5));
        let product = rotation.clone().matmul(rotation.swap_dims(1, 2));
        let difference = (product - identity(5, &device())).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-6, "{difference}");

        // For a small Q; the series turns the other way round.
        let small = skew_symmetric(upper * 0.1, 5);
        let exact = cayley(small.clone()).swap_dims(1, 2);
        let far = (cayley_neumann(small.clone(), 3) - exact.clone()).abs().max().into_scalar::<f32>();
        let near = (cayley_neumann(small, 12) - exact).abs().max().into_scalar::<f32>();
        assert!(near < 1e-6 && far > 10.0 * near, "{near}, {far}");
    }

    /// Also where the matrices are far from small.
    #[test]
    fn inverses_are_inverses() {
        let upper = Tensor::<2>::from_data(TensorData::new(upper(), [2, 10]), &device()) * 40.0;
        let skew = skew_symmetric(upper, 5);
        let inverse = TensorData::new(host_inverse(skew.clone()), [2, 5, 5]);
        let product = (skew + identity(5, &device())).matmul(Tensor::from_data(inverse, &device()));
        let difference = (product - identity(5, &device())).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn the_gradient_of_the_cayley_transform_is_that_of_its_differences() {
        let device = device().autodiff();
        let weights: Vec<f32> = (0..50).map(|i| ((i * 29 + 3) % 31) as f32 / 31.0 - 0.5).collect();
        let loss = |upper: Tensor<2>| {
            let weights = Tensor::<3>::from_data(TensorData::new(weights.clone(), [2, 5, 5]), &device);
            (cayley(skew_symmetric(upper, 5)) * weights).sum()
        };
        let tensor = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [2, 10]), &device);
        let input = tensor(upper()).require_grad();
        let gradient = values(input.grad(&loss(input.clone()).backward()).unwrap());
        for (place, gradient) in gradient.into_iter().enumerate() {
            let step = 1e-2;
            let shifted = |by: f32| {
                let mut values = upper();
                values[place] += by;
                loss(tensor(values)).into_scalar::<f32>()
            };
            let slope = (shifted(step) - shifted(-step)) / (2.0 * step);
            assert!((gradient - slope).abs() < 2e-3, "{place}: {gradient}, {slope}");
        }
    }

    #[test]
    fn rotating_is_multiplying_by_a_block_diagonal_matrix() {
        let x = Tensor::<3>::from_data([[[1.0, 2.0, 3.0, 4.0]], [[5.0, 6.0, 7.0, 8.0]]], &device());
        let blocks = Tensor::<3>::from_data([[[0.0, 1.0], [-1.0, 0.0]], [[2.0, 0.0], [0.0, 3.0]]], &device());
        assert_eq!(values(rotate(x.clone(), blocks.clone())), [-2.0, 1.0, 6.0, 12.0, -6.0, 5.0, 14.0, 24.0]);
        let shared = blocks.clone().narrow(0, 0, 1);
        assert_eq!(values(rotate(x.clone(), shared)), [-2.0, 1.0, -4.0, 3.0, -6.0, 5.0, -8.0, 7.0]);
        let kept = keep_blocks(blocks, &[true, false]);
        assert_eq!(values(rotate(x, kept)), [1.0, 2.0, 6.0, 12.0, 5.0, 6.0, 14.0, 24.0]);
    }
}
