use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear};
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::init_weights::{filled, normal};
use crate::layers::AdapterFolder;
use crate::rank_patterns::{check_probability, expect_in_file};
use crate::rotation::{cayley, keep_blocks, rotate};
use crate::weight_space::{WeightSpace, replace_weight};
use crate::{Attach, Bias, Error, InitWeights, LayerMethod, MethodConfig, Named, Result, Scope, TunedLayer};

/// BOFT (Liu et al. 2024, <https://arxiv.org/abs/2311.06243>): each chosen linear layer `y = W x` becomes `y = s * W R^T x`,
/// where the rotation `R` is a product of butterfly factors, each with small rotations on its diagonal after another shuffle of
/// the input, and `s` scales each output. One factor is an OFT with exact rotations; `n` of them mix blocks of `2^(n - 1)` times
/// the size.
///
/// It works on activations: the input is turned, and the weight is never tracked. The inverses that the Cayley transform needs
/// are found on the host: on a GPU that is one read from the device for each layer and pass. The rotations are made anew in each
/// pass, which is dear where a pass has a single token: merge before generating.
///
/// PEFT builds more than one factor only where it can compile a CUDA kernel. Elsewhere it takes one whatever the file says, and
/// can't load a file of more.
pub type Boft = LayerMethod<BoftLayer>;

/// How a BOFT is shaped: PEFT's `BOFTConfig`, and what an `adapter_config.json` of type `BOFT` holds.
///
/// ```
/// use llmkit_peft::{BoftConfig, Targets};
///
/// let config = BoftConfig::new(Targets::AllLinear).with_block_size(8).with_butterfly_factors(2);
/// assert_eq!(config.block_size, 8);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoftConfig {
    /// How large a block is, or 0 where [`blocks`](Self::blocks) says it; default 4. It must divide the width of each layer's input.
    #[serde(rename = "boft_block_size", default = "default_block_size")]
    pub block_size: usize,
    /// How many blocks a layer's input has, or 0, the default, where [`block_size`](Self::block_size) says it.
    #[serde(rename = "boft_block_num", default)]
    pub blocks: usize,
    /// How many butterfly factors there are; default 1. For `n` of them the number of blocks must be a multiple of `2^(n - 1)`,
    /// and their size even.
    #[serde(rename = "boft_n_butterfly_factor", default = "default_factors")]
    pub butterfly_factors: usize,
    /// The share of the blocks of one factor, drawn for each layer and step, that don't turn while training, in [0, 1), rounded
    /// down to a number of blocks; default 0.
    #[serde(rename = "boft_dropout", default)]
    pub dropout: f64,
    /// Which biases train along; default none.
    #[serde(default)]
    pub bias: Bias,
    /// How rotations and scales start; default the identity.
    #[serde(rename = "init_weights", default)]
    pub init: InitWeights,
    /// Which layers, and what trains beside them.
    #[serde(flatten)]
    pub scope: Scope,
}

fn default_block_size() -> usize {
    4
}

fn default_factors() -> usize {
    1
}

