use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use indexmap::IndexMap;
use llmkit_core::models::{Model, Task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::targets::{Indices, Patterns, TargetFields};
use super::{TargetModules, Targets, TokenIndices};
use crate::{Error, Result};

/// Which layers a method acts on, what trains whole beside it, and what PEFT's configurations say besides.
///
/// ```
/// use llmkit_peft::{LoraConfig, Scope, Targets};
///
/// let scope = Scope::new(Targets::AllLinear).with_modules_to_save(["lm_head"]);
/// let config = LoraConfig::new(scope).with_rank(16);
/// // Targets alone are a scope, too.
/// let config = LoraConfig::new(Targets::names(["q_proj", "v_proj"]));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// The layers to act on; default PEFT's choice for the method and the architecture.
    #[serde(default = "Targets::model_default")]
    pub target_modules: Targets,
    /// Layers to leave out again.
    #[serde(default)]
    pub exclude_modules: Option<Targets>,
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
    /// What the model is for, in PEFT's words; default what the model computes, such as `CAUSAL_LM`.
    #[serde(default)]
    pub task_type: Option<String>,
    /// Fields that llmkit doesn't act on; they are written back as they came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Which biases train along with a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None.
    #[default]
    None,
    /// Every bias of the model, those of normalisations included.
    All,
    /// Those of the layers that the method acts on: PEFT's `lora_only`, `boft_only` and so on.
    #[serde(rename = "lora_only", alias = "boft_only", alias = "oft_only", alias = "vera_only")]
    Targets,
}

impl Scope {
    /// Acts on `target_modules`.
    pub fn new(target_modules: Targets) -> Self {
        Self {
            target_modules,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            modules_to_save: Vec::new(),
            base_model_name_or_path: None,
            task_type: None,
            other: Map::new(),
        }
    }

    /// Leaves these layers out.
    pub fn with_exclude_modules(self, exclude: Targets) -> Self {
        Self { exclude_modules: Some(exclude), ..self }
    }

    /// Acts on these blocks only.
    pub fn with_layers_to_transform(self, layers: impl IntoIterator<Item = usize>) -> Self {
        Self { layers_to_transform: Some(Indices::Many(layers.into_iter().collect())), ..self }
    }

    /// Trains these layers whole and saves them along.
    pub fn with_modules_to_save<S: Into<String>>(self, modules: impl IntoIterator<Item = S>) -> Self {
        Self { modules_to_save: modules.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets what the model is for, in PEFT's words: `CAUSAL_LM`, `SEQ_CLS`, `TOKEN_CLS`, `FEATURE_EXTRACTION`. The default follows from the
    /// model.
    pub fn with_task_type(self, task_type: impl Into<String>) -> Self {
        Self { task_type: Some(task_type.into()), ..self }
    }

    /// What PEFT fills in when it makes a fresh adapter: the task and, for classifiers, that their head trains whole.
    pub(crate) fn complete_for(&mut self, model: &dyn Model) {
        if self.task_type.is_none() {
            self.task_type = task_type(model.task()).map(str::to_owned);
        }
        if is_classifier(model) {
            let missing =
                CLASSIFIERS.iter().filter(|name| !self.modules_to_save.iter().any(|own| own == *name));
            let missing: Vec<_> = missing.map(|name| (*name).to_owned()).collect();
            self.modules_to_save.extend(missing);
        }
    }

    /// Refuses what PEFT would ignore: fields that its configuration of the method doesn't have.
    pub(crate) fn check_absent(&self, absent: &[&str], origin: &Path) -> Result<()> {
        let given = |field: &str| match field {
            "exclude_modules" => self.exclude_modules.is_some(),
            "layers_to_transform" => self.layers_to_transform.is_some(),
            "layers_pattern" => self.layers_pattern.is_some(),
            _ => false,
        };
        match absent.iter().find(|field| given(field)) {
            None => Ok(()),
            Some(field) => Err(Error::Config {
                origin: origin.to_path_buf(),
                field: (*field).to_owned(),
                expected: "nothing (PEFT's method has no such field; choose layers in `target_modules`)"
                    .into(),
                found: "a value".into(),
            }),
        }
    }

    /// The rules by which layers are chosen; `defaults` are the method's for the model.
    pub(crate) fn targets(&self, defaults: Option<&[&str]>, origin: &Path) -> Result<TargetModules> {
        let fields = TargetFields {
            target_modules: &self.target_modules,
            exclude_modules: self.exclude_modules.as_ref(),
            modules_to_save: &self.modules_to_save,
            layers_to_transform: self.layers_to_transform.as_ref(),
            layers_pattern: self.layers_pattern.as_ref(),
        };
        TargetModules::new(fields, defaults, origin)
    }
}

/// What PEFT trains whole in a classifier; a model has one or the other.
pub(crate) const CLASSIFIERS: [&str; 2] = ["classifier", "score"];

/// Whether PEFT gives the model a trained head.
pub(crate) fn is_classifier(model: &dyn Model) -> bool {
    matches!(model.task(), Task::SequenceClassification | Task::TokenClassification)
}

/// PEFT's word for a task.
pub(crate) fn task_type(task: Task) -> Option<&'static str> {
    match task {
        Task::CausalLm => Some("CAUSAL_LM"),
        Task::SequenceClassification => Some("SEQ_CLS"),
        Task::TokenClassification => Some("TOKEN_CLS"),
        Task::FeatureExtraction => Some("FEATURE_EXTRACTION"),
        _ => None,
    }
}

impl From<Targets> for Scope {
    fn from(targets: Targets) -> Self {
        Self::new(targets)
    }
}

/// The configuration of a method that acts layer by layer: what its `adapter_config.json` holds.
pub trait MethodConfig:
    Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What the file calls the method.
    const PEFT_TYPE: &'static str;

