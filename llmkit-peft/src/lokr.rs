use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use indexmap::IndexMap;
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dropout::Dropout;
use crate::init_weights::{he_uniform, zeros};
use crate::layers::{as_integer_if_whole, as_integers_if_whole, null_as_default};
use crate::rank_patterns::{check_probability, expect_in_file};
use crate::weight_space::{WeightSpace, replace_weight};
use crate::{Attach, LayerMethod, MethodConfig, Named, RankPatterns, Result, Scope, Sizes, TunedLayer};

/// LoKr (Yeh et al. 2024, LyCORIS, <https://arxiv.org/abs/2309.14859>; Edalati et al. 2022, KronA,
/// <https://arxiv.org/abs/2212.10650>): beside each chosen linear layer `y = W x` a trained update,
/// `y = W x + alpha / r * (W1 ⊗ W2) x`, where `⊗` is Kronecker's product and each factor may itself be a product of rank `r`.
///
/// The update is never formed: `(W1 ⊗ W2) x` is `W2 X W1^T`, with `X` the input folded to a matrix.
pub type Lokr = LayerMethod<LokrLayer>;

/// How a LoKr is shaped: PEFT's `LoKrConfig`, and what an `adapter_config.json` of type `LOKR` holds.
///
/// ```
/// use llmkit_peft::{LokrConfig, Targets};
///
/// let config = LokrConfig::new(Targets::AllLinear).with_rank(4).with_decompose_factor(16);
/// assert_eq!(config.rank, 4);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LokrConfig {
    /// The rank `r` of the second factor, which is kept whole where half of its longer side is no more than that; default 8.
    #[serde(rename = "r", default = "default_rank")]
    pub rank: usize,
    /// The numerator of the scale `alpha / r`; default 8.
    #[serde(default = "default_alpha", serialize_with = "as_integer_if_whole")]
    pub alpha: f64,
    /// Whether the first factor is a product of rank `r`, too, where that is smaller; default false.
    #[serde(default)]
    pub decompose_both: bool,
    /// The size of the first factor where it divides the layer's, and else the most that it may be; -1, the default, splits the
    /// sizes as evenly as they can be.
    #[serde(default = "default_factor")]
    pub decompose_factor: i64,
    /// The probability that a row of the update is dropped while training, in [0, 1); default 0.
    #[serde(default)]
    pub rank_dropout: f64,
    /// Whether the rows that are kept are scaled up for those that are dropped; default false.
    #[serde(default)]
    pub rank_dropout_scale: bool,
    /// The probability that a layer's whole update is dropped while training, in [0, 1); default 0.
    #[serde(default)]
    pub module_dropout: f64,
    /// How the factors start; default [`InitLokr::Default`].
    #[serde(rename = "init_weights", default)]
    pub init: InitLokr,
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

/// How a LoKr's factors start. In every form the adapter begins as the identity, but for [`InitLokr::Random`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitLokr {
    /// The first factor is zero.
    #[default]
    Default,
    /// The second factor is zero, as in LyCORIS.
    Lycoris,
    /// Both are random: not the identity, for tests.
    Random,
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}

fn default_factor() -> i64 {
    -1
}

impl LokrConfig {
    /// A LoKr of rank 8 and alpha 8.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self {
            rank: default_rank(),
            alpha: default_alpha(),
            decompose_both: false,
            decompose_factor: default_factor(),
            rank_dropout: 0.0,
            rank_dropout_scale: false,
            module_dropout: 0.0,
            init: InitLokr::Default,
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

    /// Makes the first factor a product of rank `r`, too.
    pub fn with_decompose_both(self, decompose_both: bool) -> Self {
        Self { decompose_both, ..self }
    }

    /// Sets the size of the first factor.
    pub fn with_decompose_factor(self, decompose_factor: i64) -> Self {
        Self { decompose_factor, ..self }
    }

    /// Sets the probability that a row of the update is dropped.
    pub fn with_rank_dropout(self, rank_dropout: f64) -> Self {
        Self { rank_dropout, ..self }
    }

    /// Scales the rows that are kept up for those that are dropped.
    pub fn with_rank_dropout_scale(self, rank_dropout_scale: bool) -> Self {
        Self { rank_dropout_scale, ..self }
    }

    /// Sets the probability that a layer's update is dropped.
    pub fn with_module_dropout(self, module_dropout: f64) -> Self {
        Self { module_dropout, ..self }
    }