impl BoftConfig {
    /// A BOFT with one factor of blocks of 4.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self {
            block_size: default_block_size(),
            blocks: 0,
            butterfly_factors: default_factors(),
            dropout: 0.0,
            bias: Bias::None,
            init: InitWeights::Identity,
            scope: scope.into(),
        }
    }

    /// Sets how large a block is.
    pub fn with_block_size(self, block_size: usize) -> Self {
        Self { block_size, blocks: 0, ..self }
    }

    /// Sets how many blocks there are, instead of their size.
    pub fn with_blocks(self, blocks: usize) -> Self {
        Self { blocks, block_size: 0, ..self }
    }

    /// Sets how many butterfly factors there are.
    pub fn with_butterfly_factors(self, butterfly_factors: usize) -> Self {
        Self { butterfly_factors, ..self }
    }

    /// Sets the share of blocks that don't turn while training.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Sets which biases train along.
    pub fn with_bias(self, bias: Bias) -> Self {
        Self { bias, ..self }
    }

    /// Sets how rotations and scales start.
    pub fn with_init(self, init: InitWeights) -> Self {
        Self { init, ..self }
    }

    /// The number of blocks in a layer's input of this width, and their size.
    fn blocks_of(&self, width: usize, factors: usize, path: &str, origin: &Path) -> Result<(usize, usize)> {
        let wrong = |field: &str, expected: String, found: usize| {
            Err(Error::Config {
                origin: origin.into(),
                field: field.into(),
                expected,
                found: found.to_string(),
            })
        };
        let (field, asked) = if self.blocks == 0 {
            ("boft_block_size", self.block_size)
        } else {
            ("boft_block_num", self.blocks)
        };
        if !width.is_multiple_of(asked) {
            return wrong(field, format!("a divisor of {width}, the width of {path}"), asked);
        }
        let (blocks, size) = if self.blocks == 0 { (width / asked, asked) } else { (asked, width / asked) };
        if factors > 1 {
            // `validate` keeps the number of factors below that of bits.
            if !blocks.is_multiple_of(1 << (factors - 1)) {
                let expected =
                    format!("at most n where 2^(n - 1) divides {blocks}, the number of blocks of {path}");
                return wrong("boft_n_butterfly_factor", expected, factors);
            }
            if !size.is_multiple_of(2) {
                return wrong(field, format!("blocks of an even size, in {path}"), asked);
            }
        }
        Ok((blocks, size))
    }
}

impl MethodConfig for BoftConfig {
    const PEFT_TYPE: &'static str = "BOFT";
    const TARGET_BIASES: &'static str = "boft_only";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &["fan_in_fan_out"];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    fn validate(&self, origin: &Path) -> Result<()> {
        let wrong = |field: &str, expected: &str, found: String| {
            Err(Error::Config {
                origin: origin.into(),
                field: field.into(),
                expected: expected.into(),
                found,
            })
        };
        check_probability(self.dropout, "boft_dropout", origin)?;
        if (self.blocks == 0) == (self.block_size == 0) {
            let found = format!("boft_block_size = {} and boft_block_num = {}", self.block_size, self.blocks);
            return wrong(
                "boft_block_size",
                "either `boft_block_size` or `boft_block_num` to be 0, and not both",
                found,
            );
        }
        if !(1..=32).contains(&self.butterfly_factors) {
            let found = self.butterfly_factors.to_string();
            return wrong("boft_n_butterfly_factor", "an integer in 1..=32", found);
        }
        Ok(())
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn bias(&self) -> Bias {
        self.bias
    }
}

/// The rotation of one linear layer's input, and the scale of its output.
#[derive(Module, Debug)]
pub struct BoftLayer {
    /// `[factors, blocks, size, size]`; what counts of each matrix is `(R - R^T) / 2`.
    r: Param<Tensor<4>>,
    /// `[out, 1]`
    s: Param<Tensor<2>>,
    #[module(skip)]
    path: String,
}

impl BoftLayer {
    /// The rotations of all factors, one factor after the other.
    ///
    /// # Shapes
    /// `[factors * blocks, size, size]`
    fn rotations(&self) -> Tensor<3> {
        let r = self.r.val();
        let [factors, blocks, size, _] = r.dims();
        let r = r.reshape([factors * blocks, size, size]);
        cayley((r.clone() - r.swap_dims(1, 2)) * 0.5)
    }
}

/// Turns the last dimension by the butterfly factor `level`: shuffles it, turns it block by block, and shuffles it back.
///
/// # Shapes
/// - `x`: `[batch, seq, blocks * size]`
/// - `rotation`: `[blocks, size, size]`
/// - result: as `x`
fn turn(x: Tensor<3>, rotation: Tensor<3>, level: u32) -> Tensor<3> {
    if level == 0 {
        return rotate(x, rotation);
    }
    let [batch, seq, width] = x.dims();
    let [_, size, _] = rotation.dims();
    // Of each group of 2^level blocks, the first half of the half-blocks goes to the even places, the second to the odd ones.
    let (pairs, half) = (2_usize.pow(level), size / 2);
    let groups = batch * seq * width / (pairs * size);
    let shuffled = x.reshape([groups, 2, pairs, half]).swap_dims(1, 2).reshape([batch, seq, width]);
    rotate(shuffled, rotation).reshape([groups, pairs, 2, half]).swap_dims(1, 2).reshape([batch, seq, width])
}

