use burn::module::{Module, Param};
use burn::tensor::{Tensor, activation};
use llmkit_core::nn::{Norm, matmul_transposed};
use llmkit_core::{Adapter, Site};

use super::phm::{Phm, Shared, SharedPhm};
use super::state::{Init, State, Take, Wanted};
use super::{AdapterResidual, BottleneckConfig, InitBottleneck, Scaling};
use crate::Dropout;

/// One bottleneck: `scale * up(f(down(x)))`, with the trained normalisations and the gate that the configuration has.
#[derive(Module, Debug)]
pub(super) struct BottleneckLayer {
    norm_before: Option<LayerNorm>,
    down: Projection,
    up: Projection,
    /// `[1]` or `[hidden]`
    scaling: Option<Param<Tensor<1>>>,
    norm_after: Option<LayerNorm>,
    gate: Option<Dense>,
    #[module(skip)]
    pub(super) site: Site,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are two in a bottleneck, beside tensors")]
enum Projection {
    Dense(Dense),
    Phm(Phm),
}

#[derive(Module, Debug)]
struct Dense {
    /// `[out, in]`
    weight: Param<Tensor<2>>,
    /// `[out]`
    bias: Param<Tensor<1>>,
}

impl Dense {
    fn wanted(at: &str, [output, input]: [usize; 2], init: [Init; 2]) -> Vec<Wanted> {
        vec![
            Wanted::new(format!("{at}weight"), [output, input], init[0]),
            Wanted::new(format!("{at}bias"), [output], init[1]),
        ]
    }

    fn take(take: &mut Take<'_>, at: &str) -> Self {
        Self { weight: take.matrix(&format!("{at}weight")), bias: take.vector(&format!("{at}bias")) }
    }

    fn push<'a>(&'a self, at: &str, into: &mut State<'a>) {
        into.push(format!("{at}weight"), &self.weight);
        into.push(format!("{at}bias"), &self.bias);
    }

    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        matmul_transposed(input, self.weight.val()) + self.bias.val().unsqueeze()
    }
}

/// A layer normalisation, with torch's default epsilon.
#[derive(Module, Debug)]
struct LayerNorm {
    /// `[hidden]`
    weight: Param<Tensor<1>>,
    /// `[hidden]`
    bias: Param<Tensor<1>>,
}

impl LayerNorm {
    fn wanted(at: &str, hidden: usize) -> Vec<Wanted> {
        vec![
            Wanted::new(format!("{at}weight"), [hidden], Init::Ones),
            Wanted::new(format!("{at}bias"), [hidden], Init::Zeros),
        ]
    }

    fn take(take: &mut Take<'_>, at: &str) -> Self {
        Self { weight: take.vector(&format!("{at}weight")), bias: take.vector(&format!("{at}bias")) }
    }

    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let centered = input.clone() - input.mean_dim(2);
        let variance = centered.clone().square().mean_dim(2);
        centered / (variance + 1e-5).sqrt() * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}

const NORM_BEFORE: &str = "adapter_norm_before.";
const NORM_AFTER: &str = "adapter_norm_after.";
const UP: &str = "adapter_up.";
const GATE: &str = "gate.";
const SCALING: &str = "scaling";

/// `adapter_down` is a sequence, in which a normalisation comes before the projection, and has a second name by it.
const FIRST_OF_DOWN: &str = "adapter_down.0.";

fn down(config: &BottleneckConfig) -> &'static str {
    if config.ln_before { "adapter_down.1." } else { FIRST_OF_DOWN }
}

/// The tensors of a bottleneck of `width` in a residual stream of width `hidden`.
pub(super) fn wanted(config: &BottleneckConfig, hidden: usize, width: usize) -> Vec<Wanted> {
    // What torch gives a layer that nobody initialises.
    let untouched = [Init::Uniform((hidden as f64).powf(-0.5)); 2];
    let (down_init, up_init, gate_init) = match config.init_weights {
        InitBottleneck::Bert => (Init::Normal(0.02), Init::Normal(0.02), [Init::Normal(0.02), Init::Zeros]),
        InitBottleneck::MamAdapter => {
            (Init::Uniform((hidden as f64).powf(-0.5)), Init::Zeros, [Init::Normal(0.02), Init::Zeros])
        }
        InitBottleneck::Houlsby => (Init::TruncatedNormal(0.01), Init::TruncatedNormal(0.01), untouched),
    };
    let mut wanted = Vec::new();
    if config.ln_before {
        wanted.extend(LayerNorm::wanted(NORM_BEFORE, hidden));
    }
    if config.phm.phm_layer {
        wanted.extend(config.phm.wanted(down(config), hidden, width));
        wanted.extend(config.phm.wanted(UP, width, hidden));
    } else {
        wanted.extend(Dense::wanted(down(config), [width, hidden], [down_init, Init::Zeros]));
        wanted.extend(Dense::wanted(UP, [hidden, width], [up_init, Init::Zeros]));
    }
    match config.scaling {
        Scaling::Fixed(_) => {}
        Scaling::Learned => wanted.push(Wanted::new(SCALING, [1], Init::Ones)),
        Scaling::Channel => wanted.push(Wanted::new(SCALING, [hidden], Init::Ones)),
    }
    if config.ln_after {
        wanted.extend(LayerNorm::wanted(NORM_AFTER, hidden));
    }
    if config.use_gating {
        wanted.extend(Dense::wanted(GATE, [1, hidden], gate_init));
    }
    wanted
}

/// The second name of the tensor of this name, if AdapterHub writes it twice.
pub(super) fn twin(config: &BottleneckConfig, name: &str) -> Option<String> {
    let part = name.strip_prefix(NORM_BEFORE).filter(|_| config.ln_before)?;
    Some(format!("{FIRST_OF_DOWN}{part}"))
}

