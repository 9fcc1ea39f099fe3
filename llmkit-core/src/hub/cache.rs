use std::fs::{self, OpenOptions};
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

    /// The commit that `revision` stood for when it was last asked for.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// Whether what arrives of this content is kept when the connection breaks.
    pub(super) fn keeps(&self, etag: &str) -> bool {
        is_sha256(etag)
    }

    /// The folder of `revision` if it has a configuration and all of its weights.
    pub(super) fn complete_snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = self.commit(revision)?;
        let has = |name: &str| self.has(&commit, name);
        let complete = self.is_model(&commit) || (has("adapter_config.json") && has(ADAPTER));
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

    /// How much of a file has arrived before and can be built on: what is broken off of files whose content can be checked is kept.
    pub(super) fn partial(&self, file: &RemoteFile) -> u64 {
        if !is_sha256(&file.etag) {
            return 0;
        }
        fs::metadata(incomplete(&self.folder.join("blobs").join(&file.etag)))
            .map_or(0, |partial| partial.len())
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
            if is_sha256(&file.etag) {
                resume(&blob, name, file, progress)?;
            } else {
                receive(&blob, name, file, progress)?;
            }
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

/// Writes a blob whose name is its SHA-256 behind what has arrived of it before. What arrives is kept when the connection breaks, in the
/// file that huggingface_hub names alike; only with the right hash does it become the blob.
fn resume(
    blob: &Path,
    name: &str,
    file: RemoteFile,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Failure> {
    let path = incomplete(blob);
    let RemoteFile { etag, size, offset, mut content } = file;
    let mut out = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(Error::io("create", &path))?;
    // Another process that downloads the same file comes first.
    out.lock().map_err(Error::io("lock", &path))?;
    if blob.is_file() {
        return Ok(());
    }
    let mut buffer = vec![0; 1 << 18];
    let mut hash = Sha256::new();
    let mut received = 0;
    while received < offset {
        let wanted = buffer.len().min(usize::try_from(offset - received).unwrap_or(usize::MAX));
        let read = out.read(&mut buffer[..wanted]).map_err(Error::io("read", &path))?;
        if read == 0 {
            return Err(Failure::Unreachable(format!("{name} is being downloaded by another process")));
        }
        hash.update(&buffer[..read]);
        received += read as u64;
    }
    out.set_len(offset).map_err(Error::io("write", &path))?;
    progress(received, size);
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                return Err(Failure::Unreachable(format!(
                    "{name} broke off after {received} bytes: {error}"
                )));
            }
        };
        hash.update(&buffer[..read]);
        out.write_all(&buffer[..read]).map_err(Error::io("write", &path))?;
        received += read as u64;
        progress(received, size);
        if size.is_some_and(|size| received > size) {
            break;
        }
    }
    if size.is_some_and(|size| received < size) {
        return Err(Failure::Unreachable(format!("{name} broke off after {received} bytes")));
    }
    let digest = hex(hash);
    if digest != etag {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        return Err(damaged(name, &digest, &etag));
    }
    out.sync_all().map_err(Error::io("write", &path))?;
    fs::rename(&path, blob).map_err(Error::io("rename", &path))?;
    Ok(())
}

/// Writes a blob of which only the length can be checked, all or nothing.
fn receive(
    blob: &Path,
    name: &str,
    file: RemoteFile,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Failure> {
    let RemoteFile { size, mut content, .. } = file;
    let mut lost = None;
    let written = write_atomic(blob, |out| {
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
            out.write_all(&buffer[..read])?;
            received += read as u64;
            progress(received, size);
        }
        if size.is_some_and(|size| size != received) {
            lost = Some(Failure::Unreachable(format!("{name} broke off after {received} bytes")));
            return Err(io::Error::other("lost"));
        }
        Ok(())
    });
    match (lost, written) {
        (Some(failure), _) => Err(failure),
        (None, written) => Ok(written?),
    }
}

fn incomplete(blob: &Path) -> PathBuf {
    blob.with_extension("incomplete")
}

fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn damaged(name: &str, found: &str, expected: &str) -> Failure {
    refused(format!("{name} was damaged on its way: its SHA-256 is {found}, it should be {expected}"))
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
