use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde_json::Value;

use super::config::Fields;
use super::state::{Init, State, Take, Wanted};
use crate::{Error, Result};

/// Projections by parameterised hypercomplex multiplication (Zhang et al. 2021, <https://arxiv.org/abs/2102.08597>): the weight is a sum of
/// Kronecker products, `sum_i rule_i (x) W_i`, of `phm_dim` small matrices each. Compacter's fields of a
/// [`BottleneckConfig`](super::BottleneckConfig), by their names in AdapterHub.
#[derive(Debug, Clone, PartialEq)]
pub struct PhmConfig {
    /// Whether the projections are of this kind; default false, and the other fields don't matter.
    pub phm_layer: bool,
    /// The number of products, and the size of each rule; default 4.
    pub phm_dim: usize,
    /// `factorized_phm_W`: whether each `W_i` is a product of rank `phm_rank`; default true.
    pub factorized_phm_w: bool,
    /// `shared_W_phm`: whether all bottlenecks share their `W_i`; default false.
    pub shared_w_phm: bool,
    /// Whether all projections share their rules; default true.
    pub shared_phm_rule: bool,
    /// Whether each rule is a product of rank 1; default false.
    pub factorized_phm_rule: bool,
    /// How the rules start; default [`InitPhm::Normal`].
    pub phm_c_init: InitPhm,
    /// The standard deviation of normal shared rules; default 1e-4.
    pub phm_init_range: f64,
    /// Whether the rules train; default true.
    pub learn_phm: bool,
    /// What AdapterHub names the distribution of the `W_i`; whatever it names, they start Glorot-normal there, and here.
    pub hypercomplex_nonlinearity: Value,
    /// The rank of the factorised `W_i`; default 1.
    pub phm_rank: usize,
    /// Whether the projections have biases; default true.
    pub phm_bias: bool,
}

/// How the rules of a [`PhmConfig`] start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitPhm {
    /// Normal, with standard deviation `phm_init_range` where they are shared and 0.01 where not.
    #[default]
    Normal,
    /// Uniform, in ±1 where they are shared and ±0.01 where not.
    Uniform,
}

impl Default for PhmConfig {
    fn default() -> Self {
        Self {
            phm_layer: false,
            phm_dim: 4,
            factorized_phm_w: true,
            shared_w_phm: false,
            shared_phm_rule: true,
            factorized_phm_rule: false,
            phm_c_init: InitPhm::Normal,
            phm_init_range: 1e-4,
            learn_phm: true,
            hypercomplex_nonlinearity: "glorot-uniform".into(),
            phm_rank: 1,
            phm_bias: true,
        }
    }
}