    /// Fields under which the same files mean another computation, unless they are null, false or empty.
    const MUST_BE_NEUTRAL: &'static [&'static str];

    /// Fields of [`Scope`] that PEFT's configuration of the method doesn't have.
    const ABSENT_FIELDS: &'static [&'static str] = &[];

    /// What the file calls [`Bias::Targets`].
    const TARGET_BIASES: &'static str = "lora_only";

    /// Which layers.
    fn scope(&self) -> &Scope;

    /// Which layers, to be filled in for a model.
    fn scope_mut(&mut self) -> &mut Scope;

    /// Checks the numbers; `origin` is where they came from.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that is out of range.
    fn validate(&self, origin: &Path) -> Result<()>;

    /// PEFT's target modules for an architecture, by `model_type`, if it has any.
    fn default_targets(model_type: &str) -> Option<&'static [&'static str]> {
        default_projections(model_type)
    }

    /// The probability of dropout while training.
    fn dropout(&self) -> f64 {
        0.0
    }

    /// Which biases train along.
    fn bias(&self) -> Bias {
        Bias::None
    }

    /// Tokens whose vectors train along.
    fn trainable_tokens(&self) -> Option<&TokenIndices> {
        None
    }

    /// Whether what acts on an embedding must act on a head that is tied to it.
    fn ensure_weight_tying(&self) -> bool {
        false
    }

    /// Reads an `adapter_config.json`'s text; `origin` is its path.
    ///
    /// # Errors
    /// [`Error::Config`] for another `peft_type`, a missing or impossible field, and fields that ask for a computation which llmkit
    /// does not do.
    fn parse(text: &str, origin: &Path) -> Result<Self> {
        let config: Self = parse_config(text, Self::PEFT_TYPE, Self::MUST_BE_NEUTRAL, origin)?;
        config.validate(origin)?;
        Ok(config)
    }

    /// The text of an `adapter_config.json`: indented by two, keys sorted, `inference_mode` on, as PEFT writes it.
    fn to_json(&self) -> String {
        config_text(self, Self::PEFT_TYPE, |fields| {
            fields.retain(|field, value| !(value.is_null() && Self::ABSENT_FIELDS.contains(&field.as_str())));
            if let Some(bias) = fields.get_mut("bias").filter(|bias| **bias == "lora_only") {
                *bias = Self::TARGET_BIASES.into();
            }
        })
    }
}

/// Reads the text of an `adapter_config.json` of the type `peft_type`, in which each field of `neutral` must say nothing special.
pub(crate) fn parse_config<C: DeserializeOwned>(
    text: &str,
    peft_type: &str,
    neutral: &[&str],
    origin: &Path,
) -> Result<C> {
    let wrong = |field: &str, expected: &str, found: String| Error::Config {
        origin: origin.to_path_buf(),
        field: field.into(),
        expected: expected.into(),
        found,
    };
    let mut fields: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| wrong("(the whole file)", "a JSON object", error.to_string()))?;
    match fields.remove("peft_type") {
        Some(Value::String(kind)) if kind == peft_type => {}
        other => {
            let expected = format!("\"{peft_type}\"");
            return Err(wrong("peft_type", &expected, other.unwrap_or(Value::Null).to_string()));
        }
    }
    for field in neutral {
        let value = fields.get(*field).unwrap_or(&Value::Null);
        if !is_neutral(value) {
            return Err(wrong(field, "a neutral value (its method is not supported)", value.to_string()));
        }
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| wrong("(some field)", "a configuration of this method", error.to_string()))
}

/// The text of an `adapter_config.json` as PEFT writes it, after `edit` has seen the fields.
pub(crate) fn config_text(
    config: &impl Serialize,
    peft_type: &str,
    edit: impl FnOnce(&mut BTreeMap<String, Value>),
) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(config) else {
        unreachable!("a configuration is an object of strings and numbers")
    };
    let mut sorted: BTreeMap<_, _> = fields.into_iter().collect();
    sorted.insert("peft_type".into(), peft_type.into());
    sorted.insert("inference_mode".into(), true.into());
    edit(&mut sorted);
    // PEFT's own spelling of an empty list.
    if let Some(modules) =
        sorted.get_mut("modules_to_save").filter(|modules| modules.as_array().is_some_and(Vec::is_empty))
    {
        *modules = Value::Null;
    }
    serde_json::to_string_pretty(&sorted).expect("numbers and strings always serialise") + "\n"
}

/// The targets that most of PEFT's methods share.
fn default_projections(model_type: &str) -> Option<&'static [&'static str]> {
    match model_type {
        "llama" | "mistral" | "mixtral" | "gemma3_text" | "qwen2" | "qwen3" => Some(&["q_proj", "v_proj"]),
        "bert" | "roberta" | "xlm-roberta" => Some(&["query", "value"]),
        _ => None,
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

/// Reads `null` as the default.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// PEFT declares alpha an integer.
pub(crate) fn as_integer_if_whole<S: serde::Serializer>(
    value: &f64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

/// The same for the values of a pattern.
pub(crate) fn as_integers_if_whole<S: serde::Serializer>(
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
