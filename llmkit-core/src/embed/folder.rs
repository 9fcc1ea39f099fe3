//! Reading the JSON files of a sentence-transformers folder.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::read_json;
use crate::{Error, Result};

/// The longest file of settings that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The name that sentence-transformers gives to the settings of the transformer; the older ones said what it was.
const TRANSFORMER: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// A JSON file and where it was.
#[derive(Debug)]
pub(super) struct Json {
    pub(super) path: PathBuf,
    pub(super) value: Value,
}

impl Json {
    /// The file, if it is there.
    pub(super) fn find(path: PathBuf) -> Result<Option<Self>> {
        if !path.is_file() {
            return Ok(None);
        }
        let value = read_json(&path, MAX_BYTES)?;
        Ok(Some(Self { path, value }))
    }

    /// The file, which must be there.
    pub(super) fn read(path: PathBuf, remedy: &str) -> Result<Self> {
        match Self::find(path.clone())? {
            Some(json) => Ok(json),
            None => Err(Error::MissingFile { path, remedy: remedy.to_owned() }),
        }
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    /// A truth value, or `default` where the field is missing.
    pub(super) fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        match self.get(field) {
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(field, "true or false", value)),
            None => Ok(default),
        }
    }

    /// A positive integer, if the field is there; numbers beyond any text's length stand for no limit.
    pub(super) fn size(&self, field: &str) -> Result<Option<usize>> {
        match self.get(field) {
            // Libraries write 1e30 for "no limit".
            Some(value) => match value.as_f64() {
                Some(size) if size >= 1.0 && size.fract() == 0.0 => Ok(Some(size.min(1e9) as usize)),
                _ => Err(self.wrong(field, "a positive integer", value)),
            },
            None => Ok(None),
        }
    }

    /// A text, if the field is there.
    pub(super) fn text(&self, field: &str) -> Result<Option<&str>> {
        match self.get(field) {
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.wrong(field, "a text", value)),
            None => Ok(None),
        }
    }

    /// Insists that a field is missing, null or empty, because what it asks for would change the result.
    pub(super) fn unsupported(&self, field: &str) -> Result<()> {
        match self.get(field) {
            Some(value) if value.as_object().is_none_or(|object| !object.is_empty()) => {
                Err(self.wrong(field, "nothing (what it asks for is not supported)", value))
            }
            _ => Ok(()),
        }
    }

    /// An [`Error::Config`] about `field`.
    pub(super) fn wrong(&self, field: &str, expected: &str, found: impl ToString) -> Error {
        Error::Config {
            path: self.path.clone(),
            field: field.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}

/// The settings of the transformer in `folder`, if there are any.
pub(super) fn transformer_settings(folder: &Path) -> Result<Option<Json>> {
    for name in TRANSFORMER {
        if let Some(json) = Json::find(folder.join(name))? {
            for field in ["query_expansion", "query_length", "document_length", "processing_kwargs"] {
                json.unsupported(field)?;
            }
            return Ok(Some(json));
        }
    }
    Ok(None)
}

/// The longest text in tokens: what `settings` say, or else the tokenizer in `folder`; never more than the model's `positions`.
pub(super) fn max_length(settings: Option<&Json>, folder: &Path, positions: usize) -> Result<usize> {
    let set = settings.map(|settings| settings.size("max_seq_length")).transpose()?.flatten();
    let length = match (set, Json::find(folder.join("tokenizer_config.json"))?) {
        (Some(length), _) => Some(length),
        (None, Some(config)) => config.size("model_max_length")?,
        (None, None) => None,
    };
    Ok(length.unwrap_or(positions).min(positions))
}

/// The folder of a module, which must lie in `folder`.
pub(super) fn module_folder(folder: &Path, modules: &Json, name: &str) -> Result<PathBuf> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if inside { Ok(folder.join(name)) } else { Err(modules.wrong("path", "a folder in this one", name)) }
}
