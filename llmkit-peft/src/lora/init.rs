use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Sizes;
use crate::Result;
use crate::linalg::{self, Matrix, Svd};
use crate::random::{normal, uniform};

/// How a LoRA's factors start. In every form the adapter begins as the identity, but for [`InitLora::Random`].
///
/// PiSSA and OLoRA start from factors `B0 A0` of the weight itself. Where PEFT subtracts them from the base's weight, llmkit, whose base is
/// shared, keeps them beside the trained ones and computes `W x + scale * (B A - B0 A0) x`: the same function. It is saved as PEFT's
/// `path_initial_model_for_weight_conversion` does, as an ordinary LoRA of twice the rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum InitLora {
    /// `A` uniform in `±1 / sqrt(in)` (Kaiming with a = sqrt(5)), `B` zero.
    #[default]
    Default,
    /// `A` normal with standard deviation `1 / r`, `B` zero.
    Gaussian,
    /// Both factors random: not the identity, for tests.
    Random,
    /// `A` and `B` random, their rows and columns in orthogonal halves of the rank, so that `B A` is zero. The rank must be even.
    Orthogonal,
    /// PiSSA (Meng et al. 2024): the weight's principal singular values and vectors.
    Pissa,
    /// PiSSA with a randomised decomposition of this many power iterations: much faster on large weights, and less exact.
    PissaFast(usize),
    /// OLoRA (Büyükakyüz 2024): the first columns and rows of the weight's QR factorisation.
    Olora,
    /// EVA (Paischer et al. 2024): `A` from the layers' inputs, by [`Eva`](super::Eva); by itself it starts as [`InitLora::Default`].
    Eva,
}

/// The factors at the start.
pub(super) struct Factors {
    /// `[r, in]`
    pub(super) a: Matrix,
    /// `[out, r]`
    pub(super) b: Matrix,
}

impl InitLora {
    /// Whether the factors start from the base's weight and must be subtracted from it.
    pub(super) fn subtracts(self) -> bool {
        matches!(self, Self::Pissa | Self::PissaFast(_) | Self::Olora)
    }

    /// The factors for a linear layer.
    ///
    /// # Shapes
    /// `weight [out, in]`
    ///
    /// # Errors
    /// [`Error::Factorisation`](crate::Error::Factorisation) for weights that are not finite.
    pub(super) fn factors(
        self,
        weight: &Tensor<2>,
        sizes: Sizes,
        rng: &mut ChaCha8Rng,
        path: &str,
    ) -> Result<Factors> {
        let Sizes { rank, scale } = sizes;
        let [d_output, d_input] = weight.dims();
        let uniform_a = |rng: &mut ChaCha8Rng| uniform(rank * d_input, (d_input as f64).powf(-0.5), rng);
        let a = |values| Matrix::new(rank, d_input, values);
        let b = |values| Matrix::new(d_output, rank, values);
        let zero = || vec![0.0; d_output * rank];
        Ok(match self {
            Self::Default | Self::Eva => Factors { a: a(uniform_a(rng)), b: b(zero()) },
            Self::Gaussian => Factors { a: a(normal(rank * d_input, 1.0 / rank as f64, rng)), b: b(zero()) },
            Self::Random => Factors {
                a: a(uniform_a(rng)),
                b: b(uniform(d_output * rank, (rank as f64).powf(-0.5), rng)),
            },
            Self::Orthogonal => {
                let square = Matrix::new(rank, rank, normal(rank * rank, 1.0, rng));
                let q = linalg::qr(&square, path)?.q;
                let rows = |parity: usize| {
                    let rows = q.values.chunks_exact(rank).skip(parity).step_by(2);
                    Matrix::new(rank / 2, rank, rows.flatten().copied().collect())
                };
                let random = |rows: usize, rng: &mut ChaCha8Rng| {
                    Matrix::new(rows, rank / 2, normal(rows * rank / 2, 0.1, rng))
                };
                Factors {
                    a: random(d_input, rng).matmul(&rows(0)).transposed(),
                    b: random(d_output, rng).matmul(&rows(1)),
                }
            }
            Self::Pissa => pissa(linalg::svd_thin(&Matrix::from_tensor(weight.clone()), rank, path)?, scale),
            Self::PissaFast(iterations) => {
                let weight = Matrix::from_tensor(weight.clone());
                pissa(linalg::svd_randomised(&weight, rank, iterations, rng, path)?, scale)
            }
            Self::Olora => {
                let qr = linalg::qr(&Matrix::from_tensor(weight.clone()), path)?;
                Factors { a: qr.r.first_rows(rank), b: qr.q.first_columns(rank) }
            }
        })
    }

    /// The factors for an embedding: `A` zero and `B` normal, whatever the initialisation (PEFT has no other).
    pub(super) fn embedding_factors(
        self,
        vocab: usize,
        hidden: usize,
        rank: usize,
        rng: &mut ChaCha8Rng,
    ) -> Factors {
        let a = match self {
            Self::Random => normal(rank * vocab, 1.0, rng),
            _ => vec![0.0; rank * vocab],
        };
        let b = normal(hidden * rank, 1.0, rng);
        Factors { a: Matrix::new(rank, vocab, a), b: Matrix::new(hidden, rank, b) }
    }
}

