use std::fmt::Debug;
use std::path::Path;

use llmkit_core::models::Model;
use llmkit_core::nn::Layer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::layers::{config_text, null_as_default, parse_config};
use crate::{Error, Result};

/// The most learned positions: far above any use, far below what would exhaust the memory.
const MAX_TOKENS: usize = 1 << 16;

/// What all of PEFT's configurations of prompts have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptScope {
    /// How many positions are learned.
    pub num_virtual_tokens: usize,
    /// The length of a learned vector: the model's hidden size, or that of all key heads of a block in prefix tuning. By default, the
    /// model's.
    #[serde(default)]
    pub token_dim: Option<usize>,
    /// Blocks of the model; by default, the model's.
    #[serde(default)]
    pub num_layers: Option<usize>,
    /// Heads of the model, and key heads in prefix tuning; by default, the model's.
    #[serde(default)]
    pub num_attention_heads: Option<usize>,
    /// Always 1: encoder-decoder models, which have 2, are not supported.
    #[serde(default)]
    pub num_transformer_submodules: Option<usize>,
    /// Layers that are trained whole and saved along, such as a `classifier`.
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

impl PromptScope {
    /// `num_virtual_tokens` learned positions before the sequences of a causal language model.
    pub fn new(num_virtual_tokens: usize) -> Self {
        Self {
            num_virtual_tokens,
            token_dim: None,
            num_layers: None,
            num_attention_heads: None,
            num_transformer_submodules: None,
            modules_to_save: Vec::new(),
            base_model_name_or_path: None,
            task_type: None,
            other: Map::new(),
        }
    }