    /// Sets how the factors start.
    pub fn with_init(self, init: InitLokr) -> Self {
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

impl MethodConfig for LokrConfig {
    const PEFT_TYPE: &'static str = "LOKR";
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

/// The update of one linear layer, of input `m * n` and output `l * k`.
#[derive(Module, Debug)]
pub struct LokrLayer {
    /// `[l, m]`
    w1: Factor,
    /// `[k, n]`
    w2: Factor,
    #[module(skip)]
    path: String,
    #[module(skip)]
    scale: f64,
    #[module(skip)]
    rank_dropout: f64,
    #[module(skip)]
    rank_dropout_scale: bool,
    #[module(skip)]
    module_dropout: f64,
}

/// One factor of Kronecker's product: whole, or a product of rank `r`.
#[derive(Module, Debug)]
struct Factor {
    /// `[rows, columns]`
    whole: Option<Param<Tensor<2>>>,
    /// `[rows, r]`
    a: Option<Param<Tensor<2>>>,
    /// `[r, columns]`
    b: Option<Param<Tensor<2>>>,
}

/// What a factor starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Random,
    /// Zero; for a product, the left part of it.
    ZeroLeft,
    /// Zero; for a product, the right part of it.
    ZeroRight,
}

impl Factor {
    fn new(
        [rows, columns]: [usize; 2],
        rank: Option<usize>,
        start: Start,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let mut matrix =
            |shape, zero| if zero { zeros(shape, device) } else { he_uniform(shape, rng, device) };
        match rank {
            None => Self { whole: Some(matrix([rows, columns], start != Start::Random)), a: None, b: None },
            Some(rank) => Self {
                whole: None,
                a: Some(matrix([rows, rank], start == Start::ZeroLeft)),
                b: Some(matrix([rank, columns], start == Start::ZeroRight)),
            },
        }
    }

    /// Checks that a file that is read has the factor, before memory is taken for it.
    fn expect_in_file<S>(
        attach: &Attach<'_, S>,
        path: &str,
        name: &str,
        [rows, columns]: [usize; 2],
        rank: Option<usize>,
    ) -> Result<()> {
        match rank {
            None => expect_in_file(attach, path, &[(name, &[rows, columns])]),
            Some(rank) => {
                let [a, b] = ["_a", "_b"].map(|end| format!("{name}{end}"));
                expect_in_file(attach, path, &[(&a, &[rows, rank]), (&b, &[rank, columns])])
            }
        }
    }

    /// `[rows, columns]`
    fn val(&self) -> Tensor<2> {
        match (&self.whole, &self.a, &self.b) {
            (_, Some(a), Some(b)) => a.val().matmul(b.val()),
            (whole, _, _) => whole.as_ref().expect("a factor is whole or has both parts").val(),
        }
    }

    fn tensors(&self, name: &str) -> Vec<Named<'_>> {
        let ends = [("", &self.whole), ("_a", &self.a), ("_b", &self.b)];
        let named =
            ends.into_iter().map(|(end, param)| Some(Named::new(format!("{name}{end}"), param.as_ref()?)));
        named.flatten().collect()
    }
}

impl LokrLayer {
    /// `scale * (W1 ⊗ W2) x`
    ///
    /// # Shapes
    /// `[batch, seq, m * n]` to `[batch, seq, l * k]`.
    fn update(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, _] = x.dims();
        let tokens = batch * seq;
        // The scale goes onto the smallest tensor.
        let w1 = self.w1.val() * self.scale;
        let [l, m] = w1.dims();
        match (&self.w2.a, &self.w2.b) {
            (Some(a), Some(b)) => {
                let ([k, rank], [_, n]) = (a.val().dims(), b.val().dims());
                let narrow = x.reshape([tokens * m, n]).matmul(b.val().transpose());
                let mixed = mix(narrow.reshape([tokens, m, rank]), w1);
                mixed.reshape([tokens * l, rank]).matmul(a.val().transpose()).reshape([batch, seq, l * k])
            }
            _ => {
                let w2 = self.w2.val();
                let [k, n] = w2.dims();
                let by_w2 = |x: Tensor<3>, rows: usize| {
                    x.reshape([tokens * rows, n]).matmul(w2.clone().transpose()).reshape([tokens, rows, k])
                };
                // Which of the two comes first does not matter to the result.
                if m * n * k + l * m * k <= l * m * n + l * n * k {
                    mix(by_w2(x.reshape([tokens, m, n]), m), w1)
                } else {
                    by_w2(mix(x.reshape([tokens, m, n]), w1), l)
                }
                .reshape([batch, seq, l * k])
            }
        }
    }
}

/// `W z` for each token.
///
/// # Shapes
/// `z [tokens, m, width]`, `w [l, m]`, result `[tokens, l, width]`.
fn mix(z: Tensor<3>, w: Tensor<2>) -> Tensor<3> {
    let ([tokens, m, width], [l, _]) = (z.dims(), w.dims());
    // Folded to one product: a batched one of such small matrices would be slow.
    let by_column = z.swap_dims(1, 2).reshape([tokens * width, m]);
    by_column.matmul(w.transpose()).reshape([tokens, width, l]).swap_dims(1, 2)
}

/// PEFT's split of a layer's size into two factors.
fn factorization(dimension: usize, factor: i64) -> (usize, usize) {
    let limit = match usize::try_from(factor) {
        Ok(factor) if factor > 0 && dimension.is_multiple_of(factor) => return (factor, dimension / factor),
        Ok(factor) => factor,
        Err(_) if factor == -1 => dimension,
        Err(_) => 0,
    };
    let (mut m, mut n) = (1, dimension);
    while m < n {
        let next = (m + 1..=dimension).find(|next| dimension.is_multiple_of(*next)).unwrap_or(dimension);
        if next + dimension / next > dimension + 1 || next > limit {
            break;
        }
        (m, n) = (next, dimension / next);
    }
    (m.min(n), m.max(n))
}

