use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::layers::{
    Bias, MethodConfig, Scope, as_integer_if_whole, as_integers_if_whole, compile_pattern, lookup_pattern,
    null_as_default,
};
use crate::{Error, Result};

/// How a LoRA is shaped: PEFT's `LoraConfig`, and what an `adapter_config.json` of type `LORA` holds.
///
/// ```
/// use llmkit_peft::{LoraConfig, Targets};
///
/// let config = LoraConfig::new(Targets::names(["q_proj", "v_proj"])).with_rank(16).with_alpha(32.0).with_rslora(true);
/// assert_eq!(config.rank, 16);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// The layers to act on, and what trains whole beside them.
    #[serde(flatten)]
    pub scope: Scope,
    /// The rank `r` of the update; default 8.
    #[serde(rename = "r", default = "default_rank")]
    pub rank: usize,
    /// The numerator of the scale: `alpha / r`, or `alpha / sqrt(r)` with rsLoRA; default 8.
    #[serde(rename = "lora_alpha", default = "default_alpha", serialize_with = "as_integer_if_whole")]
    pub alpha: f64,
    /// The probability that an input of the update is dropped while training, in [0, 1); default 0.
    #[serde(rename = "lora_dropout", default)]
    pub dropout: f64,
    /// Which biases train along; default none.
    #[serde(default)]
    pub bias: Bias,
    /// Scale by `alpha / sqrt(r)`, which stays stable at high ranks (Kalajdzievski 2023); default false.
    #[serde(default)]
    pub use_rslora: bool,
    /// Whether `lora_B` has a bias of its own; default false.
    #[serde(default)]
    pub lora_bias: bool,
    /// How the factors start; default [`InitLora::Default`].
    #[serde(rename = "init_lora_weights", default)]
    pub init: InitLora,
    /// Other ranks for layers whose path ends in a match of the key.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rank_pattern: IndexMap<String, usize>,
    /// Other alphas for layers whose path ends in a match of the key.
    #[serde(default, deserialize_with = "null_as_default", serialize_with = "as_integers_if_whole")]
    pub alpha_pattern: IndexMap<String, f64>,
}

/// How a LoRA's factors start. In every form the adapter begins as the identity, but for [`InitLora::Random`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitLora {
    /// `A` uniform in `±1 / sqrt(in)` (Kaiming with a = sqrt(5)), `B` zero.
    #[default]
    Default,
    /// `A` normal with standard deviation `1 / r`, `B` zero.
    Gaussian,
    /// Both factors random: not the identity, for tests.
    Random,
}

/// The rank and the scale of the update in one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    /// The rank `r`.
    pub rank: usize,
    /// The factor of `B A x`.
    pub scale: f64,
}

impl LoraConfig {
    /// A LoRA of rank 8 and alpha 8 on these layers.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self {
            scope: scope.into(),
            rank: default_rank(),
            alpha: default_alpha(),
            dropout: 0.0,
            bias: Bias::None,
            use_rslora: false,
            lora_bias: false,
            init: InitLora::Default,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
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

    /// Sets the dropout probability.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Sets which biases train along.
    pub fn with_bias(self, bias: Bias) -> Self {
        Self { bias, ..self }
    }

    /// Scales by `alpha / sqrt(r)`.
    pub fn with_rslora(self, use_rslora: bool) -> Self {
        Self { use_rslora, ..self }
    }

    /// Sets how the factors start.
    pub fn with_init(self, init: InitLora) -> Self {
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

    /// A function from a layer's path to its rank and scale.
    pub(crate) fn sizes(&self, origin: &Path) -> Result<impl Fn(&str) -> Sizes + use<>> {
        let ranks = compile_pattern(self.rank_pattern.iter().map(|(k, v)| (k, *v)), "rank_pattern", origin)?;
        let alphas =
            compile_pattern(self.alpha_pattern.iter().map(|(k, v)| (k, *v)), "alpha_pattern", origin)?;
        let (rank, alpha, use_rslora) = (self.rank, self.alpha, self.use_rslora);
        Ok(move |path: &str| {
            let rank = lookup_pattern(&ranks, path).copied().unwrap_or(rank);
            let alpha = lookup_pattern(&alphas, path).copied().unwrap_or(alpha);
            let divisor = if use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            Sizes { rank, scale: alpha / divisor }
        })
    }
}

impl MethodConfig for LoraConfig {
    const PEFT_TYPE: &'static str = "LORA";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &[
        "alora_invocation_tokens",
        "arrow_config",
        "corda_config",
        "fan_in_fan_out",
        "kasa_config",
        "layer_replication",
        "lora_ga_config",
        "megatron_config",
        "monteclora_config",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_dora",
        "use_qalora",
        "velora_config",
    ];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn bias(&self) -> Bias {
        self.bias
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
        if let Some(rank) = std::iter::once(&self.rank)
            .chain(self.rank_pattern.values())
            .find(|rank| !(1..=1 << 16).contains(*rank))
        {
            return wrong("r", "an integer in 1..=65536", rank.to_string());
        }
        if let Some(alpha) =
            std::iter::once(&self.alpha).chain(self.alpha_pattern.values()).find(|alpha| !alpha.is_finite())
        {
            return wrong("lora_alpha", "a finite number", alpha.to_string());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("lora_dropout", "a probability in [0, 1)", self.dropout.to_string());
        }
        Ok(())
    }
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}

impl<'de> Deserialize<'de> for InitLora {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) | Value::Null => Ok(Self::Default),
            Value::Bool(false) => Ok(Self::Random),
            Value::String(name) if name == "gaussian" => Ok(Self::Gaussian),
            // These also change the base model's weights, which the adapter's file alone does not tell.
            other => Err(serde::de::Error::custom(format!(
                "init_lora_weights = {other} is not supported; in PEFT, save the adapter with \
                 `path_initial_model_for_weight_conversion` to make it an ordinary LoRA"
            ))),
        }
    }
}

impl Serialize for InitLora {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_bool(true),
            Self::Gaussian => serializer.serialize_str("gaussian"),
            Self::Random => serializer.serialize_bool(false),
        }
    }
}
