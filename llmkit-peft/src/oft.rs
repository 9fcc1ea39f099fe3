use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{DType, Int, Tensor};
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear};
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::init_weights::{filled, normal};
use crate::rank_patterns::{check_probability, expect_in_file};
use crate::rotation::{cayley, cayley_neumann, keep_blocks, rotate, skew_symmetric};
use crate::weight_space::{WeightSpace, replace_weight};
use crate::{
    Attach, Bias, Error, InitWeights, LayerMethod, MethodConfig, Named, Progress, Result, Scope, TunedLayer,
};

/// OFT (Qiu et al. 2023, <https://arxiv.org/abs/2306.07280>; Qiu et al. 2025, <https://arxiv.org/abs/2506.19847>): each chosen
/// linear layer `y = W x` reads its input turned, `y = W R^T x`, where `R` has small rotations on its diagonal. Each is the
/// Cayley transform of a skew-symmetric matrix, whose upper half trains. The vectors of an embedding are turned as they come out
/// of it.
///
/// It works on activations: the input is turned, and the weight is never tracked. The exact transform needs the inverses of the
/// blocks, which are found on the host: on a GPU that is one read from the device for each layer and pass. The Neumann series,
/// the default, needs products alone. The rotations are made anew in each pass, which is dear where a pass has a single token:
/// merge before generating.
pub type Oft = LayerMethod<OftLayer>;

/// How an OFT is shaped: PEFT's `OFTConfig`, and what an `adapter_config.json` of type `OFT` holds.
///
/// ```
/// use llmkit_peft::{OftConfig, Targets};
///
/// let config = OftConfig::new(Targets::AllLinear).with_block_size(16);
/// assert_eq!(config.block_size, 16);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OftConfig {
    /// How many blocks a layer's input has, or 0, the default, where [`block_size`](Self::block_size) says it.
    #[serde(rename = "r", default)]
    pub blocks: usize,
    /// How large a block is, or 0 where [`blocks`](Self::blocks) says it; default 32. Where it does not divide the width of a
    /// layer, the nearest number that does is taken, with a warning. PEFT refuses files without it, which came before 0.14.
    #[serde(rename = "oft_block_size")]
    pub block_size: usize,
    /// The share of a layer's blocks that don't turn while training, in [0, 1), rounded down to a number of blocks; default 0.
    /// (PEFT 0.21 reads this field and does nothing with it.)
    #[serde(default)]
    pub module_dropout: f64,
    /// Which biases train along; default none.
    #[serde(default)]
    pub bias: Bias,
    /// How the rotations start; default the identity.
    #[serde(rename = "init_weights", default)]
    pub init: InitWeights,
    /// Whether the rotations are kept close to the identity, by [`eps`](Self::eps); default false.
    #[serde(rename = "coft", default)]
    pub constrained: bool,
    /// How far a layer's constrained rotations may be from the identity: the largest norm of a skew-symmetric matrix, times the
    /// square root of the number of blocks; default 6e-5.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Whether all blocks of a layer turn in the same way; default false.
    #[serde(default)]
    pub block_share: bool,
    /// The Cayley transform; default its Neumann series.
    #[serde(rename = "use_cayley_neumann", default)]
    pub transform: Transform,
    /// The number of terms of the Neumann series; default 5.
    #[serde(rename = "num_cayley_neumann_terms", default = "default_terms")]
    pub terms: usize,
    /// Which layers, and what trains beside them.
    #[serde(flatten)]
    pub scope: Scope,
}

/// How a rotation is made of a skew-symmetric matrix `Q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum Transform {
    /// A few terms of the Neumann series for `(I + Q) (I - Q)^-1`: products alone, nearly a rotation where `Q` is small.
    #[default]
    Neumann,
    /// `(I - Q) (I + Q)^-1`, a rotation for every `Q`.
    Cayley,
}

impl From<bool> for Transform {
    fn from(neumann: bool) -> Self {
        if neumann { Self::Neumann } else { Self::Cayley }
    }
}

impl From<Transform> for bool {
    fn from(transform: Transform) -> Self {
        transform == Transform::Neumann
    }
}

const DEFAULT_BLOCK_SIZE: usize = 32;

fn default_eps() -> f64 {
    6e-5
}

fn default_terms() -> usize {
    5
}

impl OftConfig {
    /// An OFT with blocks of 32 by the Neumann series.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self {
            blocks: 0,
            block_size: DEFAULT_BLOCK_SIZE,
            module_dropout: 0.0,
            bias: Bias::None,
            init: InitWeights::Identity,
            constrained: false,
            eps: default_eps(),
            block_share: false,
            transform: Transform::Neumann,
            terms: default_terms(),
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

    /// Sets the share of blocks that don't turn while training.
    pub fn with_module_dropout(self, module_dropout: f64) -> Self {
        Self { module_dropout, ..self }
    }

