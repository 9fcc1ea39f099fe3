use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;
use tokenizers::AddedToken;

use super::{SpecialTokens, Tokenizer, file, guard};
use crate::{Error, Result};

/// Reads a model folder: `tokenizer.json` and whatever says which tokens are special.
pub(super) fn read(folder: &Path) -> Result<Tokenizer> {
    let mut inner = file::read(&folder.join("tokenizer.json"))?;
    let config = Json::read(folder.join("tokenizer_config.json"))?;
    let map = Json::read(folder.join("special_tokens_map.json"))?;
    let generation = Json::read(folder.join("generation_config.json"))?;
    let model = Json::read(folder.join("config.json"))?;
    if let Some(config) = &config {
        add_listed_tokens(&mut inner, config)?;
    }

    let named = |field: &'static str| -> Result<Option<u32>> {
        for json in [&config, &map].into_iter().flatten() {
            if let Some(id) = json.token(field, &inner)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    };
    // Training scripts edit the model's config, generation reads `generation_config.json`: the latter wins.
    let listed = |field: &'static str| -> Result<Vec<u32>> {
        for json in [&generation, &model].into_iter().flatten() {
            let ids = json.ids(field, &inner)?;
            if !ids.is_empty() {
                return Ok(ids);
            }
        }
        Ok(Vec::new())
    };
    let mut special = SpecialTokens {
        bos: match named("bos_token")? {
            Some(id) => Some(id),
            None => listed("bos_token_id")?.first().copied(),
        },
        eos: named("eos_token")?.into_iter().collect(),
        pad: match named("pad_token")? {
            Some(id) => Some(id),
            None => listed("pad_token_id")?.first().copied(),
        },
    };
    special.extend_eos(listed("eos_token_id")?);
    Ok(Tokenizer::new(inner, special))
}

/// Adds the tokens of `added_tokens_decoder` that `tokenizer.json` lacks; older folders list some only there.
fn add_listed_tokens(tokenizer: &mut tokenizers::Tokenizer, config: &Json) -> Result<()> {
    let Some(listed) = config.value.get("added_tokens_decoder").and_then(Value::as_object) else {
        return Ok(());
    };
    let mut missing = Vec::new();
    for (id, token) in listed {
        let parsed = (id.parse::<u32>().ok(), token.get("content").and_then(Value::as_str));
        let (Some(id), Some(content)) = parsed else {
            return Err(config.error(
                "added_tokens_decoder",
                "ids with a `content` each",
                format!("`{id}`: {token}"),
            ));
        };
        if tokenizer.token_to_id(content).is_none() {
            let flag =
                |name: &str, default: bool| token.get(name).and_then(Value::as_bool).unwrap_or(default);
            let special = flag("special", false);
            let added = AddedToken::from(content, special)
                .single_word(flag("single_word", false))
                .lstrip(flag("lstrip", false))
                .rstrip(flag("rstrip", false))
                .normalized(flag("normalized", !special));
            missing.push((id, added));
        }
    }
    missing.sort_by_key(|(id, _)| *id);
    for (id, token) in missing {
        let content = token.content.clone();
        guard("adding a token", || tokenizer.add_tokens([token]).map(|_| ()))?;
        let given = tokenizer.token_to_id(&content);
        if given != Some(id) {
            return Err(config.error(
                "added_tokens_decoder",
                &format!("`{content}` with the next free id, {}", given.unwrap_or_default()),
                format!("id {id}"),
            ));
        }
    }
    Ok(())
}

/// A JSON file of the folder, and where it was.
struct Json {
    path: PathBuf,
    value: Value,
}

impl Json {
    /// The file, or nothing if it is not there.
    fn read(path: PathBuf) -> Result<Option<Self>> {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(Self { path, value })),
            Err(source) => Err(Error::Json { path, source }),
        }
    }

    fn error(&self, field: &str, expected: &str, found: String) -> Error {
        Error::Config {
            path: self.path.clone(),
            field: field.to_owned(),
            expected: expected.to_owned(),
            found,
        }
    }

    /// The id of a token that the file names by its text: `"</s>"`, or `{"content": "</s>", ..}`.
    fn token(&self, field: &'static str, tokenizer: &tokenizers::Tokenizer) -> Result<Option<u32>> {
        let value = match self.value.get(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let Some(text) = value.as_str().or_else(|| value.get("content").and_then(Value::as_str)) else {
            return Err(self.error(field, "a token's text", value.to_string()));
        };
        match tokenizer.token_to_id(text) {
            Some(id) => Ok(Some(id)),
            None => Err(self.error(field, "a token of tokenizer.json", format!("`{text}`, which is none"))),
        }
    }

    /// The ids in a field that holds one or a list. Negative ids mean none, as old configs write it.
    fn ids(&self, field: &'static str, tokenizer: &tokenizers::Tokenizer) -> Result<Vec<u32>> {
        let values = match self.value.get(field) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let mut ids = Vec::new();
        for value in values {
            if value.as_i64().is_some_and(i64::is_negative) {
                continue;
            }
            match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) if tokenizer.id_to_token(id).is_some() => ids.push(id),
                _ => return Err(self.error(field, "the id of a token in tokenizer.json", value.to_string())),
            }
        }
        Ok(ids)
    }
}