/// `scale * B A = U S V^T`, with the square root of the singular values on either side.
fn pissa(svd: Svd, scale: f64) -> Factors {
    let roots: Vec<f32> = svd.s.iter().map(|s| (f64::from(*s) / scale).sqrt() as f32).collect();
    let Svd { u: mut b, vt: mut a, .. } = svd;
    a.scale_rows(&roots);
    b.scale_columns(&roots);
    Factors { a, b }
}

/// A parameter's worth of zeros, without holding them on the host.
pub(super) fn zeros(shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::zeros(shape, device)
}

/// The matrix as a tensor of its own.
pub(super) fn tensor(matrix: Matrix, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(matrix.values, [matrix.rows, matrix.columns]), device)
}

impl<'de> Deserialize<'de> for InitLora {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let name = match &value {
            Value::Bool(true) | Value::Null => return Ok(Self::Default),
            Value::Bool(false) => return Ok(Self::Random),
            Value::String(name) => name.to_ascii_lowercase(),
            _ => String::new(),
        };
        match name.as_str() {
            "gaussian" => Ok(Self::Gaussian),
            "orthogonal" => Ok(Self::Orthogonal),
            "pissa" => Ok(Self::Pissa),
            "olora" => Ok(Self::Olora),
            "eva" => Ok(Self::Eva),
            // LoftQ's base is a quantised one, which its file does not hold.
            "loftq" => Err(serde::de::Error::custom(
                "init_lora_weights = \"loftq\" belongs to a base that LoftQ quantised: load that base, and set the field to true",
            )),
            name => match name.strip_prefix("pissa_niter_").and_then(|iterations| iterations.parse().ok()) {
                Some(iterations @ 0..=1000) => Ok(Self::PissaFast(iterations)),
                // These change the base model's weights by data that the adapter's file does not hold.
                _ => Err(serde::de::Error::custom(format!(
                    "init_lora_weights = {value} is not supported; in PEFT, save the adapter with \
                     `path_initial_model_for_weight_conversion` to make it an ordinary LoRA"
                ))),
            },
        }
    }
}

impl Serialize for InitLora {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_bool(true),
            Self::Random => serializer.serialize_bool(false),
            Self::Gaussian => serializer.serialize_str("gaussian"),
            Self::Orthogonal => serializer.serialize_str("orthogonal"),
            Self::Pissa => serializer.serialize_str("pissa"),
            Self::PissaFast(iterations) => serializer.serialize_str(&format!("pissa_niter_{iterations}")),
            Self::Olora => serializer.serialize_str("olora"),
            Self::Eva => serializer.serialize_str("eva"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::InitLora;
    use crate::Sizes;
    use crate::linalg::Matrix;
    use crate::random::normal;
    use burn::tensor::Device;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn names_are_pefts() {
        for (json, init) in [
            ("true", InitLora::Default),
            ("false", InitLora::Random),
            ("\"gaussian\"", InitLora::Gaussian),
            ("\"orthogonal\"", InitLora::Orthogonal),
            ("\"pissa\"", InitLora::Pissa),
            ("\"pissa_niter_16\"", InitLora::PissaFast(16)),
            ("\"olora\"", InitLora::Olora),
            ("\"eva\"", InitLora::Eva),
        ] {
            assert_eq!(serde_json::from_str::<InitLora>(json).unwrap(), init);
            assert_eq!(serde_json::to_string(&init).unwrap(), json);
        }
        for unknown in ["\"corda\"", "\"lora_ga\"", "\"loftq\"", "\"mica\"", "\"pissa_niter_x\"", "3"] {
            let error = serde_json::from_str::<InitLora>(unknown).unwrap_err().to_string();
            assert!(error.contains("init_lora_weights"), "{error}");
        }
    }

    #[test]
    fn orthogonal_factors_are_random_but_their_product_is_zero() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let weight = Matrix::new(7, 9, normal(63, 1.0, &mut rng)).to_tensor(&Device::flex());
        let sizes = Sizes { rank: 4, scale: 1.0 };
        let factors = InitLora::Orthogonal.factors(&weight, sizes, &mut rng, "layer").unwrap();
        assert_eq!((factors.a.rows, factors.a.columns, factors.b.rows, factors.b.columns), (4, 9, 7, 4));
        assert!(factors.a.values.iter().chain(&factors.b.values).any(|value| value.abs() > 0.05));
        assert!(factors.b.matmul(&factors.a).values.iter().all(|value| value.abs() < 1e-6));
    }

    #[test]
    fn pissa_takes_the_largest_part_of_the_weight() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let large = Matrix::new(6, 2, normal(12, 3.0, &mut rng)).matmul(&Matrix::new(
            2,
            5,
            normal(10, 3.0, &mut rng),
        ));
        let weight = large.to_tensor(&Device::flex());
        for init in [InitLora::Pissa, InitLora::PissaFast(2)] {
            let factors = init.factors(&weight, Sizes { rank: 2, scale: 0.5 }, &mut rng, "layer").unwrap();
            let product = factors.b.matmul(&factors.a);
            let error = product.values.iter().zip(&large.values).map(|(p, w)| (0.5 * p - w).abs());
            assert!(error.fold(0.0, f32::max) < 1e-4);
        }
    }
}
