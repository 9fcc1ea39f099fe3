use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::targets::{Indices, Patterns, TargetFields, compile_pattern, lookup_pattern};
use crate::{Error, Result, TargetModules, Targets};

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
    /// The linear layers to act on; default PEFT's choice for the architecture.
    #[serde(default = "Targets::model_default")]
    pub target_modules: Targets,
    /// Layers to leave out again.
    #[serde(default)]
    pub exclude_modules: Option<Targets>,
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
    /// Act on these blocks only.
    #[serde(default)]
    pub(crate) layers_to_transform: Option<Indices>,
    /// What blocks are called where `layers_to_transform` is set, such as `layers`.
    #[serde(default)]
    pub(crate) layers_pattern: Option<Patterns>,
    /// Layers that are trained whole and saved along, such as `lm_head`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub modules_to_save: Vec<String>,
    /// The base model's name, for other programs.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// What the model is for; default `CAUSAL_LM`.
    #[serde(default)]
    pub task_type: Option<String>,
    /// Fields that llmkit doesn't act on; they are written back as they came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Which biases train along with a LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// Those of the layers that the LoRA acts on.
    LoraOnly,
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

/// Fields under which the same files mean another computation, with the value that means nothing special.
const MUST_BE_NEUTRAL: [&str; 15] = [
    "alora_invocation_tokens",
    "arrow_config",
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
    "corda_config",
];

impl LoraConfig {
    /// A LoRA of rank 8 and alpha 8 on `target_modules`.
    pub fn new(target_modules: Targets) -> Self {
        Self {
            target_modules,
            exclude_modules: None,
            rank: default_rank(),
            alpha: default_alpha(),
            dropout: 0.0,
            bias: Bias::None,
            use_rslora: false,
            lora_bias: false,
            init: InitLora::Default,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            layers_to_transform: None,
            layers_pattern: None,
            modules_to_save: Vec::new(),
            base_model_name_or_path: None,
            task_type: Some("CAUSAL_LM".into()),
            other: Map::new(),
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

    /// Acts on these blocks only.
    pub fn with_layers_to_transform(self, layers: impl IntoIterator<Item = usize>) -> Self {
        Self { layers_to_transform: Some(Indices::Many(layers.into_iter().collect())), ..self }
    }

    /// Trains these layers whole and saves them along.
    pub fn with_modules_to_save<S: Into<String>>(self, modules: impl IntoIterator<Item = S>) -> Self {
        Self { modules_to_save: modules.into_iter().map(Into::into).collect(), ..self }
    }

    /// Leaves these layers out.
    pub fn with_exclude_modules(self, exclude: Targets) -> Self {
        Self { exclude_modules: Some(exclude), ..self }
    }

    /// Reads an `adapter_config.json`'s text; `origin` is its path.
    ///
    /// # Errors
    /// [`Error::Config`] for another `peft_type`, a missing or impossible field, and fields that ask for a computation which llmkit
    /// does not do.
    pub fn parse(text: &str, origin: &Path) -> Result<Self> {
        let wrong = |field: &str, expected: &str, found: String| Error::Config {
            origin: origin.to_path_buf(),
            field: field.into(),
            expected: expected.into(),
            found,
        };
        let mut fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| wrong("(the whole file)", "a JSON object", error.to_string()))?;
        match fields.remove("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            other => return Err(wrong("peft_type", "\"LORA\"", other.unwrap_or(Value::Null).to_string())),
        }
        for field in MUST_BE_NEUTRAL {
            let value = fields.get(field).unwrap_or(&Value::Null);
            if !is_neutral(value) {
                return Err(wrong(field, "a neutral value (its method is not supported)", value.to_string()));
            }
        }
        let config: Self = serde_json::from_value(Value::Object(fields))
            .map_err(|error| wrong("(some field)", "a LoRA configuration", error.to_string()))?;
        config.validate(origin)?;
        Ok(config)
    }

    /// The text of an `adapter_config.json`: indented by two, keys sorted, `inference_mode` on, as PEFT writes it.
    pub fn to_json(&self) -> String {
        let Ok(Value::Object(fields)) = serde_json::to_value(self) else {
            unreachable!("a configuration is an object of strings and numbers")
        };
        let mut sorted: std::collections::BTreeMap<_, _> = fields.into_iter().collect();
        sorted.insert("peft_type".into(), "LORA".into());
        sorted.insert("inference_mode".into(), true.into());
        for (field, value) in &mut sorted {
            // PEFT's own spelling of an empty list.
            if field == "modules_to_save" && *value == Value::Array(Vec::new()) {
                *value = Value::Null;
            }
        }
        serde_json::to_string_pretty(&sorted).expect("numbers and strings always serialise") + "\n"
    }

    /// Checks the numbers.
    pub(crate) fn validate(&self, origin: &Path) -> Result<()> {
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

    /// The rules by which this configuration chooses layers.
    pub(crate) fn targets(&self, origin: &Path) -> Result<TargetModules> {
        TargetModules::new(
            TargetFields {
                target_modules: &self.target_modules,
                exclude_modules: self.exclude_modules.as_ref(),
                modules_to_save: &self.modules_to_save,
                layers_to_transform: self.layers_to_transform.as_ref(),
                layers_pattern: self.layers_pattern.as_ref(),
            },
            origin,
        )
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

fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// PEFT declares alpha an integer.
fn as_integer_if_whole<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

fn as_integers_if_whole<S: serde::Serializer>(
    pattern: &IndexMap<String, f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    struct Alpha(f64);
    impl Serialize for Alpha {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            as_integer_if_whole(&self.0, serializer)
        }
    }
    serializer.collect_map(pattern.iter().map(|(key, alpha)| (key, Alpha(*alpha))))
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
