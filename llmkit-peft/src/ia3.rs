use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::layers::compile;
use crate::random::normal;
use crate::{
    Attach, Dropout, Error, LayerMethod, MethodConfig, Named, Result, Scope, Targets, TunedLayer, WeightSpace,
};

/// (IA)³ (Liu et al. 2022, <https://arxiv.org/abs/2205.05638>): one trained factor for each number that a layer writes,
/// `y = l * (W x + b)`, or, in feed-forward layers, for each number that it reads, `y = W (l * x) + b`.
///
/// The factors start at one, so a fresh (IA)³ leaves the model as it is.
pub type Ia3 = LayerMethod<Ia3Layer>;

/// How an [`Ia3`] is shaped: PEFT's `IA3Config`, and what an `adapter_config.json` of type `IA3` holds.
///
/// ```
/// use llmkit_peft::{Ia3Config, Targets};
///
/// let config = Ia3Config::new(Targets::names(["k_proj", "v_proj", "down_proj"]))
///     .with_feedforward_modules(Targets::names(["down_proj"]));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ia3Config {
    /// The layers to act on; by default PEFT's choice (`k_proj`, `v_proj`, `down_proj` for Llama).
    #[serde(flatten)]
    pub scope: Scope,
    /// Which of them scale what they read: a regular expression for the whole path, or ends of paths. By default PEFT's choice for the
    /// architecture (`down_proj` for Llama and its kin, `output.dense` for BERT).
    #[serde(default = "Targets::model_default")]
    pub feedforward_modules: Targets,
    /// Whether the factors start at one; otherwise normal, for tests. Default true.
    #[serde(default = "yes")]
    pub init_ia3_weights: bool,
}

impl Ia3Config {
    /// (IA)³ on the layers of `scope`, with PEFT's choice of feed-forward layers.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self { scope: scope.into(), feedforward_modules: Targets::ModelDefault, init_ia3_weights: true }
    }

    /// Says which of the layers scale what they read.
    pub fn with_feedforward_modules(self, feedforward_modules: Targets) -> Self {
        Self { feedforward_modules, ..self }
    }

    /// Draws the factors from a normal distribution: not the identity, for tests.
    pub fn with_random_init(self) -> Self {
        Self { init_ia3_weights: false, ..self }
    }
}

fn yes() -> bool {
    true
}

impl MethodConfig for Ia3Config {
    const PEFT_TYPE: &'static str = "IA3";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &["fan_in_fan_out"];
    const ABSENT_FIELDS: &'static [&'static str] = &["layers_to_transform", "layers_pattern"];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    fn validate(&self, origin: &Path) -> Result<()> {
        let wrong = |expected: &str, found: String| {
            Err(Error::Config {
                origin: origin.to_path_buf(),
                field: "feedforward_modules".into(),
                expected: expected.into(),
                found,
            })
        };
        match (&self.feedforward_modules, &self.scope.target_modules) {
            (Targets::Names(names), Targets::Names(targets)) => {
                match names.iter().find(|name| !targets.contains(name)) {
                    Some(name) => wrong("a subset of `target_modules`", name.clone()),
                    None => Ok(()),
                }
            }
            (Targets::AllLinear, _) => {
                wrong("names, or a regular expression for whole paths", "\"all-linear\"".into())
            }
            _ => Ok(()),
        }
    }

    fn default_targets(model_type: &str) -> Option<&'static [&'static str]> {
        match model_type {
            "llama" | "mistral" => Some(&["k_proj", "v_proj", "down_proj"]),
            "mixtral" => Some(&["k_proj", "v_proj", "w2"]),
            "gemma3_text" | "qwen2" | "qwen3" => Some(&["q_proj", "v_proj", "down_proj"]),
            "bert" | "roberta" => Some(&["key", "value", "output.dense"]),
            _ => None,
        }
    }
}

/// PEFT's feed-forward layers for an architecture.
fn default_feedforward(model_type: &str) -> Option<&'static [&'static str]> {
    match model_type {
        "llama" | "mistral" | "gemma3_text" | "qwen2" | "qwen3" => Some(&["down_proj"]),
        "mixtral" => Some(&["w2"]),
        "bert" | "roberta" => Some(&["output.dense"]),
        _ => None,
    }
}

/// Which layers scale what they read.
#[derive(Debug, Clone)]
pub struct Feedforward(Arc<Matcher>);

#[derive(Debug)]
enum Matcher {
    Whole(Regex),
    /// PEFT asks for no dot before these.
    Ends(Vec<String>),
}

