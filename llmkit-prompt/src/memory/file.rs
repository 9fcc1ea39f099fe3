//! Conversations in files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The largest file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// Writes beside `path` and renames.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let io = |source| Error::Io { action: "write", path: path.to_path_buf(), source };
    let text = serde_json::to_vec_pretty(value).map_err(|error| io(error.into()))?;
    let (beside, mut file) = create_beside(path).map_err(io)?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    drop(file);
    written.and_then(|()| fs::rename(&beside, path)).map_err(|error| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&beside);
        io(error)
    })
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let io = |source| Error::Io { action: "read", path: path.to_path_buf(), source };
    let error = |found: String| Error::Memory {
        memory: path.display().to_string(),
        expected: "a conversation as `Conversation::save` writes it".to_owned(),
        found,
    };
    let mut text = Vec::new();
    File::open(path).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(error(format!("more than {MAX_BYTES} bytes")));
    }
    serde_json::from_slice(&text).map_err(|source| error(source.to_string()))
}

/// A new file in the folder of `path`, under a name that nobody else uses.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        beside.push(format!(".{}-{count}.tmp", std::process::id()));
        let beside = path.with_file_name(beside);
        match OpenOptions::new().write(true).create_new(true).open(&beside) {
            Ok(file) => return Ok((beside, file)),
            // Left over from a process that had our number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}
