use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use indexmap::IndexMap;
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::kernels::{LoraFactors, lora_linear};
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear, matmul_transposed};
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::init_weights::{he_uniform, zeros};
use crate::layers::{as_integer_if_whole, as_integers_if_whole, null_as_default};
use crate::rank_patterns::{check_probability, expect_in_file};
use crate::weight_space::{WeightSpace, replace_weight};
use crate::{
    Attach, InitWeights, LayerMethod, MethodConfig, Named, RankPatterns, Result, Scope, Sizes, TunedLayer,
};

/// LoHa (Hyeon-Woo et al. 2022, FedPara, <https://arxiv.org/abs/2108.06098>; Yeh et al. 2024, LyCORIS,
/// <https://arxiv.org/abs/2309.14859>): beside each chosen linear layer `y = W x` a trained update,
/// `y = W x + alpha / r * ((A1 B1) * (A2 B2)) x`, where the inner `*` multiplies element by element. With as many numbers as a
/// LoRA of rank `2 r` the update reaches rank `r^2`.
///
/// The element-wise product is itself a product of low rank: its factors are the products of each pair of columns of `A1` and
/// `A2`, and of rows of `B1` and `B2`. Where `r^2` is small beside the layer's width, this LoRA of rank `r^2` is what runs, and no
/// matrix of the weight's size exists; elsewhere the update is formed.
pub type Loha = LayerMethod<LohaLayer>;

/// How a LoHa is shaped: PEFT's `LoHaConfig`, and what an `adapter_config.json` of type `LOHA` holds.
///
/// ```
/// use llmkit_peft::{LohaConfig, Targets};
///
/// let config = LohaConfig::new(Targets::AllLinear).with_rank(4).with_alpha(8.0);
/// assert_eq!(config.rank, 4);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LohaConfig {
    /// The rank `r` of both factors; default 8.
    #[serde(rename = "r", default = "default_rank")]
    pub rank: usize,
    /// The numerator of the scale `alpha / r`; default 8.
    #[serde(default = "default_alpha", serialize_with = "as_integer_if_whole")]
    pub alpha: f64,
    /// The probability that a row of the update is dropped while training, in [0, 1); default 0.
    #[serde(default)]
    pub rank_dropout: f64,
    /// The probability that a layer's whole update is dropped while training, in [0, 1); default 0.
    #[serde(default)]
    pub module_dropout: f64,
    /// How the factors start; default the identity.
    #[serde(rename = "init_weights", default)]
    pub init: InitWeights,
    /// Other ranks for layers whose path ends in a match of the key.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rank_pattern: IndexMap<String, usize>,
    /// Other alphas for layers whose path ends in a match of the key.
    #[serde(default, deserialize_with = "null_as_default", serialize_with = "as_integers_if_whole")]
    pub alpha_pattern: IndexMap<String, f64>,
    /// Which layers, and what trains beside them.
    #[serde(flatten)]
    pub scope: Scope,
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}

impl LohaConfig {
    /// A LoHa of rank 8 and alpha 8.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self {
            rank: default_rank(),
            alpha: default_alpha(),
            rank_dropout: 0.0,
            module_dropout: 0.0,
            init: InitWeights::Identity,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            scope: scope.into(),
        }
    }

    /// Sets the rank.
    pub fn with_rank(self, rank: usize) -> Self {
        Self { rank, ..self }
    }

    /// Sets alpha.
    pub fn with_alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// Sets the probability that a row of the update is dropped.
    pub fn with_rank_dropout(self, rank_dropout: f64) -> Self {
        Self { rank_dropout, ..self }
    }

    /// Sets the probability that a layer's update is dropped.
    pub fn with_module_dropout(self, module_dropout: f64) -> Self {
        Self { module_dropout, ..self }
    }

    /// Sets how the factors start.
    pub fn with_init(self, init: InitWeights) -> Self {
        Self { init, ..self }
    }

    /// Gives layers whose path ends in a match of `pattern` another rank.
    pub fn with_rank_for(mut self, pattern: impl Into<String>, rank: usize) -> Self {
        self.rank_pattern.insert(pattern.into(), rank);
        self
    }

    /// Gives layers whose path ends in a match of `pattern` another alpha.
    pub fn with_alpha_for(mut self, pattern: impl Into<String>, alpha: f64) -> Self {
        self.alpha_pattern.insert(pattern.into(), alpha);
        self
    }

    fn patterns(&self, origin: &Path) -> Result<RankPatterns> {
        RankPatterns::new(self.rank, self.alpha, &self.rank_pattern, &self.alpha_pattern, origin)
    }
}

impl MethodConfig for LohaConfig {
    const PEFT_TYPE: &'static str = "LOHA";
    // `use_effective_conv2d` says nothing about linear layers.
    const MUST_BE_NEUTRAL: &'static [&'static str] = &[];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    fn validate(&self, origin: &Path) -> Result<()> {
        check_probability(self.rank_dropout, "rank_dropout", origin)?;
        check_probability(self.module_dropout, "module_dropout", origin)?;
        self.patterns(origin).map(drop)
    }

    fn dropout(&self) -> f64 {
        self.rank_dropout.max(self.module_dropout)
    }
}