impl TunedLayer for LokrLayer {
    type Config = LokrConfig;
    type Shared = RankPatterns;

    fn shared(
        _model: &dyn Model,
        config: &LokrConfig,
        _seed: u64,
        _file: Option<&dyn TensorSource>,
    ) -> Result<RankPatterns> {
        config.patterns(Path::new("LokrConfig"))
    }

    fn attach(layer: Layer<'_>, config: &LokrConfig, attach: &Attach<'_, RankPatterns>) -> Result<Self> {
        let Layer::Linear(linear) = layer else { unreachable!("`accepts` says: linear layers only") };
        let Sizes { rank, scale } = attach.shared.of(linear.path());
        let (m, n) = factorization(linear.d_input(), config.decompose_factor);
        let (l, k) = factorization(linear.d_output(), config.decompose_factor);
        let low = |a: usize, b: usize| (2 * rank < a.max(b)).then_some(rank);
        let (start_1, start_2) = match config.init {
            InitLokr::Default => (Start::ZeroLeft, Start::Random),
            InitLokr::Lycoris => (Start::Random, Start::ZeroRight),
            InitLokr::Random => (Start::Random, Start::Random),
        };
        let mut rng = attach.rng(linear.path());
        let w1_rank = if config.decompose_both { low(l, m) } else { None };
        let w2_rank = low(k, n);
        Factor::expect_in_file(attach, linear.path(), "lokr_w1", [l, m], w1_rank)?;
        Factor::expect_in_file(attach, linear.path(), "lokr_w2", [k, n], w2_rank)?;
        Ok(Self {
            w1: Factor::new([l, m], w1_rank, start_1, &mut rng, attach.device),
            w2: Factor::new([k, n], w2_rank, start_2, &mut rng, attach.device),
            path: linear.path().to_owned(),
            scale,
            rank_dropout: config.rank_dropout,
            rank_dropout_scale: config.rank_dropout_scale,
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
        base.forward(input.clone()) + self.linear_update(base, input, shared, dropout)
    }

    fn linear_update(
        &self,
        _base: &Linear,
        input: Tensor<3>,
        _shared: &RankPatterns,
        dropout: Option<Dropout>,
    ) -> Tensor<3> {
        let update = self.update(input);
        match dropout {
            None => update,
            Some(dropout) => {
                dropout.drop_update(update, self.module_dropout, self.rank_dropout, self.rank_dropout_scale)
            }
        }
    }

    fn adds(&self) -> bool {
        true
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        let mut tensors = self.w1.tensors("lokr_w1");
        tensors.extend(self.w2.tensors("lokr_w2"));
        tensors
    }

    fn merge(&self, layer: LayerMut<'_>, shared: &RankPatterns) -> Result<()> {
        replace_weight(self, layer, shared)
    }
}

impl WeightSpace for LokrLayer {
    const NAME: &'static str = "lokr";

    fn weight(&self, base: Tensor<2>, _shared: &RankPatterns) -> Tensor<2> {
        let (w1, w2) = (self.w1.val() * self.scale, self.w2.val());
        let ([l, m], [k, n]) = (w1.dims(), w2.dims());
        let product = w1.reshape([l, 1, m, 1]) * w2.reshape([1, k, 1, n]);
        base + product.reshape([l * k, m * n])
    }
}

impl<'de> Deserialize<'de> for InitLokr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) | Value::Null => Ok(Self::Default),
            Value::Bool(false) => Ok(Self::Random),
            Value::String(name) if name == "lycoris" => Ok(Self::Lycoris),
            other => Err(serde::de::Error::custom(format!(
                "init_weights: expected true, false or \"lycoris\", found {other}"
            ))),
        }
    }
}

impl Serialize for InitLokr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_bool(true),
            Self::Lycoris => serializer.serialize_str("lycoris"),
            Self::Random => serializer.serialize_bool(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::factorization;

    /// As PEFT 0.21 splits them.
    #[test]
    fn sizes_are_split_as_peft_splits_them() {
        let cases = [
            (256, -1, (16, 16)),
            (128, -1, (8, 16)),
            (127, -1, (1, 127)),
            (128, 4, (4, 32)),
            (128, 64, (64, 2)),
            (576, -1, (24, 24)),
            (1536, -1, (32, 48)),
            (48, 5, (4, 12)),
            (1, -1, (1, 1)),
            (2, -1, (1, 2)),
            (48, 0, (1, 48)),
            (48, -3, (1, 48)),
            (4096, 10, (8, 512)),
        ];
        for (dimension, factor, expected) in cases {
            assert_eq!(factorization(dimension, factor), expected, "{dimension} by {factor}");
        }
    }
}