impl Feedforward {
    /// Whether the layer of this path does.
    pub fn contains(&self, path: &str) -> bool {
        match self.0.as_ref() {
            Matcher::Whole(pattern) => pattern.is_match(path),
            Matcher::Ends(ends) => ends.iter().any(|end| path.ends_with(end.as_str())),
        }
    }
}

/// The factors of one linear layer.
#[derive(Module, Debug)]
pub struct Ia3Layer {
    /// `[out, 1]`, or `[1, in]` where they scale the input.
    ia3_l: Param<Tensor<2>>,
    #[module(skip)]
    path: String,
    #[module(skip)]
    scales_input: bool,
}

impl Ia3Layer {
    /// Whether the layer scales what it reads, and not what it writes.
    pub fn scales_input(&self) -> bool {
        self.scales_input
    }

    /// # Shapes
    /// `[1, 1, n]`
    fn factors(&self) -> Tensor<3> {
        let factors = self.ia3_l.val();
        let len = factors.dims().iter().product();
        factors.reshape([1, 1, len])
    }
}

impl TunedLayer for Ia3Layer {
    type Config = Ia3Config;
    type Shared = Feedforward;

    fn shared(
        model: &dyn Model,
        config: &Ia3Config,
        _seed: u64,
        _file: Option<&dyn TensorSource>,
    ) -> Result<Feedforward> {
        let origin = Path::new("Ia3Config");
        let matcher = match &config.feedforward_modules {
            Targets::Regex(pattern) => {
                Matcher::Whole(compile(&format!("^(?:{pattern})$"), "feedforward_modules", origin)?)
            }
            Targets::Names(names) => Matcher::Ends(names.clone()),
            Targets::ModelDefault | Targets::AllLinear => {
                let model_type = model.config()["model_type"].as_str().unwrap_or_default();
                let names = default_feedforward(model_type).ok_or_else(|| Error::Config {
                    origin: origin.to_path_buf(),
                    field: "feedforward_modules".into(),
                    expected: format!("names or an empty list (there is no default for `{model_type}`)"),
                    found: "null".into(),
                })?;
                Matcher::Ends(names.iter().copied().map(str::to_owned).collect())
            }
        };
        Ok(Feedforward(Arc::new(matcher)))
    }

    fn attach(layer: Layer<'_>, config: &Ia3Config, attach: &Attach<'_, Feedforward>) -> Result<Self> {
        let Layer::Linear(linear) = layer else { unreachable!("only linear layers are accepted") };
        let scales_input = attach.shared.contains(linear.path());
        let (len, shape) = match scales_input {
            true => (linear.d_input(), [1, linear.d_input()]),
            false => (linear.d_output(), [linear.d_output(), 1]),
        };
        let factors = match config.init_ia3_weights {
            true => vec![1.0; len],
            false => normal(len, 1.0, &mut attach.rng(linear.path())),
        };
        Ok(Self {
            ia3_l: Param::from_data(TensorData::new(factors, shape), attach.device),
            path: linear.path().to_owned(),
            scales_input,
        })
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _: &Feedforward, _: Option<Dropout>) -> Tensor<3> {
        match self.scales_input {
            true => base.forward(input * self.factors()),
            false => base.forward(input) * self.factors(),
        }
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        vec![Named::new("ia3_l", &self.ia3_l)]
    }

    fn merge(&self, layer: LayerMut<'_>, _: &Feedforward) -> Result<()> {
        let LayerMut::Linear(linear) = layer else { unreachable!("only linear layers are accepted") };
        let factors = self.ia3_l.val().without_autodiff();
        let dtype = linear.weight.dtype();
        // [out, 1] scales rows, [1, in] columns.
        linear.weight = (linear.weight.clone().cast(DType::F32) * factors.clone()).cast(dtype);
        if !self.scales_input {
            let len = linear.d_output();
            linear.bias = linear.bias.take().map(|bias| {
                let dtype = bias.dtype();
                (bias.cast(DType::F32) * factors.reshape([len])).cast(dtype)
            });
        }
        Ok(())
    }
}

impl WeightSpace for Ia3Layer {
    const NAME: &'static str = "ia3";

    fn weight(&self, base: Tensor<2>, _: &Feedforward) -> Tensor<2> {
        // [out, 1] scales rows, [1, in] columns.
        base * self.ia3_l.val()
    }

    fn changes_bias(&self, has_bias: bool) -> bool {
        has_bias && !self.scales_input
    }
}
