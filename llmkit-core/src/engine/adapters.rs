use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::memory::Memory;
use crate::Adapter;

/// Tells one loaded adapter from every other that the engine has or had, those of the same name included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdapterId(u64);

impl AdapterId {
    #[cfg(test)]
    pub(super) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// An adapter that a request has found under its name; it stays what it is when the name goes or changes.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) id: AdapterId,
    pub(super) adapter: Arc<dyn Adapter>,
}

/// The adapters that requests can name and the conversations that are remembered of them: shared by the callers and the engine's thread.
pub(super) struct Adapters {
    table: RwLock<Table>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Table {
    by_name: BTreeMap<String, Loaded>,
    /// How many there were so far.
    count: u64,
}

impl Table {
    fn insert(&mut self, name: String, adapter: Arc<dyn Adapter>) -> Option<Loaded> {
        self.count += 1;
        self.by_name.insert(name, Loaded { id: AdapterId(self.count), adapter })
    }
}

impl Adapters {
    pub(super) fn new(adapters: BTreeMap<String, Arc<dyn Adapter>>, memory: Memory) -> Self {
        let mut table = Table::default();
        for (name, adapter) in adapters {
            table.insert(name, adapter);
        }
        Self { table: RwLock::new(table), memory: Mutex::new(memory) }
    }

    /// Puts `adapter` under `name` and gives back what was there, whose conversations are forgotten.
    pub(super) fn insert(&self, name: String, adapter: Arc<dyn Adapter>) -> Option<Arc<dyn Adapter>> {
        let before = self.table.write().unwrap_or_else(PoisonError::into_inner).insert(name, adapter);
        before.map(|loaded| self.forget(loaded))
    }

    /// Takes the adapter called `name` away, and forgets its conversations.
    pub(super) fn remove(&self, name: &str) -> Option<Arc<dyn Adapter>> {
        let before = self.table.write().unwrap_or_else(PoisonError::into_inner).by_name.remove(name);
        before.map(|loaded| self.forget(loaded))
    }

    pub(super) fn get(&self, name: &str) -> Option<Loaded> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).by_name.keys().cloned().collect()
    }

    /// Whether a name still stands for the adapter `id`.
    pub(super) fn has(&self, id: AdapterId) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_name.values().any(|loaded| loaded.id == id)
    }

    /// What is remembered. A panic while it was held left at most one conversation out.
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has left the table already, so that no answer under way can have its conversation remembered after this.
    fn forget(&self, loaded: Loaded) -> Arc<dyn Adapter> {
        self.memory().forget(loaded.id);
        loaded.adapter
    }
}

impl fmt::Debug for Adapters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}
