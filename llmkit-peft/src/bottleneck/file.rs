use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use llmkit_core::checkpoint::{Safetensors, TensorSource, save_safetensors, write_atomic};
use llmkit_core::models::Model;
use serde_json::{Map, Value, json};

use super::head::{HeadFile, describe};
use super::layout::{Layout, hidden_size, model_type};
use super::state::Values;
use super::{Bottleneck, BottleneckConfig, NonLinearity, Plan};
use crate::{AdapterFolder, Error, Named, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter.safetensors";
const HEAD_CONFIG: &str = "head_config.json";
const HEAD_WEIGHTS: &str = "model_head.safetensors";
const INTERFACE: &str = "adapter_interface.json";

/// What the same would be called in torch's own format, which can run code when it is read.
const PICKLED: &str = "pytorch_adapter.bin";
const PICKLED_HEAD: &str = "pytorch_model_head.bin";

/// What an AdapterHub folder says besides the bottleneck's own configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HubFile {
    /// The adapter's name, which is in every key.
    pub(super) name: String,
    /// What every key starts with.
    prefix: &'static str,
    layout: Layout,
    /// What `adapter_config.json` called the non-linearity, of several names for one function.
    spelling: Option<Value>,
    /// The other fields of `adapter_config.json`.
    other: Map<String, Value>,
    /// `adapter_interface.json`: what tells AdapterHub where a model of an architecture without a class of its own has its layers.
    interface: Option<Value>,
    pub(super) head: Option<HeadFile>,
}

impl HubFile {
    pub(super) fn fresh(model: &dyn Model, layout: Layout, head: bool) -> Self {
        let mut other = Map::new();
        describe(&mut other, model, &layout);
        Self {
            name: "default".into(),
            prefix: layout.prefix_of_model(model),
            layout,
            spelling: None,
            other,
            interface: interface(model_type(model.config())),
            head: head.then(|| HeadFile::fresh(model, &layout)),
        }
    }
}

/// Architectures that AdapterHub has no class for and whose blocks have Llama's layers, with nothing between a sublayer's last layer and the
/// residual stream.
fn interface(model_type: &str) -> Option<Value> {
    matches!(model_type, "qwen2" | "qwen3").then(|| {
        json!({
            "interface": {
                "adapter_methods": ["bottleneck"],
                "attn_k_proj": "k_proj",
                "attn_o_proj": "o_proj",
                "attn_q_proj": "q_proj",
                "attn_qkv_proj": null,
                "attn_v_proj": "v_proj",
                "base_model": null,
                "layer_cross_attn": null,
                "layer_intermediate_proj": "mlp.up_proj",
                "layer_ln_1": null,
                "layer_ln_2": null,
                "layer_output_proj": "mlp.down_proj",
                "layer_pre_cross_attn": null,
                "layer_pre_ffn": "post_attention_layernorm",
                "layer_pre_self_attn": "input_layernorm",
                "layer_self_attn": "self_attn",
                "model_embeddings": "embed_tokens",
                "model_layers": "layers",
            },
            "model_type": model_type,
            "version": super::head::VERSION,
        })
    })
}

impl Bottleneck {
    /// Reads an AdapterHub folder for `model`, with the prediction head if the folder has one.
    ///
    /// # Errors
    /// [`Error::Config`] when a configuration is unusable or the head is not that of the model's class, [`Error::Adapter`] naming every key
    /// that is missing, unknown or of the wrong shape, [`Error::Core`] when a file is missing or malformed, or there is only a pickle.
    pub fn load(model: &dyn Model, folder: impl AsRef<Path>) -> Result<Self> {
        Self::read(model, folder.as_ref(), true)
    }

