use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use llmkit_core::kernels::{LoraFactors, lora_linear};
use llmkit_core::nn::{Linear, matmul_transposed};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{InitLora, Sizes};
use crate::dropout::dropout;
use crate::linalg::normal;

/// The update of one linear layer: `scale * B A x`, where the base computes `W x`.
#[derive(Module, Debug)]
pub(crate) struct LoraLayer {
    /// `[r, in]`
    pub(crate) lora_a: Param<Tensor<2>>,
    /// `[out, r]`
    pub(crate) lora_b: Param<Tensor<2>>,
    /// `[out]`: the bias of `lora_B`.
    pub(crate) lora_b_bias: Option<Param<Tensor<1>>>,
    /// `[out]`: the base layer's bias, where it trains along.
    pub(crate) bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) path: String,
    #[module(skip)]
    pub(crate) scale: f64,
}

impl LoraLayer {
    pub(crate) fn new(
        base: &Linear,
        sizes: Sizes,
        init: InitLora,
        lora_bias: bool,
        train_bias: bool,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let (d_input, d_output) = (base.d_input(), base.d_output());
        let bound = (d_input as f64).powf(-0.5);
        let a = match init {
            InitLora::Default | InitLora::Random => uniform(sizes.rank * d_input, bound, rng),
            InitLora::Gaussian => normal(sizes.rank * d_input, 1.0 / sizes.rank as f64, rng),
        };
        let b = match init {
            InitLora::Random => uniform(d_output * sizes.rank, (sizes.rank as f64).powf(-0.5), rng),
            InitLora::Default | InitLora::Gaussian => vec![0.0; d_output * sizes.rank],
        };
        let bias = |values: Vec<f32>| Param::from_data(TensorData::new(values, [d_output]), device);
        Self {
            lora_a: Param::from_data(TensorData::new(a, [sizes.rank, d_input]), device),
            lora_b: Param::from_data(TensorData::new(b, [d_output, sizes.rank]), device),
            lora_b_bias: lora_bias.then(|| bias(vec![0.0; d_output])),
            bias: base.bias.as_ref().filter(|_| train_bias).map(|bias| Param::from_tensor(bias.clone())),
            path: base.path().to_owned(),
            scale: sizes.scale,
        }
    }

    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    pub(crate) fn forward(&self, base: &Linear, input: Tensor<3>, drop: Option<(f64, u64)>) -> Tensor<3> {
        let output = match drop {
            // One node of the graph, which keeps the input and its narrow product alone.
            None => {
                let factors = LoraFactors { a: self.lora_a.val(), b: self.lora_b.val(), scale: self.scale };
                lora_linear(input, base.weight.clone(), factors)
            }
            Some((probability, key)) => {
                // The scale goes onto the narrow product.
                let dropped = dropout(input.clone(), probability, key);
                let narrow = matmul_transposed(dropped, self.lora_a.val()) * self.scale;
                matmul_transposed(input, base.weight.clone()) + matmul_transposed(narrow, self.lora_b.val())
            }
        };
        let output = match (&self.bias, &base.bias) {
            (Some(trained), _) => output + trained.val().unsqueeze(),
            (None, Some(frozen)) => output + frozen.clone().unsqueeze(),
            (None, None) => output,
        };
        match &self.lora_b_bias {
            None => output,
            Some(bias) => output + bias.val().unsqueeze() * self.scale,
        }
    }

    /// What the update adds to the base's weight: `scale * B A`.
    ///
    /// # Shapes
    /// `[out, in]`
    pub(crate) fn delta_weight(&self) -> Tensor<2> {
        let (a, b) = (self.lora_a.val().without_autodiff(), self.lora_b.val().without_autodiff());
        b.matmul(a) * self.scale
    }
}

/// A random generator for one layer: its choices don't depend on which other layers are adapted.
pub(crate) fn layer_rng(seed: u64, path: &str) -> ChaCha8Rng {
    let hash = path.bytes().fold(seed, |hash, byte| crate::dropout::derive(hash, u64::from(byte)));
    ChaCha8Rng::seed_from_u64(hash)
}

fn uniform(len: usize, bound: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-bound..bound) as f32).collect()
}
