//! Where a model keeps its chat template and the special tokens that it writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde_json::Value;

use super::template::DEFAULT;
use crate::checkpoint::gguf::{Metadata, MetadataValue};
use crate::{Error, Result};

/// The templates by name, and the special tokens by their variable.
type Sources = (BTreeMap<String, String>, BTreeMap<String, String>);

const TOKENS: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];

pub(super) fn from_folder(folder: &Path) -> Result<Sources> {
    let config = json(&folder.join("tokenizer_config.json"))?;
    let map = json(&folder.join("special_tokens_map.json"))?;
    let mut tokens = BTreeMap::new();
    for name in TOKENS {
        let text = |json: &Option<Value>| {
            let token = json.as_ref()?.get(name)?;
            token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
        };
        if let Some(text) = text(&config).or_else(|| text(&map)) {
            tokens.insert(name.to_owned(), text);
        }
    }

    let mut sources = BTreeMap::new();
    if let Some(source) = read(&folder.join("chat_template.jinja"))? {
        sources.insert(DEFAULT.to_owned(), source);
    }
    let additional = folder.join("additional_chat_templates");
    if additional.is_dir() {
        for entry in fs::read_dir(&additional).map_err(Error::io("read", &additional))? {
            let path = entry.map_err(Error::io("read", &additional))?.path();
            if let (Some(name), Some("jinja")) = (
                path.file_stem().and_then(|name| name.to_str()),
                path.extension().and_then(|name| name.to_str()),
            ) && let Some(source) = read(&path)?
            {
                sources.insert(name.to_owned(), source);
            }
        }
    }
    if sources.is_empty() {
        sources = listed(config.as_ref().and_then(|config| config.get("chat_template")))?;
    }
    if sources.is_empty() {
        return Err(missing(&format!(
            "{} has neither chat_template.jinja nor a `chat_template` in tokenizer_config.json",
            folder.display()
        )));
    }
    Ok((sources, tokens))
}

/// What `chat_template` of a `tokenizer_config.json` holds: one template, or `[{"name": .., "template": ..}]`.
fn listed(value: Option<&Value>) -> Result<BTreeMap<String, String>> {
    match value {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::String(source)) => Ok(BTreeMap::from([(DEFAULT.to_owned(), source.clone())])),
        Some(Value::Array(named)) => named
            .iter()
            .map(|entry| {
                let part = |name| entry.get(name).and_then(Value::as_str).map(str::to_owned);
                part("name").zip(part("template")).ok_or_else(|| Error::Template {
                    reason:
                        "an entry of tokenizer_config.json's `chat_template` lacks its `name` or `template`"
                            .to_owned(),
                })
            })
            .collect(),
        Some(_) => Err(Error::Template {
            reason: "`chat_template` of tokenizer_config.json is neither a text nor a list of named ones"
                .to_owned(),
        }),
    }
}

pub(super) fn from_gguf(metadata: &Metadata) -> Result<Sources> {
    const KEY: &str = "tokenizer.chat_template";
    let mut sources = BTreeMap::new();
    for (key, value) in metadata {
        let name = match key.strip_prefix(KEY) {
            Some("") => DEFAULT,
            Some(rest) => match rest.strip_prefix('.') {
                Some(name) => name,
                None => continue,
            },
            None => continue,
        };
        let MetadataValue::String(source) = value else {
            return Err(Error::Template { reason: format!("`{key}` is not a string") });
        };
        sources.insert(name.to_owned(), source.clone());
    }
    if sources.is_empty() {
        return Err(missing("the GGUF file has no `tokenizer.chat_template`"));
    }

    let keys = ["bos_token_id", "eos_token_id", "padding_token_id", "unknown_token_id"];
    let mut tokens = BTreeMap::new();
    if let Some(MetadataValue::Array(vocabulary)) = metadata.get("tokenizer.ggml.tokens") {
        for (name, key) in TOKENS.into_iter().zip(keys) {
            let Some(id) = metadata.get(&format!("tokenizer.ggml.{key}")).and_then(MetadataValue::as_u32)
            else {
                continue;
            };
            if let Some(MetadataValue::String(token)) = vocabulary.get(id as usize) {
                tokens.insert(name.to_owned(), token.clone());
            }
        }
    }
    Ok((sources, tokens))
}

fn missing(what: &str) -> Error {
    Error::Template {
        reason: format!(
            "the model has none ({what}), as is usual for base models; use the instruction-tuned one, or give a template \
             with `ChatTemplate::new`"
        ),
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn json(path: &Path) -> Result<Option<Value>> {
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|source| Error::Json { path: path.to_path_buf(), source })
}