    /// Reads an AdapterHub folder for `model` and leaves its prediction head aside.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_without_head(model: &dyn Model, folder: impl AsRef<Path>) -> Result<Self> {
        Self::read(model, folder.as_ref(), false)
    }

    /// The labels of the prediction head in an AdapterHub folder, in order: those of the classifier to load it into.
    ///
    /// # Errors
    /// [`Error::Config`] if `head_config.json` has no such labels, [`Error::Core`] if there is no head.
    pub fn head_labels(folder: impl AsRef<Path>) -> Result<Vec<String>> {
        let path = folder.as_ref().join(HEAD_CONFIG);
        HeadFile::labels(&read_text(&path)?, &path)
    }

    fn read(model: &dyn Model, folder: &Path, with_head: bool) -> Result<Self> {
        let origin = folder.join(CONFIG);
        let layout = Layout::of(model);
        let wrong = |field: &str, expected: &str, found: &Value| Error::Config {
            origin: origin.clone(),
            field: field.into(),
            expected: expected.into(),
            found: found.to_string(),
        };
        let mut other: Map<String, Value> = serde_json::from_str(&read_text(&origin)?)
            .map_err(|error| wrong("(the whole file)", "a JSON object", &error.to_string().into()))?;
        let Some(Value::Object(mut fields)) = other.shift_remove("config") else {
            return Err(wrong("config", "an object: the adapter's configuration", &Value::Null));
        };
        let name = match other.shift_remove("name") {
            Some(Value::String(name)) if is_name(&name) => name,
            found => return Err(wrong("name", "a name without dots", &found.unwrap_or(Value::Null))),
        };
        let facts = [
            ("hidden_size", Value::from(hidden_size(model))),
            ("model_type", Value::from(model_type(model.config()))),
        ];
        for (field, expected) in facts {
            let known = expected != "";
            if let Some(found) =
                other.get(field).filter(|found| known && !found.is_null() && **found != expected)
            {
                return Err(wrong(field, &format!("the model's, {expected}"), found));
            }
        }
        if other.get("version").is_none() {
            rename_activation(&mut fields);
            // The names are today's now, and the file that is written must say so.
            other.insert("version".into(), super::head::VERSION.into());
        }
        let config = BottleneckConfig::parse(&fields, &origin)?;

        let file = open(folder, WEIGHTS, PICKLED)?;
        let prefix = layout.prefix_of_file(&file.names());
        let head_origin = folder.join(HEAD_CONFIG);
        let has_head = [HEAD_WEIGHTS, PICKLED_HEAD].iter().any(|name| folder.join(name).exists());
        if with_head && has_head && model.head_path().is_none() {
            return Err(Error::Config {
                origin: head_origin,
                field: "model_class".into(),
                expected: "none: the model has no head (load the folder with `load_without_head`, or for a classifier)".into(),
                found: "a prediction head".into(),
            });
        }
        let head = match with_head && has_head {
            true => Some(HeadFile::parse(&read_text(&head_origin)?, &head_origin, model, &layout)?),
            false => None,
        };
        let interface_path = folder.join(INTERFACE);
        let interface = match interface_path.exists() {
            true => {
                Some(serde_json::from_str(&read_text(&interface_path)?).map_err(|error| Error::Config {
                    origin: interface_path.clone(),
                    field: "(the whole file)".into(),
                    expected: "JSON".into(),
                    found: error.to_string(),
                })?)
            }
            false => None,
        };
        let config = BottleneckConfig { train_head: head.is_some(), ..config };
        let hub = HubFile {
            name,
            prefix,
            layout,
            spelling: fields.shift_remove("non_linearity"),
            other,
            interface,
            head,
        };
        let plan = Plan::new(model, config, hub, &origin)?;
        let values = plan.read(&file)?;
        let bottleneck = plan.build(model, values)?;
        match &bottleneck.hub.head {
            None => Ok(bottleneck),
            Some(head) => {
                let file = open(folder, HEAD_WEIGHTS, PICKLED_HEAD)?;
                let names = head.rename(bottleneck.head.tensors());
                let filled = AdapterFolder::fill(bottleneck.clone(), &names, &[], &file)?;
                filled.refuse_a_tied_head(model, &head_origin)?;
                Ok(filled)
            }
        }
    }

    /// The same under another name, which is in every key of its file; a fresh adapter is called `default`.
    ///
    /// # Errors
    /// [`Error::Config`] if the name is empty or has a dot.
    pub fn with_name(mut self, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if !is_name(&name) {
            return Err(Error::Config {
                origin: PathBuf::from("(the program's configuration)"),
                field: "name".into(),
                expected: "a name without dots".into(),
                found: name,
            });
        }
        self.hub.name = name;
        Ok(self)
    }

    /// Writes `name` as the base model's into the files; without it, they say what the model's configuration says.
    pub fn with_model_name(mut self, name: impl Into<String>) -> Self {
        let name = Value::from(name.into());
        if let Some(head) = &mut self.hub.head {
            head.config.insert("model_name".into(), name.clone());
        }
        self.hub.other.insert("model_name".into(), name);
        self
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.hub.name
    }

    pub(super) fn save_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(llmkit_core::Error::io("create", folder))?;
        let mut stale = vec![PICKLED, PICKLED_HEAD];
        if self.hub.head.is_none() {
            stale.extend([HEAD_WEIGHTS, HEAD_CONFIG]);
        }
        if !matches!(self.hub.interface, Some(Value::Object(_))) {
            stale.push(INTERFACE);
        }
        // What another adapter left in the folder would be read as this one's, should the program end here.
        for name in stale {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(llmkit_core::Error::io("remove", &path)(source).into());
                }
                _ => {}
            }
        }
        let tensors = self.tensors().into_iter().map(|(named, _)| {
            let data = named.param.data();
            (named.key, data)
        });
        save_safetensors(folder.join(WEIGHTS), tensors, None)?;
        let mut config = self.hub.other.clone();
        let mut fields = self.config.to_json();
        if let Some(Value::String(name)) = &self.hub.spelling
            && NonLinearity::from_name(name) == Some(self.config.non_linearity)
        {
            fields.insert("non_linearity".into(), name.clone().into());
        }
        config.insert("config".into(), fields.into());
        config.insert("name".into(), self.hub.name.clone().into());
        write_json(&folder.join(CONFIG), config)?;

        if let Some(head) = &self.hub.head {
            let tensors = head.rename(self.head.tensors()).into_iter().map(|named| {
                let data = named.param.data();
                (named.key, data)
            });
            save_safetensors(folder.join(HEAD_WEIGHTS), tensors, None)?;
            write_json(&folder.join(HEAD_CONFIG), head.config.clone())?;
        }
        if let Some(Value::Object(interface)) = &self.hub.interface {
            write_json(&folder.join(INTERFACE), interface.clone())?;
        }
        Ok(())
    }

    /// Every tensor of `adapter.safetensors`, and whether it trains.
    pub(super) fn tensors(&self) -> Vec<(Named<'_>, bool)> {
        let HubFile { name, prefix, layout, .. } = &self.hub;
        let layers = self.layers.iter().flat_map(|layer| {
            let at = format!("{prefix}{}", layout.module(layer.site, name));
            let state = layer.state(&self.config);
            state
                .entries
                .into_iter()
                .map(move |entry| (Named::new(format!("{at}{}", entry.name), entry.param), entry.trained))
        });
        let at = format!("{prefix}shared_parameters.{name}.");
        let shared = self.shared.state(&self.config.phm).entries.into_iter();
        let shared =
            shared.map(|entry| (Named::new(format!("{at}{}", entry.name), entry.param), entry.trained));
        layers.chain(shared).collect()
    }
}

