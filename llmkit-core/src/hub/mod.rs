//! Downloading models from the Hugging Face hub.
//!
//! [`fetch`] puts a model's files where huggingface_hub puts them, so that Python and llmkit share one copy, and gives the folder
//! that [`Pretrained::load`](crate::models::Pretrained::load) reads. Weights come as safetensors only, never pickled; [`Hub::fetch_file`]
//! gets any single file, such as one of several GGUF files. A file of which the hub states the SHA-256 (all large ones) is checked against
//! it, and a download of it that breaks off goes on from there, at once or the next time.
//!
//! The environment is that of huggingface_hub: `HF_TOKEN` for private and gated models, `HF_HUB_CACHE` or `HF_HOME` for the cache,
//! `HF_HUB_OFFLINE=1` for no network at all, `HF_ENDPOINT` for a mirror, `HTTPS_PROXY` for a proxy, and `SSL_CERT_FILE` for
//! certificates other than Mozilla's.

mod cache;
mod environment;
mod http;
mod listing;

use std::path::PathBuf;

use self::cache::RepoCache;
use self::http::{Client, Failure};
use self::listing::{INDEX, Listing, SINGLE};
use crate::{Error, Result};

/// How often a download that breaks off goes on at once.
const RETRIES: usize = 5;

/// Where models come from and where they are kept.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name in its repository.
    pub file: &'a str,
    /// Bytes received.
    pub received: u64,
    /// Bytes in all, where the server says so.
    pub total: Option<u64>,
}

/// Downloads the model `repo` (as in `HuggingFaceTB/SmolLM2-135M-Instruct`) at `revision` (a branch, tag or commit; `main` if none) and
/// gives its folder. What is in the cache already is not downloaded again.
///
/// The network is asked first, since a branch moves; where it can't be reached, a complete copy in the cache serves.
///
/// # Errors
/// [`Error::Hub`] saying what to do: after at most 10 seconds where the network can't be reached.
pub fn fetch(repo: &str, revision: Option<&str>) -> Result<PathBuf> {
    Hub::from_env(repo)?.fetch(repo, revision, &mut |_| {})
}

