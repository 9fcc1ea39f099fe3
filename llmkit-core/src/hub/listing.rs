use serde::Deserialize;

use super::http::{Client, Failure};
use super::{is_commit, is_plain_path, refused};
use crate::Result;

/// A model's weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// A model's weights in several files, and which holds what.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The weights of a PEFT adapter.
pub(super) const ADAPTER: &str = "adapter_model.safetensors";

/// What is worth having beside the weights.
const SMALL: [&str; 15] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "adapter_config.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// The most files that are taken from the folders of modules.
const MOST_MODULE_FILES: usize = 16;

/// Where a model keeps further chat templates, such as one for conversations with tools.
const TEMPLATES: &str = "additional_chat_templates/";
/// The most of those that are fetched.
const MOST_TEMPLATES: usize = 20;

/// What a repository holds at one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    files: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Listing {
    pub(super) fn request(client: &Client<'_>, repo: &str, revision: &str) -> Result<Self, Failure> {
        let json = client.text(&format!("api/models/{repo}/revision/{}", revision.replace('/', "%2F")))?;
        let answer: Answer = serde_json::from_str(&json)
            .map_err(|error| refused(format!("the hub's answer is not what it should be: {error}")))?;
        // It becomes the name of a folder.
        if !is_commit(&answer.sha) {
            return Err(refused("the hub's answer names no commit"));
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Self { commit: answer.sha, files })
    }

    /// Those of the files beside the weights that exist, the modules of sentence-transformers, and further chat templates. The names are
    /// ours or of a form that is, so a hostile listing can't lead elsewhere.
    pub(super) fn small_files(&self) -> impl Iterator<Item = &str> {
        let modules = self.files.iter().map(String::as_str).filter(|name| is_module_file(name));
        let templates = self.files.iter().map(String::as_str).filter(|name| is_template(name));
        let ours = SMALL.into_iter().filter(|name| self.has(name));
        ours.chain(modules.take(MOST_MODULE_FILES)).chain(templates.take(MOST_TEMPLATES))
    }

    /// The file that holds the weights, or says which files do.
    pub(super) fn weights(&self) -> Result<&'static str, Failure> {
        if let Some(name) = [SINGLE, INDEX, ADAPTER].into_iter().find(|name| self.has(name)) {
            return Ok(name);
        }
        let ends = |end: &str| self.files.iter().any(|name| name.ends_with(end));
        Err(refused(if ends(".gguf") {
            "it has GGUF files only; get one of them with `Hub::fetch_file` and pass its path"
        } else if ends(".bin") || ends(".pt") || ends(".pth") {
            "its weights are pickled, which can run code when read; look for a revision with safetensors (the hub's converter opens \
             one as `refs/pr/N`), or convert them with transformers' `save_pretrained`"
        } else {
            "it has no safetensors"
        }))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }
}

/// A chat template with a plain name in the folder for them.
fn is_template(name: &str) -> bool {
    let template = name.strip_prefix(TEMPLATES);
    template.is_some_and(|name| name.ends_with(".jinja") && !name.contains('/')) && is_plain_path(name)
}

/// A file of a module's folder: `1_Pooling/config.json`, `2_Dense/model.safetensors`.
fn is_module_file(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else { return false };
    let Some((number, kind)) = folder.split_once('_') else { return false };
    (1..=2).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && ["Pooling", "Dense", "Normalize", "Dropout"].contains(&kind)
        && ["config.json", SINGLE].contains(&file)
}