impl Plan {
    /// The place of a bottleneck's tensors in the file.
    fn at(&self, site: llmkit_core::Site) -> String {
        format!("{}{}", self.hub.prefix, self.hub.layout.module(site, &self.hub.name))
    }

    /// Reads all values from `file`, once it is clear that all are there.
    fn read(&self, file: &dyn TensorSource) -> Result<Vec<Values>> {
        let shared = format!("{}shared_parameters.{}.", self.hub.prefix, self.hub.name);
        let sites = self.sites.iter().map(|(site, wanted)| (self.at(*site), wanted));
        let groups: Vec<_> = sites.chain([(shared, &self.shared)]).collect();
        let (mut missing, mut mismatched, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (at, wanted) in &groups {
            for wanted in *wanted {
                let twin = super::layer::twin(&self.config, &wanted.name);
                for name in std::iter::once(wanted.name.clone()).chain(twin) {
                    let key = format!("{at}{name}");
                    match file.info(&key) {
                        None => missing.push(key.clone()),
                        Some(info) if info.shape != wanted.shape => {
                            let shapes = format!("expected {:?}, found {:?}", wanted.shape, info.shape);
                            mismatched.push(format!("{key}: {shapes}"));
                        }
                        Some(_) => {}
                    }
                    taken.insert(key);
                }
            }
        }
        let unexpected: Vec<_> = file.names().into_iter().filter(|name| !taken.contains(name)).collect();
        if !missing.is_empty() || !unexpected.is_empty() || !mismatched.is_empty() {
            return Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched });
        }
        let mut all = Vec::new();
        for (at, wanted) in groups {
            let mut values = Values::new();
            for wanted in wanted {
                let key = format!("{at}{}", wanted.name);
                let read = file.read_f32(&key)?;
                if let Some(twin) = super::layer::twin(&self.config, &wanted.name) {
                    let twin = format!("{at}{twin}");
                    if file.read_f32(&twin)? != read {
                        let mismatched = vec![format!("{key} and {twin}: expected equal values")];
                        let (missing, unexpected) = (Vec::new(), Vec::new());
                        let path = file.path().to_path_buf();
                        return Err(Error::Adapter { path, missing, unexpected, mismatched });
                    }
                }
                values.insert(wanted.name.clone(), (wanted.shape.clone(), read));
            }
            all.push(values);
        }
        Ok(all)
    }
}

