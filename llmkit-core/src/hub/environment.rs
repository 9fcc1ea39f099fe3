use std::env;
use std::fs;
use std::path::PathBuf;

use super::Hub;
use crate::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// The longest token file that is read, in bytes.
const MAX_TOKEN: u64 = 4096;

impl Hub {
    /// The hub that the environment describes, as huggingface_hub reads it; `repo` is for the error.
    ///
    /// # Errors
    /// [`Error::Hub`] if there is no home folder to keep files in.
    pub fn from_env(repo: &str) -> Result<Self> {
        let home = home();
        let cache = path("HF_HUB_CACHE").or_else(|| home.as_ref().map(|home| home.join("hub")));
        let Some(cache) = cache else {
            let reason = "there is no home folder to keep its files in; set HF_HOME".to_owned();
            return Err(Error::Hub { repo: repo.to_owned(), reason });
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let hub = Self::new(endpoint, cache).with_offline(flag("HF_HUB_OFFLINE"));
        let token_file = path("HF_TOKEN_PATH").or_else(|| home.map(|home| home.join("token")));
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(|| token_file.and_then(read_token));
        let token = token.filter(|_| !flag("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        Ok(match token {
            Some(token) => hub.with_token(token),
            None => hub,
        })
    }
}

fn home() -> Option<PathBuf> {
    let cache = || path("XDG_CACHE_HOME").or_else(|| env::home_dir().map(|home| home.join(".cache")));
    path("HF_HOME").or_else(|| cache().map(|cache| cache.join("huggingface")))
}

/// What `hf auth login` left.
fn read_token(file: PathBuf) -> Option<String> {
    if fs::metadata(&file).ok()?.len() > MAX_TOKEN {
        return None;
    }
    let token = fs::read_to_string(file).ok()?.trim().to_owned();
    Some(token).filter(|token| !token.is_empty())
}

fn text(variable: &str) -> Option<String> {
    env::var(variable).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn flag(variable: &str) -> bool {
    text(variable)
        .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
}
