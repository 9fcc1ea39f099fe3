use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::CacheKey;

/// Where remembered things are kept. A store may forget what it likes.
pub trait CacheStore: Send + Sync {
    /// What is kept under `key`.
    ///
    /// # Errors
    /// When the store cannot be read; the cache then goes on as if nothing were there, and counts it.
    fn get(&self, key: CacheKey) -> io::Result<Option<Record>>;

    /// Keeps `record` under `key`, in place of what is there.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn put(&self, key: CacheKey, record: Record) -> io::Result<()>;
}

/// Something remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was made.
    pub made: SystemTime,
    /// What it is.
    pub bytes: Vec<u8>,
}

impl Record {
    /// Something made now.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { made: SystemTime::now(), bytes }
    }

    /// Whether it is older than `limit`. What claims to be from the future is not.
    pub(super) fn is_older_than(&self, limit: Option<Duration>) -> bool {
        limit.is_some_and(|limit| self.made.elapsed().is_ok_and(|age| age > limit))
    }
}

/// A store in memory that forgets what has not been used for longest.
///
/// ```
/// use llmkit_prompt::cache::{CacheKey, CacheStore, MemoryStore, Record};
///
/// # fn main() -> std::io::Result<()> {
/// let store = MemoryStore::new().with_max_entries(1);
/// let (a, b) = (CacheKey::of_text("m", "a"), CacheKey::of_text("m", "b"));
/// store.put(a, Record::new(vec![1]))?;
/// store.put(b, Record::new(vec![2]))?;
/// assert!(store.get(a)?.is_none());
/// assert_eq!(store.get(b)?.unwrap().bytes, [2]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryStore {
    max_entries: usize,
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    records: HashMap<CacheKey, (u64, Record)>,
    /// The keys by the time of their last use.
    uses: BTreeMap<u64, CacheKey>,
    clock: u64,
    bytes: usize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { max_entries: 10_000, max_bytes: 256 << 20, kept: Mutex::default() }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the most records. Default 10,000.
    pub fn with_max_entries(self, max_entries: usize) -> Self {
        Self { max_entries, ..self }
    }

    /// Sets the most bytes of all records together. Default 256 MiB.
    pub fn with_max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, key: CacheKey) {
        if let Some((used, record)) = self.records.remove(&key) {
            self.uses.remove(&used);
            self.bytes -= record.bytes.len();
        }
    }
}

impl CacheStore for MemoryStore {
    fn get(&self, key: CacheKey) -> io::Result<Option<Record>> {
        let mut kept = self.kept();
        kept.clock += 1;
        let now = kept.clock;
        let Some((used, record)) = kept.records.get_mut(&key) else { return Ok(None) };
        let (before, record) = (std::mem::replace(used, now), record.clone());
        kept.uses.remove(&before);
        kept.uses.insert(now, key);
        Ok(Some(record))
    }

    fn put(&self, key: CacheKey, record: Record) -> io::Result<()> {
        let mut kept = self.kept();
        kept.remove(key);
        kept.clock += 1;
        let now = kept.clock;
        kept.bytes += record.bytes.len();
        kept.records.insert(key, (now, record));
        kept.uses.insert(now, key);
        while kept.records.len() > self.max_entries || kept.bytes > self.max_bytes {
            let Some((_, oldest)) = kept.uses.first_key_value() else { break };
            let oldest = *oldest;
            kept.remove(oldest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_bounds_hold() {
        let store = MemoryStore::new().with_max_entries(3).with_max_bytes(100);
        let key = |name: &str| CacheKey::of_text("m", name);
        let put = |name: &str, bytes: usize| store.put(key(name), Record::new(vec![0; bytes])).unwrap();
        let has = |name: &str| store.get(key(name)).unwrap().is_some();
        put("a", 10);
        put("b", 10);
        put("c", 10);
        assert!(has("a"));
        put("d", 10);
        assert!(has("a") && !has("b") && has("c") && has("d"), "the least used goes");
        put("a", 85);
        assert!(has("a") && has("d") && !has("c"), "bytes count");
        put("e", 101);
        assert!(!has("a") && !has("d") && !has("e"), "what is too large is not kept");
        let kept = store.kept();
        assert_eq!((kept.bytes, kept.uses.len()), (0, 0));
    }
}
