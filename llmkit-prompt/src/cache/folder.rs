use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::{CacheKey, CacheStore, Record};

/// What every file begins with.
const MAGIC: &[u8; 8] = b"llmkit\0\x01";

/// The bytes before a record: the magic, when it was made (milliseconds since 1970), the SHA-256 of key, time and record.
const HEAD: usize = 8 + 8 + 32;

/// The largest record that is read.
const MAX_BYTES: u64 = 256 << 20;

/// A store of one file a record in a folder, which programs may share.
///
/// A file is written beside its place and renamed, so a program that is killed leaves either the old record or the new one. Each has a checksum: one that is
/// damaged counts as not there, is [counted](Self::damaged), and is replaced when its answer is made again. Nothing is forgotten; delete files as
/// you like.
///
/// ```
/// use llmkit_prompt::cache::{CacheKey, CacheStore, FolderStore, Record};
///
/// # fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("cache");
/// let key = CacheKey::of_text("m", "a");
/// FolderStore::open(&path)?.put(key, Record::new(vec![1, 2]))?;
/// assert_eq!(FolderStore::open(&path)?.get(key)?.unwrap().bytes, [1, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FolderStore {
    folder: PathBuf,
    damaged: AtomicU64,
}

impl FolderStore {
    /// The store in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: impl AsRef<Path>) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder: folder.as_ref().to_path_buf(), damaged: AtomicU64::new(0) })
    }

    /// How many damaged records were met since the store was opened.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    fn path(&self, key: CacheKey) -> PathBuf {
        let name = key.to_string();
        // A folder with a hundred thousand files is slow on some systems.
        self.folder.join(&name[..2]).join(&name[2..])
    }
}

impl CacheStore for FolderStore {
    fn get(&self, key: CacheKey) -> io::Result<Option<Record>> {
        let path = self.path(key);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let record = decode(key, bytes);
        if record.is_none() {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(path = %path.display(), "a damaged record of the cache is skipped");
        }
        Ok(record)
    }

    fn put(&self, key: CacheKey, record: Record) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let path = self.path(key);
        let folder = path.parent().expect("a record's path has a folder");
        fs::create_dir_all(folder)?;
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let beside = folder.join(format!("{}-{number}.partial", process::id()));
        let written = File::create(&beside)
            .and_then(|mut file| file.write_all(&encode(key, &record)))
            .and_then(|()| fs::rename(&beside, &path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

fn encode(key: CacheKey, record: &Record) -> Vec<u8> {
    let age = record.made.duration_since(UNIX_EPOCH).unwrap_or_default();
    let made = u64::try_from(age.as_millis()).unwrap_or(u64::MAX).to_le_bytes();
    [MAGIC.as_slice(), &made, &checksum(key, &made, &record.bytes), &record.bytes].concat()
}

fn decode(key: CacheKey, mut bytes: Vec<u8>) -> Option<Record> {
    let (head, record) = bytes.split_at_checked(HEAD)?;
    let (magic, rest) = head.split_at(8);
    let (made, sum) = rest.split_at(8);
    if magic != MAGIC || sum != checksum(key, made, record) {
        return None;
    }
    let made = Duration::from_millis(u64::from_le_bytes(made.try_into().ok()?));
    bytes.drain(..HEAD);
    Some(Record { made: UNIX_EPOCH.checked_add(made)?, bytes })
}

fn checksum(key: CacheKey, made: &[u8], record: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(key.to_string());
    hash.update(made);
    hash.update(record);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_damage_is_noticed_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let (key, other) = (CacheKey::of_text("m", "a"), CacheKey::of_text("m", "b"));
        let record = Record::new(b"answer".to_vec());
        store.put(key, record.clone()).unwrap();
        let path = store.path(key);
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(store.get(key).unwrap(), None, "a bit of byte {place}");
            fs::write(&path, &whole[..place]).unwrap();
            assert_eq!(store.get(key).unwrap(), None, "cut at {place}");
        }
        assert_eq!(store.damaged(), 2 * whole.len() as u64);
        // Under another key it is another's answer.
        fs::create_dir_all(store.path(other).parent().unwrap()).unwrap();
        fs::write(store.path(other), &whole).unwrap();
        assert_eq!(store.get(other).unwrap(), None);
        store.put(key, record.clone()).unwrap();
        assert_eq!(store.get(key).unwrap().unwrap().bytes, record.bytes);
    }
}
