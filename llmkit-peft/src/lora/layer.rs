use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::kernels::{LoraFactors, lora_linear};
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear, matmul_transposed};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{InitLora, LoraConfig, Sizes};
use crate::Result;
use crate::dropout::Dropout;
use crate::layers::{Attach, Named, TunedLayer};

/// The update of one linear layer: `scale * B A x`, where the base computes `W x`.
#[derive(Module, Debug)]
pub struct LoraLayer {
    /// `[r, in]`
    pub(crate) lora_a: Param<Tensor<2>>,
    /// `[out, r]`
    pub(crate) lora_b: Param<Tensor<2>>,
    /// `[out]`: the bias of `lora_B`.
    pub(crate) lora_b_bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) path: String,
    #[module(skip)]
    pub(crate) scale: f64,
}

impl LoraLayer {
    fn new(
        base: &Linear,
        sizes: Sizes,
        init: InitLora,
        lora_bias: bool,
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
            path: base.path().to_owned(),
            scale: sizes.scale,
        }
    }

    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    fn forward(&self, base: &Linear, input: Tensor<3>, dropout: Option<Dropout>) -> Tensor<3> {
        let output = match dropout {
            // One node of the graph, which keeps the input and its narrow product alone.
            None => {
                let factors = LoraFactors { a: self.lora_a.val(), b: self.lora_b.val(), scale: self.scale };
                lora_linear(input, base.weight.clone(), factors)
            }
            Some(dropout) => {
                // The scale goes onto the narrow product.
                let dropped = dropout.apply(input.clone());
                let narrow = matmul_transposed(dropped, self.lora_a.val()) * self.scale;
                matmul_transposed(input, base.weight.clone()) + matmul_transposed(narrow, self.lora_b.val())
            }
        };
        let output = match &base.bias {
            Some(bias) => output + bias.clone().unsqueeze(),
            None => output,
        };
        match &self.lora_b_bias {
            None => output,
            Some(bias) => output + bias.val().unsqueeze() * self.scale,
        }
    }

    /// The rank and the scale of the update.
    pub fn sizes(&self) -> Sizes {
        Sizes { rank: self.lora_a.val().dims()[0], scale: self.scale }
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

impl TunedLayer for LoraLayer {
    type Config = LoraConfig;
    type Shared = ();

    fn shared(_: &dyn Model, _: &LoraConfig, _: u64, _: Option<&dyn TensorSource>) -> Result<()> {
        Ok(())
    }

    fn attach(layer: Layer<'_>, config: &LoraConfig, attach: &Attach<'_, ()>) -> Result<Self> {
        let Layer::Linear(linear) = layer else { unreachable!("only linear layers are accepted") };
        let sizes = config.sizes(attach.origin)?(linear.path());
        let mut rng = attach.rng(linear.path());
        Ok(Self::new(linear, sizes, config.init, config.lora_bias, &mut rng, attach.device))
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _: &(), dropout: Option<Dropout>) -> Tensor<3> {
        self.forward(base, input, dropout)
    }

    fn adds(&self) -> bool {
        true
    }

    fn linear_update(&self, _: &Linear, input: Tensor<3>, _: &(), dropout: Option<Dropout>) -> Tensor<3> {
        let input = match dropout {
            Some(dropout) => dropout.apply(input),
            None => input,
        };
        let narrow = matmul_transposed(input, self.lora_a.val()) * self.scale;
        let update = matmul_transposed(narrow, self.lora_b.val());
        match &self.lora_b_bias {
            Some(bias) => update + bias.val().unsqueeze() * self.scale,
            None => update,
        }
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        let bias = self.lora_b_bias.as_ref().map(|bias| Named::new("lora_B.bias", bias));
        let factors = [Named::new("lora_A.weight", &self.lora_a), Named::new("lora_B.weight", &self.lora_b)];
        factors.into_iter().chain(bias).collect()
    }

    fn merge(&self, layer: LayerMut<'_>, _: &()) -> Result<()> {
        let LayerMut::Linear(linear) = layer else { unreachable!("only linear layers are accepted") };
        linear.weight = linear.weight.clone() + self.delta_weight();
        if let Some(bias) = &self.lora_b_bias {
            let bias = bias.val().without_autodiff() * self.scale;
            linear.bias = Some(match linear.bias.take() {
                Some(base) => base + bias,
                None => bias,
            });
        }
        Ok(())
    }
}

fn uniform(len: usize, bound: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-bound..bound) as f32).collect()
}

/// Box and Muller's method (1958).
fn normal(len: usize, std: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len)
        .map(|_| {
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            (std * radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
        })
        .collect()
}
