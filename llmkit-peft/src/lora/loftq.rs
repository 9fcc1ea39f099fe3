use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burn::tensor::Tensor;
use llmkit_core::models::Editable;
use llmkit_core::nn::{Layer, LayerMut};

use super::init::{Factors, InitLora};
use super::{Lora, LoraConfig, Sizes};
use crate::layers::TunedLayer;
use crate::linalg::{Matrix, svd_thin};
use crate::{Error, Result};

/// How many numbers share a scale.
const BLOCK: usize = 64;

/// The sixteen values of NF4 (Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>, appendix E): quantiles of the normal distribution.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// LoftQ (Li et al. 2023, <https://arxiv.org/abs/2310.08659>): the base with the weights of the targets rounded to NF4, and a LoRA that starts
/// from the singular vectors of what the rounding took away, so that the two together stay close to the base.
///
/// `iterations` (1 is usual) alternate between rounding the weight without the update and finding the update. The new base shares all other
/// tensors with `model`; its weights are the rounded values, in full precision. Train on it and keep it
/// ([`save_model`](llmkit_core::models::save_model)): the LoRA belongs to it, and its file says that it starts as usual, as PEFT asks of
/// LoftQ's users. Unlike PEFT, the update takes the scale `alpha / r` into account, so that it may be other than 1.
///
/// # Errors
/// [`Error::Setting`] for no iterations, [`Error::Factorisation`] for weights that are not finite; otherwise as [`Lora::new`].
pub fn loftq<M: Editable + ?Sized>(
    model: &M,
    config: LoraConfig,
    iterations: usize,
    seed: u64,
) -> Result<(Arc<M>, Lora)> {
    if !(1..=100).contains(&iterations) {
        let found = iterations.to_string();
        return Err(Error::Setting { setting: "iterations", expected: "an integer in 1..=100", found });
    }
    let config = LoraConfig { init: InitLora::Default, ..config };
    let plain = Lora::new(model.as_model(), config.clone(), seed)?;
    let mut wanted: BTreeMap<String, Sizes> = BTreeMap::new();
    for layer in plain.layers().iter().filter(|layer| !layer.is_embedding()) {
        if layer.sizes().scale <= 0.0 {
            let found = format!("a scale of {} for {}", layer.sizes().scale, layer.path());
            return Err(Error::Setting { setting: "lora_alpha", expected: "a number above 0", found });
        }
        wanted.insert(layer.path().to_owned(), layer.sizes());
    }
    let (mut rounded, mut starts, mut failed) = (HashMap::new(), HashMap::new(), None);
    model.visit(&mut |layer| {
        let Layer::Linear(linear) = layer else { return };
        let Some(sizes) = wanted.get(linear.path()).filter(|_| failed.is_none()) else { return };
        match decompose(&Matrix::from_tensor(linear.weight.clone()), *sizes, iterations, linear.path()) {
            Ok((weight, factors)) => {
                rounded.insert(linear.path().to_owned(), weight.to_tensor(&linear.weight.device()));
                starts.insert(linear.path().to_owned(), factors);
            }
            Err(error) => failed = Some(error),
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let base = model.edited(&mut |layer| match layer {
        LayerMut::Linear(linear) => match rounded.get(linear.path()) {
            Some(weight) => {
                linear.weight = Tensor::clone(weight);
                true
            }
            None => false,
        },
        _ => false,
    });
    let lora = Lora::new(base.as_model(), config, seed)?;
    let lora = lora.map_layers(|layer| match (starts.remove(layer.path()), rounded.get(layer.path())) {
        (Some(factors), Some(weight)) => layer.with_factors(factors, weight),
        _ => layer,
    });
    Ok((base, lora))
}

/// The rounded weight, and factors for the rest.
fn decompose(weight: &Matrix, sizes: Sizes, iterations: usize, path: &str) -> Result<(Matrix, Factors)> {
    let mut rounded = nf4(weight);
    for iteration in 1.. {
        let svd = svd_thin(&difference(weight, &rounded), sizes.rank, path)?;
        let (mut a, mut b) = (svd.vt, svd.u);
        let roots: Vec<f32> = svd.s.iter().map(|s| s.sqrt()).collect();
        a.scale_rows(&roots);
        b.scale_columns(&roots);
        if iteration == iterations {
            let root = sizes.scale.sqrt().recip() as f32;
            for factor in [&mut a, &mut b] {
                factor.values.iter_mut().for_each(|value| *value *= root);
            }
            // Where a weight has fewer singular values than the rank, the rest of the factors is zero.
            let factors =
                Factors { a: a.padded(sizes.rank, weight.columns), b: b.padded(weight.rows, sizes.rank) };
            return Ok((rounded, factors));
        }
        rounded = nf4(&difference(weight, &b.matmul(&a)));
    }
    unreachable!("there is at least one iteration")
}

fn difference(a: &Matrix, b: &Matrix) -> Matrix {
    let values = a.values.iter().zip(&b.values).map(|(a, b)| a - b).collect();
    Matrix::new(a.rows, a.columns, values)
}

/// Rounds each block of 64 numbers, row after row, to the nearest of NF4's values times the block's largest magnitude.
fn nf4(matrix: &Matrix) -> Matrix {
    let mut values = matrix.values.clone();
    for block in values.chunks_mut(BLOCK) {
        let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        if largest > 0.0 {
            for value in block {
                let relative = *value / largest;
                // Halfway between two values, the lower one.
                let index = NF4.windows(2).take_while(|pair| relative > (pair[0] + pair[1]) / 2.0).count();
                *value = NF4[index] * largest;
            }
        }
    }
    Matrix::new(matrix.rows, matrix.columns, values)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use llmkit_core::checkpoint::{Safetensors, TensorSource};

    use super::{BLOCK, NF4, decompose, difference, nf4};
    use crate::Sizes;
    use crate::linalg::Matrix;
    use crate::random::normal;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn nf4s_own_values_stay() {
        let values: Vec<f32> = NF4.iter().cycle().take(2 * BLOCK).map(|value| value * 3.0).collect();
        let matrix = Matrix::new(4, 32, values);
        assert_eq!(nf4(&matrix), matrix);
        let zeros = Matrix::new(1, 3, vec![0.0; 3]);
        assert_eq!(nf4(&zeros), zeros);
    }

    #[test]
    fn rounding_and_update_are_pefts() {
        let path = "tests/fixtures/lowrank/loftq.safetensors";
        let file = Safetensors::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let read = |name: &str| Matrix::new(30, 44, file.read_f32(name).unwrap());
        let weight = read("weight");
        let largest = |matrix: Matrix| matrix.values.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
        for iterations in [1, 3] {
            let (rounded, factors) =
                decompose(&weight, Sizes { rank: 3, scale: 1.0 }, iterations, "layer").unwrap();
            assert!(largest(difference(&rounded, &read(&format!("rounded.{iterations}")))) < 1e-6);
            let update = factors.b.matmul(&factors.a);
            assert!(largest(difference(&update, &read(&format!("update.{iterations}")))) < 1e-5);
        }
    }

    #[test]
    fn the_update_takes_away_much_of_the_rounding() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let weight = Matrix::new(48, 40, normal(48 * 40, 0.1, &mut rng));
        let norm = |matrix: &Matrix| matrix.values.iter().map(|v| v * v).sum::<f32>().sqrt();
        let alone = norm(&difference(&weight, &nf4(&weight)));
        let error = |rank, iterations| {
            let (rounded, factors) =
                decompose(&weight, Sizes { rank, scale: 0.5 }, iterations, "layer").unwrap();
            let mut update = factors.b.matmul(&factors.a);
            update.values.iter_mut().for_each(|value| *value *= 0.5);
            norm(&difference(&difference(&weight, &rounded), &update))
        };
        assert!(error(8, 1) < 0.8 * alone, "{} {alone}", error(8, 1));
        assert!(error(8, 5) < error(8, 1));
        // More than there are singular values: nothing is left, and the shapes are still those of the rank.
        assert!(error(44, 1) < 1e-3);
    }
}