impl PhmConfig {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            phm_layer: fields.flag("phm_layer", default.phm_layer)?,
            phm_dim: fields.or("phm_dim", default.phm_dim, "a whole number")?,
            factorized_phm_w: fields.flag("factorized_phm_W", default.factorized_phm_w)?,
            shared_w_phm: fields.flag("shared_W_phm", default.shared_w_phm)?,
            shared_phm_rule: fields.flag("shared_phm_rule", default.shared_phm_rule)?,
            factorized_phm_rule: fields.flag("factorized_phm_rule", default.factorized_phm_rule)?,
            phm_c_init: fields.one_of(
                "phm_c_init",
                default.phm_c_init,
                &[("normal".into(), InitPhm::Normal), ("uniform".into(), InitPhm::Uniform)],
            )?,
            phm_init_range: fields.or("phm_init_range", default.phm_init_range, "a number")?,
            learn_phm: fields.flag("learn_phm", default.learn_phm)?,
            hypercomplex_nonlinearity: fields.or(
                "hypercomplex_nonlinearity",
                default.hypercomplex_nonlinearity,
                "a name",
            )?,
            phm_rank: fields.or("phm_rank", default.phm_rank, "a whole number")?,
            phm_bias: fields.flag("phm_bias", default.phm_bias)?,
        })
    }

    pub(super) fn write(&self, set: &mut impl FnMut(&str, Value) -> Option<Value>) {
        set("phm_layer", self.phm_layer.into());
        set("phm_dim", self.phm_dim.into());
        set("factorized_phm_W", self.factorized_phm_w.into());
        set("shared_W_phm", self.shared_w_phm.into());
        set("shared_phm_rule", self.shared_phm_rule.into());
        set("factorized_phm_rule", self.factorized_phm_rule.into());
        let init = match self.phm_c_init {
            InitPhm::Normal => "normal",
            InitPhm::Uniform => "uniform",
        };
        set("phm_c_init", init.into());
        set("phm_init_range", self.phm_init_range.into());
        set("learn_phm", self.learn_phm.into());
        set("hypercomplex_nonlinearity", self.hypercomplex_nonlinearity.clone());
        set("phm_rank", self.phm_rank.into());
        set("phm_bias", self.phm_bias.into());
    }

    pub(super) fn validate(&self, origin: &Path) -> Result<()> {
        let wrong = |field: &str, expected: &str, found: String| {
            Err(Error::Config {
                origin: origin.into(),
                field: field.into(),
                expected: expected.into(),
                found,
            })
        };
        if !self.phm_layer {
            return Ok(());
        }
        if !(1..=256).contains(&self.phm_dim) {
            return wrong("phm_dim", "an integer in 1..=256", self.phm_dim.to_string());
        }
        if !(1..=4096).contains(&self.phm_rank) {
            return wrong("phm_rank", "an integer in 1..=4096", self.phm_rank.to_string());
        }
        if !(self.phm_init_range.is_finite() && self.phm_init_range >= 0.0) {
            return wrong("phm_init_range", "a number that is not negative", self.phm_init_range.to_string());
        }
        // AdapterHub has no shapes for these.
        if self.shared_w_phm && !self.factorized_phm_w {
            return wrong("shared_W_phm", "false where factorized_phm_W is false", "true".into());
        }
        Ok(())
    }

    /// The tensors of the rules at `at`.
    fn rules(&self, at: &str, shared: bool) -> Vec<Wanted> {
        let dim = self.phm_dim;
        let init = match (self.phm_c_init, shared) {
            (InitPhm::Normal, true) => Init::Normal(self.phm_init_range),
            (InitPhm::Normal, false) => Init::Normal(0.01),
            (InitPhm::Uniform, true) => Init::Uniform(1.0),
            (InitPhm::Uniform, false) => Init::Uniform(0.01),
        };
        if self.factorized_phm_rule {
            vec![
                Wanted::new(format!("{at}phm_rule_left"), [dim, dim, 1], init),
                Wanted::new(format!("{at}phm_rule_right"), [dim, 1, dim], init),
            ]
        } else {
            vec![Wanted::new(format!("{at}phm_rule"), [dim, dim, dim], init)]
        }
    }

    /// The tensors of the `W_i` of a projection from `input` to `output` channels, called `name`.
    fn weights(&self, name: &str, input: usize, output: usize) -> Vec<Wanted> {
        let (dim, rank) = (self.phm_dim, self.phm_rank);
        let (input, output) = (input / dim, output / dim);
        let wanted = |suffix: &str, shape: [usize; 3]| {
            Wanted::new(
                format!("{name}{suffix}"),
                shape,
                Init::Normal((2.0 / (shape[1] + shape[2]) as f64).sqrt()),
            )
        };
        if self.factorized_phm_w {
            vec![wanted("_left", [dim, input, rank]), wanted("_right", [dim, rank, output])]
        } else {
            vec![wanted("", [dim, input, output])]
        }
    }

    /// The tensors that a projection from `input` to `output` channels at `at` has for itself.
    pub(super) fn wanted(&self, at: &str, input: usize, output: usize) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        if !self.shared_phm_rule {
            wanted.extend(self.rules(at, false));
        }
        if !self.shared_w_phm {
            wanted.extend(self.weights(&format!("{at}W"), input, output));
        }
        if self.phm_bias {
            wanted.push(Wanted::new(format!("{at}b"), [output], Init::Zeros));
        }
        wanted
    }

    /// The tensors that all bottlenecks share, in a model of width `hidden` with bottlenecks of `width`.
    pub(super) fn wanted_shared(&self, hidden: usize, width: usize) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        if self.phm_layer && self.shared_w_phm {
            wanted.extend(self.weights("W_down", hidden, width));
            wanted.extend(self.weights("W_up", width, hidden));
        }
        if self.phm_layer && self.shared_phm_rule {
            wanted.extend(self.rules("", true));
        }
        wanted
    }
}

/// One small matrix for each of `phm_dim` products, whole or as products of two.
#[derive(Module, Debug)]
pub(super) enum Factors {
    /// `[dim, rows, columns]`
    Whole(Param<Tensor<3>>),
    /// `[dim, rows, rank]` and `[dim, rank, columns]`
    Pair(Pair),
}

#[derive(Module, Debug)]
pub(super) struct Pair {
    left: Param<Tensor<3>>,
    right: Param<Tensor<3>>,
}

impl Factors {
    fn take(take: &mut Take<'_>, name: &str, pair: bool) -> Self {
        if pair {
            let left = take.cube(&format!("{name}_left"));
            Self::Pair(Pair { left, right: take.cube(&format!("{name}_right")) })
        } else {
            Self::Whole(take.cube(name))
        }
    }

    fn push<'a>(&'a self, name: String, trained: bool, into: &mut State<'a>) {
        match self {
            Self::Whole(whole) => into.push_if(name, whole, trained),
            Self::Pair(Pair { left, right }) => {
                into.push_if(format!("{name}_left"), left, trained);
                into.push_if(format!("{name}_right"), right, trained);
            }
        }
    }

    fn value(&self) -> Tensor<3> {
        match self {
            Self::Whole(whole) => whole.val(),
            Self::Pair(Pair { left, right }) => left.val().matmul(right.val()),
        }
    }
}