    /// Sets which biases train along.
    pub fn with_bias(self, bias: Bias) -> Self {
        Self { bias, ..self }
    }

    /// Sets how the rotations start.
    pub fn with_init(self, init: InitWeights) -> Self {
        Self { init, ..self }
    }

    /// Keeps the rotations close to the identity (COFT).
    pub fn with_constraint(self, eps: f64) -> Self {
        Self { constrained: true, eps, ..self }
    }

    /// Turns all blocks of a layer in the same way.
    pub fn with_block_share(self, block_share: bool) -> Self {
        Self { block_share, ..self }
    }

    /// Sets how a rotation is made.
    pub fn with_transform(self, transform: Transform) -> Self {
        Self { transform, ..self }
    }

    /// Sets the number of terms of the Neumann series.
    pub fn with_terms(self, terms: usize) -> Self {
        Self { terms, ..self }
    }

    /// The number of blocks in a layer's input of this width, and their size.
    fn blocks_of(&self, width: usize, path: &str) -> (usize, usize) {
        let (field, asked) = match self.blocks {
            0 => ("oft_block_size", self.block_size),
            blocks => ("r", blocks),
        };
        let taken = nearest_divisor(width, asked);
        if taken != asked {
            tracing::warn!(
                "{path}: `{field}` = {asked} does not divide the width {width}; {taken} is taken instead"
            );
        }
        if self.blocks == 0 { (width / taken, taken) } else { (taken, width / taken) }
    }
}

/// The divisor of `width` nearest to `asked`, the smaller of two that are equally near, as PEFT finds it.
fn nearest_divisor(width: usize, asked: usize) -> usize {
    if asked >= width {
        return width;
    }
    let higher = (asked..=width).find(|divisor| width.is_multiple_of(*divisor)).unwrap_or(width);
    let lower = (1..=asked).rev().find(|divisor| width.is_multiple_of(*divisor)).unwrap_or(1);
    if asked - lower <= higher - asked { lower } else { higher }
}

impl MethodConfig for OftConfig {
    const PEFT_TYPE: &'static str = "OFT";
    const TARGET_BIASES: &'static str = "oft_only";
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
        check_probability(self.module_dropout, "module_dropout", origin)?;
        if (self.blocks == 0) == (self.block_size == 0) {
            let found = format!("r = {} and oft_block_size = {}", self.blocks, self.block_size);
            return wrong("oft_block_size", "either `r` or `oft_block_size` to be 0, and not both", found);
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            return wrong("eps", "a positive number", self.eps.to_string());
        }
        if !(1..=1000).contains(&self.terms) {
            return wrong("num_cayley_neumann_terms", "an integer in 1..=1000", self.terms.to_string());
        }
        if let Some(version) = self.scope.other.get("peft_version").and_then(|version| version.as_str())
            && self.transform == Transform::Neumann
            && is_before_0_18(version)
        {
            tracing::warn!(
                "{}: PEFT {version} summed the Neumann series in another way than PEFT has done since 0.18, and than this does; \
                 train the adapter again",
                origin.display()
            );
        }
        Ok(())
    }

    fn dropout(&self) -> f64 {
        self.module_dropout
    }

    fn bias(&self) -> Bias {
        self.bias
    }
}

fn is_before_0_18(version: &str) -> bool {
    let mut parts = version.split(['.', '@']).map(|part| part.parse::<u64>().unwrap_or(u64::MAX));
    (parts.next(), parts.next()) < (Some(0), Some(18))
}

/// The rotation of one linear layer's input, or of one embedding's vectors.
#[derive(Module, Debug)]
pub struct OftLayer {
    /// `[blocks or 1, size (size - 1) / 2]`: what is above the diagonals.
    weight: Param<Tensor<2>>,
    #[module(skip)]
    path: String,
    #[module(skip)]
    is_embedding: bool,
    #[module(skip)]
    size: usize,
    #[module(skip)]
    transform: Transform,
    #[module(skip)]
    terms: usize,
    #[module(skip)]
    eps: Option<f64>,
}

impl OftLayer {
    /// # Shapes
    /// `[blocks or 1, size, size]`
    fn rotation(&self) -> Tensor<3> {
        let weight = self.weight.val();
        let weight = match self.eps {
            None => weight,
            Some(eps) => {
                // The constraint is a part of the step, as in PEFT, so that gradients don't see it.
                let free = weight.clone().without_autodiff();
                weight + (constrain(free.clone(), eps) - free)
            }
        };
        let skew = skew_symmetric(weight, self.size);
        match self.transform {
            Transform::Neumann => cayley_neumann(skew, self.terms),
            Transform::Cayley => cayley(skew),
        }
    }
}