impl BottleneckLayer {
    pub(super) fn take(config: &BottleneckConfig, take: &mut Take<'_>, site: Site) -> Self {
        let mut projection = |at: &str| match config.phm.phm_layer {
            true => Projection::Phm(Phm::take(&config.phm, take, at)),
            false => Projection::Dense(Dense::take(take, at)),
        };
        let (down, up) = (projection(down(config)), projection(UP));
        Self {
            norm_before: config.ln_before.then(|| LayerNorm::take(take, NORM_BEFORE)),
            down,
            up,
            scaling: (!matches!(config.scaling, Scaling::Fixed(_))).then(|| take.vector(SCALING)),
            norm_after: config.ln_after.then(|| LayerNorm::take(take, NORM_AFTER)),
            gate: config.use_gating.then(|| Dense::take(take, GATE)),
            site,
        }
    }

    /// The parameters, by their names in AdapterHub's module.
    pub(super) fn state(&self, config: &BottleneckConfig) -> State<'_> {
        let mut state = State::default();
        if let Some(LayerNorm { weight, bias }) = &self.norm_before {
            state.push(format!("{NORM_BEFORE}weight"), weight);
            state.push(format!("{NORM_BEFORE}bias"), bias);
            state.push_if(format!("{FIRST_OF_DOWN}weight"), weight, false);
            state.push_if(format!("{FIRST_OF_DOWN}bias"), bias, false);
        }
        for (projection, at) in [(&self.down, down(config)), (&self.up, UP)] {
            match projection {
                Projection::Dense(dense) => dense.push(at, &mut state),
                Projection::Phm(phm) => phm.push(&config.phm, at, &mut state),
            }
        }
        if let Some(scaling) = &self.scaling {
            state.push(SCALING, scaling);
        }
        if let Some(LayerNorm { weight, bias }) = &self.norm_after {
            state.push(format!("{NORM_AFTER}weight"), weight);
            state.push(format!("{NORM_AFTER}bias"), bias);
        }
        if let Some(gate) = &self.gate {
            gate.push(GATE, &mut state);
        }
        state
    }

    /// How the sublayer's output joins the residual stream, with the bottleneck between or beside them.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]`, all.
    pub(super) fn join(&self, parts: Join<'_>) -> Tensor<3> {
        let Join { adapter, config, shared, output, residual, norm, dropout } = parts;
        let normalise = |hidden| match norm {
            Some(norm) => adapter.norm(norm, hidden),
            None => hidden,
        };
        let mut hidden = if config.is_parallel {
            self.forward(residual.clone(), None, config, shared, dropout) + output
        } else {
            let (mut hidden, mut kept) = (output.clone(), output);
            if config.original_ln_before {
                hidden = hidden + residual.clone();
                if config.residual_before_ln == AdapterResidual::Sum {
                    kept = hidden.clone();
                }
                hidden = normalise(hidden);
            }
            if config.residual_before_ln == AdapterResidual::Input {
                kept = hidden.clone();
            }
            self.forward(hidden, Some(kept), config, shared, dropout)
        };
        if config.original_ln_after {
            hidden = normalise(hidden + residual);
        }
        hidden
    }

    /// The bottleneck's result for `input`, and `kept` added to it.
    fn forward(
        &self,
        input: Tensor<3>,
        kept: Option<Tensor<3>>,
        config: &BottleneckConfig,
        shared: &SharedPhm,
        dropout: Option<Dropout>,
    ) -> Tensor<3> {
        let read = match &self.norm_before {
            Some(norm) => norm.forward(input.clone()),
            None => input.clone(),
        };
        let project = |projection: &Projection, input, shared: Shared<'_>| match projection {
            Projection::Dense(dense) => dense.forward(input),
            Projection::Phm(phm) => phm.forward(input, &config.phm, shared),
        };
        let narrow = config.non_linearity.apply(project(&self.down, read, shared.down()));
        let mut output = project(&self.up, narrow, shared.up());
        if let Some(dropout) = dropout.filter(|_| config.stochastic_depth > 0.0 && !config.is_parallel) {
            let [batch, _, _] = output.dims();
            let rows = Tensor::ones([batch, 1, 1], &output.device().without_autodiff());
            output = output * dropout.derive(1).with_probability(config.stochastic_depth).apply(rows);
        }
        output = match (&self.scaling, config.scaling) {
            (Some(scaling), _) => output * scaling.val().unsqueeze(),
            (None, Scaling::Fixed(1.0)) => output,
            (None, Scaling::Fixed(factor)) => output * factor,
            (None, _) => unreachable!("a trained factor has a parameter"),
        };
        if let Some(dropout) = dropout.filter(|_| config.dropout > 0.0) {
            output = dropout.apply(output);
        }
        if let Some(gate) = &self.gate {
            output = output * activation::sigmoid(gate.forward(input)).mean_dim(1);
        }
        let (before, after) = if config.adapter_residual_before_ln { (kept, None) } else { (None, kept) };
        if let Some(kept) = before {
            output = output + kept;
        }
        if let Some(norm) = &self.norm_after {
            output = norm.forward(output);
        }
        match after {
            Some(kept) => output + kept,
            None => output,
        }
    }
}

/// What joins, and how.
pub(super) struct Join<'a> {
    /// Whose normalisations count.
    pub(super) adapter: &'a dyn Adapter,
    pub(super) config: &'a BottleneckConfig,
    pub(super) shared: &'a SharedPhm,
    pub(super) output: Tensor<3>,
    pub(super) residual: Tensor<3>,
    pub(super) norm: Option<&'a Norm>,
    pub(super) dropout: Option<Dropout>,
}
