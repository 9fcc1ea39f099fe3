use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use serde::Deserialize;

use super::guard;
use crate::{Error, Result};

/// Reads and checks a `tokenizer.json`.
pub(super) fn read(path: &Path) -> Result<tokenizers::Tokenizer> {
    let bytes = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::MissingFile { path: path.to_path_buf(), remedy: remedy(path) },
        _ => Error::io("read", path)(source),
    })?;
    check_merges(path, &bytes)?;
    let mut tokenizer =
        guard(&format!("reading {}", path.display()), || tokenizers::Tokenizer::from_bytes(&bytes))?;
    tokenizer.with_padding(None);
    guard("reading", || tokenizer.with_truncation(None).map(|_| ()))?;
    Ok(tokenizer)
}

fn remedy(path: &Path) -> String {
    let unconverted = ["tokenizer.model", "vocab.json", "tekken.json"];
    let folder = path.parent().unwrap_or(Path::new("."));
    match unconverted.into_iter().find(|name| folder.join(name).exists()) {
        Some(name) => format!(
            "the folder has only `{name}`; convert it once in Python with \
             `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
        ),
        None => "download it with the model's other files".to_owned(),
    }
}

/// The part of a `tokenizer.json` that needs a check before `tokenizers` reads it.
#[derive(Deserialize)]
struct File {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    vocab: Vocabulary,
    #[serde(default)]
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vocabulary {
    Map(HashMap<String, u32>),
    Other(serde::de::IgnoredAny),
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self::Map(HashMap::new())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

/// Checks that both parts of each merge and what they make are tokens. `tokenizers` joins the parts in a buffer as long as its longest
/// token, and a merge that makes a longer one would overrun it.
fn check_merges(path: &Path, bytes: &[u8]) -> Result<()> {
    let file: File =
        serde_json::from_slice(bytes).map_err(|source| Error::Json { path: path.to_path_buf(), source })?;
    let Vocabulary::Map(vocabulary) = &file.model.vocab else { return Ok(()) };
    let prefix = file.model.continuing_subword_prefix.as_deref().unwrap_or_default();
    for (index, merge) in file.model.merges.iter().enumerate() {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
            // A header line or a line with other than two parts is for `tokenizers` to judge.
            Merge::Line(line) => match line.split_once(' ') {
                Some(pair) if !line.starts_with("#version") => pair,
                _ => continue,
            },
        };
        let made = right.strip_prefix(prefix).map(|rest| format!("{left}{rest}"));
        let known = |token: &str| vocabulary.contains_key(token);
        if !(known(left) && known(right) && made.as_deref().is_some_and(known)) {
            return Err(Error::Tokenizer {
                reason: format!(
                    "{}: merge {index} (`{left}` + `{right}`) names or makes a token that the vocabulary lacks",
                    path.display()
                ),
            });
        }
    }
    Ok(())
}
