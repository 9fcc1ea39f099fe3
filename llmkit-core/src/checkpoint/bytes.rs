use std::fs::{self, File};
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use super::malformed;
use crate::{Error, Result};

/// The bytes of a file: mapped, or already in memory.
#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a regular file for reading.
    pub(super) fn map(path: &Path) -> Result<Self> {
        // Asked before opening, because opening a pipe would wait for its writer for ever.
        let kind = fs::metadata(path).map_err(Error::io("read", path))?;
        if !kind.is_file() {
            return Err(malformed(path, "a regular file", "a folder, pipe or device"));
        }
        let file = File::open(path).map_err(Error::io("read", path))?;
        if kind.len() == 0 {
            return Ok(Self::Owned(Vec::new()));
        }
        // SAFETY: the mapping is private and read-only, and all reads are bounds-checked against its length. What remains is another process
        // changing the file meanwhile: the bytes are plain numbers and text that is validated where it is read, so changed content gives wrong
        // values and no undefined indexing; a truncated file gives SIGBUS, which the module's documentation states.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(Self::Mapped(map))
    }

    /// Gives back the memory of a range that was read and will hardly be read again: it comes from the file once more if it is. So that
    /// loading a model needs the memory of its weights, and not that of its file beside it.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: dropping pages of a read-only mapping of a file loses nothing: the next access reads them from the file.
            let released =
                unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            if let Err(error) = released {
                tracing::debug!(%error, "the memory of a file's part could not be given back");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}
