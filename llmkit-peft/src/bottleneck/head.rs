use std::collections::BTreeMap;
use std::path::Path;

use llmkit_core::models::Model;
use llmkit_core::nn::Layer;
use serde_json::{Map, Value};

use super::layout::{Layout, hidden_size, model_type};
use crate::{AdapterFolder, Error, Named, Result};

/// What AdapterHub's version is called whose files these are.
pub(super) const VERSION: &str = "adapters.1.3.0";

/// A prediction head in AdapterHub's files: a static one, which is the layers of a transformers class under their own names, or a flexible
/// one of an `AdapterModel`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeadFile {
    /// `head_config.json`
    pub(super) config: Map<String, Value>,
    /// The names of the layers in the file, where they aren't the model's.
    renamed: BTreeMap<String, String>,
}

/// A flexible head that computes what a class of transformers does.
struct Flexible {
    head_type: &'static str,
    activation: Option<&'static str>,
    use_pooler: Option<bool>,
    /// The model's layers, in order.
    layers: &'static [&'static str],
}

const TAGGING: Flexible =
    Flexible { head_type: "tagging", activation: None, use_pooler: None, layers: &["classifier"] };

impl Flexible {
    /// That of the model's class, if there is one.
    fn of(model: &dyn Model, layout: &Layout) -> Option<Self> {
        let class = model.config()["architectures"][0].as_str().unwrap_or_default();
        let family = layout.family?;
        if class.ends_with("ForTokenClassification") {
            return (family != "ModernBert").then_some(TAGGING);
        }
        let classification = |activation, use_pooler, layers| Self {
            head_type: "classification",
            activation,
            use_pooler: Some(use_pooler),
            layers,
        };
        match family {
            "Bert" => Some(classification(None, true, &["classifier"])),
            "Roberta" | "XLMRoberta" | "Camembert" => {
                Some(classification(Some("tanh"), false, &["classifier.dense", "classifier.out_proj"]))
            }
            "DistilBert" => Some(classification(Some("relu"), false, &["pre_classifier", "classifier"])),
            _ => None,
        }
    }

    /// The first field of `config` that asks for something else, with what would be right.
    fn difference(&self, config: &Map<String, Value>) -> Option<(&'static str, Value)> {
        let mut expected = vec![
            ("head_type", Value::from(self.head_type)),
            ("layers", self.layers.len().into()),
            ("bias", true.into()),
        ];
        expected.extend(self.use_pooler.map(|use_pooler| ("use_pooler", use_pooler.into())));
        // It stands between two layers.
        expected.extend(self.activation.map(|activation| ("activation_function", activation.into())));
        expected.into_iter().find(|(field, value)| match config.get(*field) {
            Some(found) => found != value,
            // Heads of other kinds than classification don't name it.
            None => *field != "bias",
        })
    }
}

impl HeadFile {
    /// A static head for the model's own.
    pub(super) fn fresh(model: &dyn Model, layout: &Layout) -> Self {
        let mut config = Map::new();
        config.insert("config".into(), Value::Null);
        config.insert("name".into(), Value::Null);
        if let Some(labels) = labels(model) {
            config.insert("num_labels".into(), labels.len().into());
            let ids = labels.into_iter().enumerate().map(|(id, label)| (label, Value::from(id)));
            config.insert("label2id".into(), Value::Object(ids.collect()));
        }
        describe(&mut config, model, layout);
        Self { config, renamed: BTreeMap::new() }
    }

    /// The labels that `head_config.json`'s text names, in order.
    pub(super) fn labels(text: &str, origin: &Path) -> Result<Vec<String>> {
        let wrong = |field: &str, expected: &str, found: String| Error::Config {
            origin: origin.to_path_buf(),
            field: field.into(),
            expected: expected.into(),
            found,
        };
        let config: Value = serde_json::from_str(text)
            .map_err(|error| wrong("(the whole file)", "a JSON object", error.to_string()))?;
        // A flexible head has them one level deeper.
        let ids = match &config["config"]["label2id"] {
            Value::Null => &config["label2id"],
            ids => ids,
        };
        let mut labels: BTreeMap<u64, &String> = BTreeMap::new();
        for (label, id) in ids.as_object().into_iter().flatten() {
            labels.extend(id.as_u64().map(|id| (id, label)));
        }
        let in_order = labels.keys().copied().eq(0..labels.len() as u64);
        match in_order && !labels.is_empty() && ids.as_object().is_some_and(|ids| ids.len() == labels.len()) {
            true => Ok(labels.into_values().cloned().collect()),
            false => Err(wrong("label2id", "each label's number, from 0 on", ids.to_string())),
        }
    }