/// Scales the skew-symmetric matrices whose norm is above `eps / sqrt(blocks)` down to that.
fn constrain(weight: Tensor<2>, eps: f64) -> Tensor<2> {
    let [blocks, elements] = weight.dims();
    if elements == 0 {
        return weight;
    }
    let eps = eps / (blocks as f64).sqrt();
    // Both halves count.
    let norm = (weight.clone().square().sum_dim(1) * 2.0).sqrt();
    weight * (norm.clamp_min(eps).recip() * eps)
}

/// What the file calls the rotation.
fn key(is_embedding: bool) -> &'static str {
    if is_embedding { "oft_embedding_R.weight" } else { "oft_R.weight" }
}

impl TunedLayer for OftLayer {
    type Config = OftConfig;
    type Shared = ();

    fn shared(
        _model: &dyn Model,
        _config: &OftConfig,
        _seed: u64,
        _file: Option<&dyn TensorSource>,
    ) -> Result<()> {
        Ok(())
    }

    fn accepts(layer: Layer<'_>) -> bool {
        matches!(layer, Layer::Linear(_) | Layer::Embedding(_))
    }

    fn attach(layer: Layer<'_>, config: &OftConfig, attach: &Attach<'_, ()>) -> Result<Self> {
        let (path, width, is_embedding) = match layer {
            Layer::Linear(linear) => (linear.path(), linear.d_input(), false),
            Layer::Embedding(embedding) => (embedding.path(), embedding.weight.dims()[1], true),
            Layer::Norm(_) => unreachable!("`accepts` says: no norms"),
        };
        let (blocks, size) = config.blocks_of(width, path);
        let shape = [if config.block_share { 1 } else { blocks }, size * (size - 1) / 2];
        expect_in_file(attach, path, &[(key(is_embedding), &shape)])?;
        Ok(Self {
            weight: match config.init {
                InitWeights::Identity => filled(shape, attach.device, || 0.0),
                InitWeights::Random => normal(shape, 0.0, 0.1, &mut attach.rng(path), attach.device),
            },
            path: path.to_owned(),
            is_embedding,
            size,
            transform: config.transform,
            terms: config.terms,
            eps: config.constrained.then_some(config.eps),
        })
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _shared: &(), dropout: Option<Dropout>) -> Tensor<3> {
        let rotation = self.rotation();
        let blocks = rotation.dims()[0];
        let rotation = match dropout {
            // A block that all share is not dropped.
            Some(dropout) if blocks > 1 => keep_blocks(rotation, &dropout.blocks(blocks)),
            _ => rotation,
        };
        base.forward(rotate(input, rotation))
    }

    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>, _shared: &()) -> Tensor<3> {
        rotate(base.forward(ids), self.rotation())
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        vec![Named::new(key(self.is_embedding), &self.weight)]
    }

    fn merge(&self, layer: LayerMut<'_>, shared: &()) -> Result<()> {
        match layer {
            LayerMut::Embedding(embedding) => {
                let dtype = embedding.weight.dtype();
                let weight = embedding.weight.clone().cast(DType::F32).unsqueeze();
                let merged = rotate(weight, self.rotation().without_autodiff());
                embedding.weight = merged.squeeze_dim::<2>(0).cast(dtype);
                Ok(())
            }
            layer => replace_weight(self, layer, shared),
        }
    }

    fn after_step(
        mut layers: Vec<Self>,
        _config: &mut OftConfig,
        _shared: &(),
        _progress: &Progress<'_>,
    ) -> Vec<Self> {
        for layer in &mut layers {
            if let Some(eps) = layer.eps {
                layer.weight = layer.weight.clone().map(|weight| {
                    let (autodiff, trains) = (weight.is_autodiff(), weight.is_require_grad());
                    let weight = constrain(weight.without_autodiff(), eps);
                    if autodiff { Tensor::from_inner(weight).set_require_grad(trains) } else { weight }
                });
            }
        }
        layers
    }
}

impl WeightSpace for OftLayer {
    const NAME: &'static str = "oft";

    fn weight(&self, base: Tensor<2>, _shared: &()) -> Tensor<2> {
        rotate(base.unsqueeze(), self.rotation().swap_dims(1, 2)).squeeze_dim(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{is_before_0_18, nearest_divisor};

    /// As PEFT 0.21 adjusts them.
    #[test]
    fn block_sizes_are_adjusted_as_peft_adjusts_them() {
        for (width, asked, expected) in [
            (48, 32, 24),
            (48, 5, 4),
            (48, 7, 6),
            (48, 64, 48),
            (48, 48, 48),
            (48, 20, 16),
            (47, 32, 47),
            (47, 5, 1),
            (48, 10, 8),
        ] {
            assert_eq!(nearest_divisor(width, asked), expected, "{asked} in {width}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_before_0_18("0.9.1") && is_before_0_18("0.17.0@abc"));
        assert!(!is_before_0_18("0.18.0") && !is_before_0_18("0.21.2") && !is_before_0_18("1.0"));
    }
}