/// A projection whose weight is a sum of Kronecker products.
#[derive(Module, Debug)]
pub(super) struct Phm {
    rule: Option<Factors>,
    weight: Option<Factors>,
    bias: Option<Param<Tensor<1>>>,
}

impl Phm {
    pub(super) fn take(config: &PhmConfig, take: &mut Take<'_>, at: &str) -> Self {
        Self {
            rule: (!config.shared_phm_rule)
                .then(|| Factors::take(take, &format!("{at}phm_rule"), config.factorized_phm_rule)),
            weight: (!config.shared_w_phm)
                .then(|| Factors::take(take, &format!("{at}W"), config.factorized_phm_w)),
            bias: config.phm_bias.then(|| take.vector(&format!("{at}b"))),
        }
    }

    pub(super) fn push<'a>(&'a self, config: &PhmConfig, at: &str, into: &mut State<'a>) {
        if let Some(rule) = &self.rule {
            rule.push(format!("{at}phm_rule"), config.learn_phm, into);
        }
        if let Some(weight) = &self.weight {
            weight.push(format!("{at}W"), true, into);
        }
        if let Some(bias) = &self.bias {
            into.push(format!("{at}b"), bias);
        }
    }

    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    pub(super) fn forward(&self, input: Tensor<3>, config: &PhmConfig, shared: Shared<'_>) -> Tensor<3> {
        let rule =
            self.rule.as_ref().or(shared.rule).expect("a rule is the projection's own or shared").value();
        let rule = if config.learn_phm { rule } else { rule.detach() };
        let weight = self
            .weight
            .as_ref()
            .or(shared.weight)
            .expect("a weight is the projection's own or shared")
            .value();
        let output = input.matmul(kronecker_sum(rule, weight).unsqueeze());
        match &self.bias {
            Some(bias) => output + bias.val().unsqueeze(),
            None => output,
        }
    }
}

/// `sum_i rule_i (x) weight_i`.
///
/// # Shapes
/// `rule [n, a, b]` and `weight [n, p, q]` to `[a * p, b * q]`.
fn kronecker_sum(rule: Tensor<3>, weight: Tensor<3>) -> Tensor<2> {
    let ([n, a, b], [_, p, q]) = (rule.dims(), weight.dims());
    let products = rule.reshape([n, a * b]).transpose().matmul(weight.reshape([n, p * q]));
    products.reshape([a, b, p, q]).swap_dims(1, 2).reshape([a * p, b * q])
}

/// What all bottlenecks share.
#[derive(Module, Debug)]
pub(super) struct SharedPhm {
    rule: Option<Factors>,
    down: Option<Factors>,
    up: Option<Factors>,
}

/// What of it one projection needs.
#[derive(Clone, Copy, Default)]
pub(super) struct Shared<'a> {
    rule: Option<&'a Factors>,
    weight: Option<&'a Factors>,
}

impl SharedPhm {
    pub(super) fn take(config: &PhmConfig, take: &mut Take<'_>) -> Self {
        let shared_w = config.phm_layer && config.shared_w_phm;
        let mut weight = |name| shared_w.then(|| Factors::take(take, name, config.factorized_phm_w));
        let (down, up) = (weight("W_down"), weight("W_up"));
        let shared_rule = config.phm_layer && config.shared_phm_rule;
        let rule = shared_rule.then(|| Factors::take(take, "phm_rule", config.factorized_phm_rule));
        Self { rule, down, up }
    }

    pub(super) fn state(&self, config: &PhmConfig) -> State<'_> {
        let mut state = State::default();
        for (name, weight) in [("W_down", &self.down), ("W_up", &self.up)] {
            if let Some(weight) = weight {
                weight.push(name.into(), true, &mut state);
            }
        }
        if let Some(rule) = &self.rule {
            rule.push("phm_rule".into(), config.learn_phm, &mut state);
        }
        state
    }

    pub(super) fn down(&self) -> Shared<'_> {
        Shared { rule: self.rule.as_ref(), weight: self.down.as_ref() }
    }

    pub(super) fn up(&self) -> Shared<'_> {
        Shared { rule: self.rule.as_ref(), weight: self.up.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::kronecker_sum;

    #[test]
    fn the_weight_is_a_sum_of_kronecker_products() {
        let device = Device::flex();
        let rule = Tensor::<3>::from_data([[[1.0, 2.0], [3.0, 4.0]], [[0.0, -1.0], [2.0, 0.5]]], &device);
        let weight = Tensor::<3>::from_data([[[1.0, 10.0, 100.0]], [[7.0, 0.0, -2.0]]], &device);
        let expected =
            [[1.0, 10.0, 100.0, 2.0 - 7.0, 20.0, 202.0], [3.0 + 14.0, 30.0, 296.0, 4.0 + 3.5, 40.0, 399.0]];
        kronecker_sum(rule, weight)
            .into_data()
            .assert_eq(&Tensor::<2>::from_data(expected, &device).into_data(), true);
    }
}