/// The update of one linear layer.
#[derive(Module, Debug)]
pub struct LohaLayer {
    /// `[out, r]`
    w1_a: Param<Tensor<2>>,
    /// `[r, in]`
    w1_b: Param<Tensor<2>>,
    /// `[out, r]`
    w2_a: Param<Tensor<2>>,
    /// `[r, in]`
    w2_b: Param<Tensor<2>>,
    #[module(skip)]
    path: String,
    #[module(skip)]
    scale: f64,
    #[module(skip)]
    rank_dropout: f64,
    #[module(skip)]
    module_dropout: f64,
}

impl LohaLayer {
    /// The factors of the LoRA of rank `r^2` that the update is.
    ///
    /// # Shapes
    /// `[r^2, in]` and `[out, r^2]`
    fn factors(&self) -> LoraFactors {
        let [rank, d_input] = self.w1_b.val().dims();
        let [d_output, _] = self.w1_a.val().dims();
        let (a1, a2) = (self.w1_a.val(), self.w2_a.val());
        let (b1, b2) = (self.w1_b.val(), self.w2_b.val());
        let columns = a1.reshape([d_output, rank, 1]) * a2.reshape([d_output, 1, rank]);
        let rows = b1.reshape([rank, 1, d_input]) * b2.reshape([1, rank, d_input]);
        LoraFactors {
            a: rows.reshape([rank * rank, d_input]),
            b: columns.reshape([d_output, rank * rank]),
            scale: self.scale,
        }
    }

    /// `scale * (A1 B1) * (A2 B2)`
    ///
    /// # Shapes
    /// `[out, in]`
    fn delta(&self) -> Tensor<2> {
        let left = self.w1_a.val().matmul(self.w1_b.val());
        let right = self.w2_a.val().matmul(self.w2_b.val());
        left * right * self.scale
    }

    /// Whether the products with the factors of rank `r^2` cost less than the product with the whole update.
    fn is_narrow(&self, base: &Linear) -> bool {
        let [rank, _] = self.w1_b.val().dims();
        let (d_input, d_output) = (base.d_input(), base.d_output());
        rank * rank * (d_input + d_output) < d_input * d_output
    }
}

impl TunedLayer for LohaLayer {
    type Config = LohaConfig;
    type Shared = RankPatterns;

    fn shared(
        _model: &dyn Model,
        config: &LohaConfig,
        _seed: u64,
        _file: Option<&dyn TensorSource>,
    ) -> Result<RankPatterns> {
        config.patterns(Path::new("LohaConfig"))
    }

    fn attach(layer: Layer<'_>, config: &LohaConfig, attach: &Attach<'_, RankPatterns>) -> Result<Self> {
        let Layer::Linear(linear) = layer else { unreachable!("`accepts` says: linear layers only") };
        let (d_input, d_output) = (linear.d_input(), linear.d_output());
        let Sizes { rank, scale } = attach.shared.of(linear.path());
        // Before anything of a stranger's rank is made.
        let (a, b) = ([d_output, rank], [rank, d_input]);
        let ends = [("hada_w1_a", &a[..]), ("hada_w1_b", &b), ("hada_w2_a", &a), ("hada_w2_b", &b)];
        expect_in_file(attach, linear.path(), &ends)?;
        let (mut rng, device) = (attach.rng(linear.path()), attach.device);
        Ok(Self {
            w1_a: he_uniform([d_output, rank], &mut rng, device),
            w1_b: he_uniform([rank, d_input], &mut rng, device),
            w2_a: he_uniform([d_output, rank], &mut rng, device),
            w2_b: match config.init {
                InitWeights::Identity => zeros([rank, d_input], device),
                InitWeights::Random => he_uniform([rank, d_input], &mut rng, device),
            },
            path: linear.path().to_owned(),
            scale,
            rank_dropout: config.rank_dropout,
            module_dropout: config.module_dropout,
        })
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(
        &self,
        base: &Linear,
        input: Tensor<3>,
        shared: &RankPatterns,
        dropout: Option<Dropout>,
    ) -> Tensor<3> {
        if dropout.is_some() || !self.is_narrow(base) {
            return base.forward(input.clone()) + self.linear_update(base, input, shared, dropout);
        }
        let output = lora_linear(input, base.weight.clone(), self.factors());
        match &base.bias {
            Some(bias) => output + bias.clone().unsqueeze(),
            None => output,
        }
    }

    fn linear_update(
        &self,
        base: &Linear,
        input: Tensor<3>,
        _shared: &RankPatterns,
        dropout: Option<Dropout>,
    ) -> Tensor<3> {
        let update = if self.is_narrow(base) {
            let LoraFactors { a, b, scale } = self.factors();
            matmul_transposed(matmul_transposed(input, a) * scale, b)
        } else {
            matmul_transposed(input, self.delta())
        };
        match dropout {
            None => update,
            Some(dropout) => dropout.drop_update(update, self.module_dropout, self.rank_dropout, true),
        }
    }

    fn adds(&self) -> bool {
        true
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        vec![
            Named::new("hada_w1_a", &self.w1_a),
            Named::new("hada_w1_b", &self.w1_b),
            Named::new("hada_w2_a", &self.w2_a),
            Named::new("hada_w2_b", &self.w2_b),
        ]
    }

    fn merge(&self, layer: LayerMut<'_>, shared: &RankPatterns) -> Result<()> {
        replace_weight(self, layer, shared)
    }
}

impl WeightSpace for LohaLayer {
    const NAME: &'static str = "loha";

    fn weight(&self, base: Tensor<2>, _shared: &RankPatterns) -> Tensor<2> {
        base + self.delta()
    }
}