impl TunedLayer for BoftLayer {
    type Config = BoftConfig;
    type Shared = ();

    fn shared(
        _model: &dyn Model,
        _config: &BoftConfig,
        _seed: u64,
        _file: Option<&dyn TensorSource>,
    ) -> Result<()> {
        Ok(())
    }

    fn attach(layer: Layer<'_>, config: &BoftConfig, attach: &Attach<'_, ()>) -> Result<Self> {
        let Layer::Linear(linear) = layer else { unreachable!("`accepts` says: linear layers only") };
        let path = linear.path();
        let key = format!("{}{path}.boft_R", AdapterFolder::PREFIX);
        let in_file =
            attach.file.and_then(|file| file.info(&key)).and_then(|info| info.shape.first().copied());
        // What PEFT makes of any number of factors where it can't compile its kernel.
        let factors = if in_file == Some(1) { 1 } else { config.butterfly_factors };
        if factors != config.butterfly_factors {
            tracing::warn!(
                "{path}: {} butterfly factors are configured, and the file has one",
                config.butterfly_factors
            );
        }
        let (blocks, size) = config.blocks_of(linear.d_input(), factors, path, attach.origin)?;
        let (r_shape, s_shape) = ([factors, blocks, size, size], [linear.d_output(), 1]);
        expect_in_file(attach, path, &[("boft_R", &r_shape), ("boft_s", &s_shape)])?;
        let (mut rng, device) = (attach.rng(path), attach.device);
        let (r, s) = match config.init {
            InitWeights::Identity => (filled(r_shape, device, || 0.0), filled(s_shape, device, || 1.0)),
            InitWeights::Random => {
                (normal(r_shape, 0.0, 0.1, &mut rng, device), normal(s_shape, 1.0, 0.1, &mut rng, device))
            }
        };
        Ok(Self { r, s, path: path.to_owned() })
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _shared: &(), dropout: Option<Dropout>) -> Tensor<3> {
        let [factors, blocks, ..] = self.r.val().dims();
        let mut rotations = self.rotations();
        if let Some(dropout) = dropout {
            let factor = dropout.choose(factors);
            let mut dropped = vec![false; factors * blocks];
            dropped[factor * blocks..][..blocks].copy_from_slice(&dropout.blocks(blocks));
            rotations = keep_blocks(rotations, &dropped);
        }
        let mut x = input;
        // The product of the factors is applied from its end.
        for level in (0..factors).rev() {
            let rotation = rotations.clone().narrow(0, level * blocks, blocks);
            x = turn(x, rotation, level as u32);
        }
        let unbiased = Linear::new(base.path(), base.weight.clone(), None);
        let output = unbiased.forward(x) * self.s.val().swap_dims(0, 1).unsqueeze();
        match &base.bias {
            Some(bias) => output + bias.clone().unsqueeze(),
            None => output,
        }
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        vec![Named::new("boft_R", &self.r), Named::new("boft_s", &self.s)]
    }

    fn merge(&self, layer: LayerMut<'_>, shared: &()) -> Result<()> {
        replace_weight(self, layer, shared)
    }
}

impl WeightSpace for BoftLayer {
    const NAME: &'static str = "boft";

    fn weight(&self, base: Tensor<2>, _shared: &()) -> Tensor<2> {
        let [factors, blocks, ..] = self.r.val().dims();
        let turned_back = self.rotations().swap_dims(1, 2);
        let mut rows: Tensor<3> = base.unsqueeze();
        for level in 0..factors {
            let rotation = turned_back.clone().narrow(0, level * blocks, blocks);
            rows = turn(rows, rotation, level as u32);
        }
        rows.squeeze_dim::<2>(0) * self.s.val()
    }
}