    /// Trains these layers whole and saves them along.
    pub fn with_modules_to_save<S: Into<String>>(self, modules: impl IntoIterator<Item = S>) -> Self {
        Self { modules_to_save: modules.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets what the model is for, in PEFT's words: `CAUSAL_LM`, `SEQ_CLS`, `TOKEN_CLS`, `FEATURE_EXTRACTION`. Classifiers are trained along.
    pub fn with_task_type(mut self, task_type: impl Into<String>) -> Self {
        let task_type = task_type.into();
        if HEADS_OF.contains(&task_type.as_str()) && self.modules_to_save.is_empty() {
            self.modules_to_save = HEADS.map(str::to_owned).to_vec();
        }
        Self { task_type: Some(task_type), ..self }
    }

    /// The shape of the learned vectors, once completed.
    ///
    /// # Shapes
    /// `[tokens, token_dim]`
    pub fn vectors(&self) -> [usize; 2] {
        [self.num_virtual_tokens, self.token_dim.unwrap_or_default()]
    }

    /// Takes what is not said from the model, as PEFT does.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that says otherwise than the model.
    pub fn complete(&mut self, sizes: PromptSizes, origin: &Path) -> Result<()> {
        let PromptSizes { token_dim, num_heads, num_layers } = sizes;
        for (field, place, size) in [
            ("token_dim", &mut self.token_dim, token_dim),
            ("num_attention_heads", &mut self.num_attention_heads, num_heads),
            ("num_layers", &mut self.num_layers, num_layers),
            ("num_transformer_submodules", &mut self.num_transformer_submodules, 1),
        ] {
            let said = *place.get_or_insert(size);
            if said != size {
                return Err(Error::Config {
                    origin: origin.to_path_buf(),
                    field: field.into(),
                    expected: format!("{size}, as the model has it"),
                    found: said.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// Tasks to which PEFT adds these modules.
const HEADS_OF: [&str; 2] = ["SEQ_CLS", "TOKEN_CLS"];

/// What PEFT trains along where a classifier is the task, whichever of them the model has.
pub(super) const HEADS: [&str; 2] = ["classifier", "score"];

/// The configuration of a method that learns positions before a sequence: what its `adapter_config.json` holds.
pub trait PromptConfig:
    Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What the file calls the method.
    const PEFT_TYPE: &'static str;

    /// What the methods have in common.
    fn scope(&self) -> &PromptScope;

    /// The same, to be completed.
    fn scope_mut(&mut self) -> &mut PromptScope;

    /// Takes from the model what the configuration does not say.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that does not fit the model.
    fn complete(&mut self, model: &dyn Model, origin: &Path) -> Result<()>;

    /// The probability of dropout while training.
    fn dropout(&self) -> f64 {
        0.0
    }

    /// Checks the numbers; `origin` is where they came from.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that is out of range.
    fn validate(&self, origin: &Path) -> Result<()> {
        in_range("num_virtual_tokens", self.scope().num_virtual_tokens, origin)
    }

    /// Reads an `adapter_config.json`'s text; `origin` is its path.
    ///
    /// # Errors
    /// [`Error::Config`] for another `peft_type` and a missing or impossible field.
    fn parse(text: &str, origin: &Path) -> Result<Self> {
        let config: Self = parse_config(text, Self::PEFT_TYPE, &[], origin)?;
        config.validate(origin)?;
        Ok(config)
    }

    /// The text of an `adapter_config.json`: indented by two, keys sorted, `inference_mode` on, as PEFT writes it.
    fn to_json(&self) -> String {
        config_text(self, Self::PEFT_TYPE, |fields| {
            if self.scope().modules_to_save.is_empty() {
                fields.insert("modules_to_save".into(), Value::Null);
            }
        })
    }
}

pub(super) fn in_range(field: &str, size: usize, origin: &Path) -> Result<()> {
    if (1..=MAX_TOKENS).contains(&size) {
        return Ok(());
    }
    Err(Error::Config {
        origin: origin.to_path_buf(),
        field: field.into(),
        expected: format!("an integer in 1..={MAX_TOKENS}"),
        found: size.to_string(),
    })
}

/// The sizes of a model that learned positions must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSizes {
    /// The length of a learned vector.
    pub token_dim: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Blocks.
    pub num_layers: usize,
}

impl PromptSizes {
    /// Those of embedded tokens.
    ///
    /// # Errors
    /// [`Error::Config`] if the model has no embedding.
    pub fn of_embeddings(model: &dyn Model, origin: &Path) -> Result<Self> {
        let mut token_dim = None;
        model.visit(&mut |layer| {
            if let Layer::Embedding(table) = layer {
                token_dim.get_or_insert(table.weight.dims()[1]);
            }
        });
        let token_dim = token_dim.ok_or_else(|| unfit(origin, "token_dim", "a model with an embedding"))?;
        let num_heads = heads(model).ok_or_else(|| {
            unfit(origin, "num_attention_heads", "a model whose configuration says how many heads it has")
        })?;
        Ok(Self { token_dim, num_heads, num_layers: model.num_blocks() })
    }

    /// Those of the keys of a block.
    ///
    /// # Errors
    /// [`Error::Config`] if the blocks differ in the length of their keys, or can't be told.
    pub fn of_keys(model: &dyn Model, origin: &Path) -> Result<Self> {
        let unknown =
            || unfit(origin, "num_attention_heads", "a model whose configuration says how many heads it has");
        let num_heads = heads(model).ok_or_else(unknown)?;
        let key_heads = match &model.config()["num_key_value_heads"] {
            Value::Null => num_heads,
            said => size(said).ok_or_else(unknown)?,
        };
        let mut dims = Vec::new();
        model.visit(&mut |layer| {
            let Layer::Linear(linear) = layer else { return };
            let whole = linear.d_output();
            match linear.path().rsplit('.').next() {
                Some("k_proj" | "key" | "k_lin") => dims.push(whole),
                Some("qkv_proj") => dims.push(whole / (num_heads + 2 * key_heads) * key_heads),
                Some("Wqkv") => dims.push(whole / 3),
                _ => {}
            }
        });
        let uniform = dims.len() == model.num_blocks() && dims.windows(2).all(|pair| pair[0] == pair[1]);
        match dims.first() {
            Some(&token_dim) if uniform && token_dim % key_heads == 0 => {
                Ok(Self { token_dim, num_heads: key_heads, num_layers: model.num_blocks() })
            }
            _ => Err(Error::Config {
                origin: origin.to_path_buf(),
                field: "token_dim".into(),
                expected: "a model of which every block has a key projection of one length".into(),
                found: format!("{} blocks with key projections of {dims:?}", model.num_blocks()),
            }),
        }
    }
}

fn heads(model: &dyn Model) -> Option<usize> {
    ["num_attention_heads", "n_heads"].iter().find_map(|field| size(&model.config()[*field]))
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0)
}

fn unfit(origin: &Path, field: &str, expected: &str) -> Error {
    Error::Config {
        origin: origin.to_path_buf(),
        field: field.into(),
        expected: expected.into(),
        found: "another".into(),
    }
}