impl Hub {
    /// A hub at `endpoint`, such as `https://huggingface.co`, whose files are kept in `cache`.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        let endpoint = endpoint.into().trim_end_matches('/').to_owned();
        Self { endpoint, cache: cache.into(), token: None, offline: false }
    }

    /// Sets the token for private and gated models. It is sent to the endpoint's own address only.
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// Sets whether only the cache serves; default false.
    pub fn with_offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// [`fetch`] from this hub. `progress` is called as bytes arrive.
    ///
    /// # Errors
    /// [`Error::Hub`] saying what to do.
    pub fn fetch(
        &self,
        repo: &str,
        revision: Option<&str>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf> {
        let failed = |reason: String| Error::Hub { repo: repo.to_owned(), reason };
        let revision = revision.unwrap_or("main");
        check_names(repo, revision).map_err(failed)?;
        let cache = RepoCache::new(&self.cache, repo);
        let cached = cache.complete_snapshot(revision);
        if self.offline {
            return cached.ok_or_else(|| {
                failed(format!(
                    "HF_HUB_OFFLINE is set and {} has no complete copy of `{revision}`; unset it, or pass the path of a local model",
                    cache.folder().display()
                ))
            });
        }
        // A commit never changes.
        if is_commit(revision)
            && let Some(folder) = cached
        {
            return Ok(folder);
        }
        match self.download(repo, revision, &cache, progress) {
            Ok(folder) => Ok(folder),
            Err(Failure::Local(error)) => Err(error),
            Err(Failure::Refused(reason)) => Err(failed(reason)),
            Err(Failure::Unreachable(reason)) => match cached {
                Some(folder) => {
                    tracing::warn!(
                        repo,
                        revision,
                        reason,
                        "the hub can't be reached; the copy in the cache serves"
                    );
                    Ok(folder)
                }
                None => Err(failed(format!(
                    "{} can't be reached ({reason}) and {} has no complete copy; connect to the network, set HTTPS_PROXY or \
                     HF_ENDPOINT, or pass the path of a local model",
                    self.endpoint,
                    cache.folder().display()
                ))),
            },
        }
    }

    /// Downloads one file of `repo` and gives its path; for a GGUF file, pass that to [`Pretrained::load`](crate::models::Pretrained::load).
    /// What is in the cache already is not downloaded again. `progress` is called as bytes arrive.
    ///
    /// # Errors
    /// [`Error::Hub`] saying what to do.
    pub fn fetch_file(
        &self,
        repo: &str,
        revision: Option<&str>,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf> {
        let failed = |reason: String| Error::Hub { repo: repo.to_owned(), reason };
        let revision = revision.unwrap_or("main");
        check_names(repo, revision).map_err(failed)?;
        if !is_plain_path(file) {
            return Err(failed(format!("`{file}` is not the path of a file in a repository")));
        }
        let cache = RepoCache::new(&self.cache, repo);
        let cached = || cache.commit(revision).filter(|commit| cache.has(commit, file));
        let path = |commit: &str| cache.snapshot(commit).join(file);
        if let Some(commit) = cached().filter(|_| self.offline || is_commit(revision)) {
            return Ok(path(&commit));
        }
        if self.offline {
            return Err(failed(format!(
                "HF_HUB_OFFLINE is set and {} has no `{file}` of `{revision}`; unset it, or pass the path of a local file",
                cache.folder().display()
            )));
        }
        let mut ask = || {
            let client = Client::new(&self.endpoint, self.token.as_deref())?;
            let listing = Listing::request(&client, repo, revision)?;
            if !listing.has(file) {
                return Err(refused(format!("it has no file `{file}` (check the name)")));
            }
            get(&client, repo, &listing.commit, file, &cache, progress)?;
            cache.point(revision, &listing.commit)?;
            Ok(listing.commit)
        };
        match ask() {
            Ok(commit) => Ok(path(&commit)),
            Err(Failure::Local(error)) => Err(error),
            Err(Failure::Refused(reason)) => Err(failed(reason)),
            Err(Failure::Unreachable(reason)) => match cached() {
                Some(commit) => {
                    tracing::warn!(
                        repo,
                        revision,
                        reason,
                        "the hub can't be reached; the copy in the cache serves"
                    );
                    Ok(path(&commit))
                }
                None => Err(failed(format!(
                    "{} can't be reached ({reason}); connect to the network",
                    self.endpoint
                ))),
            },
        }
    }

    fn download(
        &self,
        repo: &str,
        revision: &str,
        cache: &RepoCache,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, Failure> {
        let client = Client::new(&self.endpoint, self.token.as_deref())?;
        let listing = Listing::request(&client, repo, revision)?;
        let commit = &listing.commit;
        let mut get = |name: &str| get(&client, repo, commit, name, cache, progress);
        for name in listing.small_files() {
            get(name)?;
        }
        // Weights come last: a snapshot with all of its weights has everything else as well.
        let weights = listing.weights()?;
        get(weights)?;
        if weights == INDEX {
            for shard in cache.shards(commit).ok_or_else(|| refused(format!("its {INDEX} is malformed")))? {
                get(&shard)?;
            }
        }
        cache.point(revision, commit)?;
        Ok(cache.snapshot(commit))
    }
}

/// Brings a file into the cache.
fn get(
    client: &Client<'_>,
    repo: &str,
    commit: &str,
    name: &str,
    cache: &RepoCache,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Failure> {
    if cache.has(commit, name) {
        return Ok(());
    }
    let path = format!("{repo}/resolve/{commit}/{name}");
    let mut have = 0;
    let mut attempts = 0;
    loop {
        let mut file = client.open(&path, 0)?;
        let partial = cache.partial(&file);
        if partial > 0 && file.size.is_some_and(|size| partial < size) {
            file = client.open(&path, partial)?;
        }
        let etag = file.etag.clone();
        let mut received = 0;
        let mut report = |now, total| {
            received = now;
            progress(Progress { file: name, received: now, total });
        };
        match cache.store(commit, name, file, &mut report) {
            // What arrived was kept and it gets further each time: go on from there.
            Err(Failure::Unreachable(reason))
                if attempts < RETRIES && received > have && cache.keeps(&etag) =>
            {
                tracing::warn!(repo, file = name, received, reason, "the download broke off and goes on");
                have = received;
                attempts += 1;
            }
            result => return result,
        }
    }
}

fn refused(reason: impl Into<String>) -> Failure {
    Failure::Refused(reason.into())
}

/// Both become parts of paths and addresses.
fn check_names(repo: &str, revision: &str) -> Result<(), String> {
    let plain = |part: &str| {
        let letters = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        letters && !part.is_empty() && !part.starts_with('.') && !part.contains("..")
    };
    let parts = repo.split('/').count();
    if parts > 2 || repo.len() > 200 || !repo.split('/').all(plain) {
        return Err("not the name of a repository, which looks like `owner/name`".to_owned());
    }
    if revision.len() > 200 || !revision.split('/').all(plain) {
        return Err(format!("`{revision}` is no revision; pass a branch, a tag or a commit"));
    }
    Ok(())
}

/// A path below a folder, of plain names.
fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| {
        let letters = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
        letters && !part.is_empty() && !part.starts_with('.') && !part.contains("..")
    };
    path.len() <= 200 && path.split('/').all(plain)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