/// Before files had a version, `gelu` meant what is `gelu_new` now.
fn rename_activation(fields: &mut Map<String, Value>) {
    let renamed = match fields.get("non_linearity").and_then(Value::as_str) {
        Some("gelu") => "gelu_new",
        Some("gelu_orig") => "gelu",
        _ => return,
    };
    fields.insert("non_linearity".into(), renamed.into());
}

/// A dot would be torch's.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('.')
}

fn open(folder: &Path, name: &str, pickled: &str) -> Result<Safetensors> {
    let path = folder.join(name);
    if !path.exists() && folder.join(pickled).exists() {
        let remedy = format!(
            "{pickled} is a pickle, which can run code when it is read; load it in Python and save it with `use_safetensors=True`"
        );
        return Err(llmkit_core::Error::MissingFile { path, remedy }.into());
    }
    Ok(Safetensors::open(path)?)
}

fn read_text(path: &Path) -> Result<String> {
    Ok(fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => llmkit_core::Error::MissingFile {
            path: path.to_path_buf(),
            remedy: "an AdapterHub folder has it beside its weights".into(),
        },
        _ => llmkit_core::Error::io("read", path)(source),
    })?)
}

/// Indented by two, keys sorted, as AdapterHub writes it.
fn write_json(path: &Path, fields: Map<String, Value>) -> Result<()> {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields: BTreeMap<_, _> = fields.into_iter().collect();
                fields.into_iter().map(|(field, value)| (field, sorted(value))).collect()
            }
            other => other,
        }
    }
    let json = serde_json::to_string_pretty(&sorted(Value::Object(fields)))
        .expect("numbers and strings always serialise");
    Ok(write_atomic(path, |file| std::io::Write::write_all(file, json.as_bytes()))?)
}