    /// Reads `head_config.json`'s text; `origin` is its path.
    pub(super) fn parse(text: &str, origin: &Path, model: &dyn Model, layout: &Layout) -> Result<Self> {
        let wrong = |field: &str, expected: &str, found: String| Error::Config {
            origin: origin.to_path_buf(),
            field: field.into(),
            expected: expected.into(),
            found,
        };
        let config: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| wrong("(the whole file)", "a JSON object", error.to_string()))?;
        let theirs = config.get("config").and_then(|head| head.get("label2id")).or(config.get("label2id"));
        if let (Some(theirs), Some(ours)) = (theirs.and_then(Value::as_object), labels(model)) {
            let same = theirs.len() == ours.len()
                && ours.iter().enumerate().all(|(id, label)| theirs.get(label) == Some(&Value::from(id)));
            if !same {
                let expected = format!("the model's labels in its order: {}", ours.join(", "));
                return Err(wrong("label2id", &expected, Value::Object(theirs.clone()).to_string()));
            }
        }
        let Some(Value::Object(flexible)) = config.get("config") else {
            let class = &model.config()["architectures"][0];
            return match config.get("model_class") {
                Some(found) if !found.is_null() && !class.is_null() && found != class => {
                    Err(wrong("model_class", &format!("the model's, {class}"), found.to_string()))
                }
                _ => Ok(Self { config, renamed: BTreeMap::new() }),
            };
        };
        let ours = Flexible::of(model, layout).ok_or_else(|| {
            wrong("config", "null (the head of the model's class)", "a flexible head".into())
        })?;
        if let Some((field, expected)) = ours.difference(flexible) {
            let found = flexible.get(field).unwrap_or(&Value::Null).to_string();
            let expected = format!("{expected}, as the head of the model's class has it");
            return Err(wrong(&format!("config.{field}"), &expected, found));
        }
        let name = config.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| wrong("name", "the head's name", "none".into()))?;
        // Dropout, linear, activation, dropout, linear.
        let places = ours.layers.iter().zip([1, 4]);
        let renamed = places.map(|(layer, place)| (layer.to_string(), format!("heads.{name}.{place}")));
        let renamed = renamed.collect();
        Ok(Self { config, renamed })
    }

    /// The head's tensors with their names in the file.
    pub(super) fn rename<'a>(&self, tensors: Vec<Named<'a>>) -> Vec<Named<'a>> {
        let rename = |named: Named<'a>| {
            let key = named.key.strip_prefix(AdapterFolder::PREFIX).unwrap_or(&named.key);
            let (layer, end) = key.rsplit_once('.').expect("a layer's path and what of it");
            let key = format!("{}.{end}", self.renamed.get(layer).map_or(layer, String::as_str));
            Named::new(key, named.param)
        };
        tensors.into_iter().map(rename).collect()
    }
}

/// Adds what AdapterHub's configurations say of the model.
pub(super) fn describe(config: &mut Map<String, Value>, model: &dyn Model, layout: &Layout) {
    let raw = model.config();
    let class = raw["architectures"][0].as_str().map(str::to_owned).or_else(|| {
        let kind = if model.head_path().is_some() { "ForSequenceClassification" } else { "Model" };
        layout.family.map(|family| format!("{family}{kind}"))
    });
    config.insert("hidden_size".into(), hidden_size(model).into());
    config.insert("model_class".into(), class.into());
    config.insert("model_name".into(), raw["_name_or_path"].clone());
    config.insert("model_type".into(), model_type(raw).into());
    config.insert("version".into(), VERSION.into());
}

/// The names of what a classifier's head scores, in order.
fn labels(model: &dyn Model) -> Option<Vec<String>> {
    let names = model.config().get("id2label")?.as_object()?;
    let head = model.head_path()?;
    let mut count = 0;
    model.visit(&mut |layer| {
        if let Layer::Linear(linear) = layer
            && linear.path() == head
        {
            count = linear.d_output();
        }
    });
    let name = |id: usize| names.get(&id.to_string())?.as_str().map(str::to_owned);
    (0..count).map(name).collect()
}
