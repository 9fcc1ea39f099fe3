use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// The buffer between a writer and the file, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// Replaces the file at `path` by what `write` writes, all at once or not at all.
///
/// The bytes go to a temporary file in the same folder, are flushed to the disk (fsync), and the file is renamed over `path`. On any error,
/// and when the process is killed, the old file stays as it was. A symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// [`Error::Io`] when the folder does not exist, the disk is full, or `write` fails. A `write` that fails for a reason of its own passes it
/// as `io::Error::other(error)`; if that is an [`Error`], it comes back as it was.
///
/// ```
/// use std::io::Write;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("adapter_config.json");
/// llmkit_core::checkpoint::write_atomic(&path, |file| file.write_all(b"{}"))?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok(())
/// # }
/// ```
pub fn write_atomic<T>(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<T>,
) -> Result<T> {
    let (staged, value) = Staged::write(path.as_ref(), write)?;
    staged.commit()?;
    Ok(value)
}

/// A complete file beside its destination, on the disk but not yet renamed. Dropped, it disappears.
pub(super) struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    pub(super) fn write<T>(
        path: &Path,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<T>,
    ) -> Result<(Self, T)> {
        let fail = |error: io::Error| match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => Error::io("write", path)(error),
        };
        let file = temporary_in(folder_of(path)).map_err(fail)?;
        let mut buffer = BufWriter::with_capacity(BUFFER_BYTES, file.as_file());
        let value = write(&mut buffer).map_err(fail)?;
        buffer.flush().map_err(fail)?;
        drop(buffer);
        file.as_file().sync_all().map_err(fail)?;
        Ok((Self { file, path: path.to_path_buf() }, value))
    }

    pub(super) fn commit(self) -> Result<()> {
        let Self { file, path } = self;
        file.persist(&path).map_err(|failure| Error::io("write", &path)(failure.error))?;
        sync_folder(folder_of(&path))
    }
}

fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".llmkit-").suffix(".partial");
    // A temporary file is private by default; what replaces a model file is to be as readable as any new file (the umask applies).
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a rename durable. Systems other than Unix cannot open a folder, and need not.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        let opened = File::open(folder).map_err(Error::io("sync", folder))?;
        opened.sync_all().map_err(Error::io("sync", folder))?;
    }
    Ok(())
}

/// Removes a file that may not be there.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_writer_that_fails_midway_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, "old").unwrap();
        let result = write_atomic(&path, |file| -> io::Result<()> {
            // More than the buffer, so that part of it reaches the disk.
            file.write_all(&vec![7; BUFFER_BYTES * 2 + 3])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(
            matches!(&result, Err(Error::Io { action: "write", source, .. }) if source.kind() == io::ErrorKind::StorageFull)
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(folder.path()), ["weights"]);
    }

    #[test]
    fn a_successful_write_replaces_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, "old and longer").unwrap();
        let written = write_atomic(&path, |file| file.write(b"new")).unwrap();
        assert_eq!((written, fs::read(&path).unwrap().as_slice()), (3, b"new".as_slice()));
        assert_eq!(names_in(folder.path()), ["weights"]);
    }

    #[test]
    fn an_error_of_ours_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let own = Error::Tokenizer { reason: "why".into() };
        let result = write_atomic(folder.path().join("x"), |_| Err::<(), _>(io::Error::other(own)));
        assert!(matches!(result, Err(Error::Tokenizer { reason }) if reason == "why"));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_as_readable_as_a_plainly_created_one() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let (plain, ours) = (folder.path().join("plain"), folder.path().join("ours"));
        fs::write(&plain, "").unwrap();
        write_atomic(&ours, |_| Ok(())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    /// Run by `scripts/check_full_disk.sh`, which mounts a file system of 1 MiB.
    #[test]
    #[ignore = "needs LLMKIT_SMALL_DISK, a folder on a file system with less than 8 MiB free"]
    fn a_full_disk_leaves_the_old_file_and_nothing_else() {
        let folder =
            PathBuf::from(std::env::var_os("LLMKIT_SMALL_DISK").expect("LLMKIT_SMALL_DISK names a folder"));
        let path = folder.join("weights");
        fs::write(&path, "old").unwrap();
        let refused = |bytes: usize| {
            let result = write_atomic(&path, |file| file.write_all(&vec![7; bytes]));
            assert!(
                matches!(&result, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull),
                "{result:?}"
            );
            assert_eq!(fs::read(&path).unwrap(), b"old");
        };
        refused(8 << 20);
        assert_eq!(names_in(&folder), ["weights"]);
        // Fewer bytes than the buffer, so that the disk refuses only when it is flushed.
        let filler = folder.join("filler");
        let _ = fs::write(&filler, vec![7; 8 << 20]);
        refused(BUFFER_BYTES / 2);
        assert_eq!(names_in(&folder), ["filler", "weights"]);
    }
}
