use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::http::{Failure, RemoteFile};
use super::listing::ADAPTER;
use super::{INDEX, SINGLE, is_commit, refused};
use crate::checkpoint::write_atomic;
use crate::{Error, Result};

/// The longest index that is read, in bytes.
const MAX_INDEX: u64 = 100 << 20;

/// One repository in huggingface_hub's cache: `refs/REVISION` holds a commit, `snapshots/COMMIT` the files as links to `blobs/CONTENT`.
#[derive(Debug)]
pub(super) struct RepoCache {
    folder: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &str) -> Self {
        Self { folder: cache.join(format!("models--{}", repo.replace('/', "--"))) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn has(&self, commit: &str, name: &str) -> bool {
        // Follows the link, so a removed blob counts as missing.
        self.snapshot(commit).join(name).is_file()
    }

    /// The folder of `revision` if it has a configuration and all of its weights.
    pub(super) fn complete_snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            fs::read_to_string(self.folder.join("refs").join(revision)).ok()?.trim().to_owned()
        };
        let has = |name: &str| self.has(&commit, name);
        let complete =
            is_commit(&commit) && (self.is_model(&commit) || (has("adapter_config.json") && has(ADAPTER)));
        complete.then(|| self.snapshot(&commit))
    }

    fn is_model(&self, commit: &str) -> bool {
        let all_shards =
            || self.shards(commit).is_some_and(|shards| shards.iter().all(|name| self.has(commit, name)));
        self.has(commit, "config.json") && (self.has(commit, SINGLE) || all_shards())
    }

    /// The shards that the index names, if it is there and usable.
    pub(super) fn shards(&self, commit: &str) -> Option<Vec<String>> {
        let path = self.snapshot(commit).join(INDEX);
        if fs::metadata(&path).ok()?.len() > MAX_INDEX {
            return None;
        }
        let index: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let names = index["weight_map"].as_object()?.values().map(|name| name.as_str().map(str::to_owned));
        let mut names: Vec<String> = names.collect::<Option<_>>()?;
        names.sort();
        names.dedup();
        names.iter().all(|name| is_shard(name)).then_some(names)
    }

    /// Receives a file.
    pub(super) fn store(
        &self,
        commit: &str,
        name: &str,
        file: RemoteFile,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Failure> {
        let blobs = self.folder.join("blobs");
        let place = self.snapshot(commit).join(name);
        for folder in [Some(blobs.as_path()), place.parent()].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let blob = blobs.join(&file.etag);
        if !blob.is_file() {
            receive(&blob, name, file, progress)?;
        }
        Ok(link(&blob, &place, name.split('/').count())?)
    }

    /// Remembers that `revision` stands for `commit`.
    pub(super) fn point(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        write_atomic(&path, |file| file.write_all(commit.as_bytes()))
    }
}

/// Writes the blob, all or nothing, and checks what can be checked: the length, and the hash where the tag is one.
fn receive(
    blob: &Path,
    name: &str,
    file: RemoteFile,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Failure> {
    let RemoteFile { etag, size, mut content } = file;
    let mut lost = None;
    let written = write_atomic(blob, |out| {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        let mut received = 0;
        progress(0, size);
        loop {
            let read = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    lost = Some(Failure::Unreachable(format!(
                        "{name} broke off after {received} bytes: {error}"
                    )));
                    return Err(io::Error::other("lost"));
                }
            };
            hash.update(&buffer[..read]);
            out.write_all(&buffer[..read])?;
            received += read as u64;
            progress(received, size);
        }
        if size.is_some_and(|size| size != received) {
            lost = Some(Failure::Unreachable(format!("{name} broke off after {received} bytes")));
            return Err(io::Error::other("lost"));
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if etag.len() == digest.len() && etag != digest {
            lost = Some(refused(format!(
                "{name} was damaged on its way: its SHA-256 is {digest}, it should be {etag}"
            )));
            return Err(io::Error::other("lost"));
        }
        Ok(())
    });
    match (lost, written) {
        (Some(failure), _) => Err(failure),
        (None, written) => Ok(written?),
    }
}

/// Makes `to`, which lies `depth` below the snapshots' folder of its commit, another name of `blob`, as huggingface_hub does: a relative
/// link, or a file of its own where links aren't to be had.
fn link(blob: &Path, to: &Path, depth: usize) -> Result<()> {
    // What is left of a blob that somebody removed.
    if fs::symlink_metadata(to).is_ok() {
        fs::remove_file(to).map_err(Error::io("remove", to))?;
    }
    #[cfg(unix)]
    if let Some(name) = blob.file_name()
        && std::os::unix::fs::symlink(Path::new(&"../".repeat(depth + 1)).join("blobs").join(name), to)
            .is_ok()
    {
        return Ok(());
    }
    match fs::hard_link(blob, to) {
        Ok(()) => Ok(()),
        Err(_) => fs::copy(blob, to).map(drop).map_err(Error::io("write", to)),
    }
}

/// A plain file name that ends as a shard's must.
fn is_shard(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    letters && name.ends_with(".safetensors") && !name.starts_with('.')
}
