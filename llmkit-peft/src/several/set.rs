use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use llmkit_core::models::Model;
use llmkit_core::{Adapter, NoAdapter};

use super::{RowAdapters, StackedAdapters};
use crate::{Error, Method, Result, load_adapter};

/// Adapters of one model by name, of which some are active: PEFT's `load_adapter`, `set_adapter`, `disable_adapter` and `delete_adapter`.
///
/// Clones share one set, from whatever thread. What computes asks for the [`active`](Self::active) adapter once and keeps it for its pass, so
/// that switching never changes a pass under way: nothing in the model changes, since the base is immutable.
///
/// ```
/// # use std::sync::Arc;
/// # use llmkit_core::{checkpoint::Checkpoint, models::load_causal_lm, Device};
/// use llmkit_peft::{AdapterSet, Lora, LoraConfig, Targets};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../llmkit-core/tests/fixtures/llama/gqa-tied");
/// # let model = load_causal_lm(&Checkpoint::open(folder)?, &Device::Auto.resolve()?)?;
/// let set = AdapterSet::new(model.clone());
/// for (name, layer) in [("poet", "q_proj"), ("clerk", "v_proj")] {
///     set.add(name, Arc::new(Lora::new(model.as_ref(), LoraConfig::new(Targets::names([layer])), 0)?))?;
/// }
/// set.activate(&["poet"])?; // or both: `&["poet", "clerk"]`
/// # let ids = burn::tensor::Tensor::from_ints([[1, 2, 3], [4, 5, 6]], &model.device());
/// let logits = model.forward(ids, set.active().as_ref());
///
/// // Two rows of a batch, each with its own.
/// # let ids = burn::tensor::Tensor::from_ints([[1, 2, 3], [4, 5, 6]], &model.device());
/// let logits = model.forward(ids, &set.rows(&[Some("poet"), Some("clerk")])?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AdapterSet {
    model: Arc<dyn Model>,
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    by_name: BTreeMap<String, Arc<dyn Method>>,
    active: Vec<String>,
    disabled: bool,
}

impl AdapterSet {
    /// An empty set for `model`: the base as it is.
    pub fn new(model: Arc<dyn Model>) -> Self {
        Self { model, state: Arc::default() }
    }

    /// Adds an adapter, which is not active yet.
    ///
    /// # Errors
    /// [`Error::AdapterName`] if there is one of that name; [`replace`](Self::replace) swaps it.
    pub fn add(&self, name: impl Into<String>, adapter: Arc<dyn Method>) -> Result<()> {
        let name = name.into();
        let mut state = self.write();
        if state.by_name.contains_key(&name) {
            return Err(state.wrong_name(&name, "a name that no adapter of the set has"));
        }
        state.by_name.insert(name, adapter);
        Ok(())
    }

    /// Loads an adapter's folder, of whatever method, which is not active yet.
    ///
    /// # Errors
    /// As [`load_adapter`] and [`add`](Self::add).
    pub fn load(&self, name: impl Into<String>, folder: impl AsRef<Path>) -> Result<()> {
        self.add(name, load_adapter(self.model.as_ref(), folder)?.into())
    }

    /// Puts `adapter` in the place of the one called `name`, which it gives back. Passes under way keep the old one.
    ///
    /// # Errors
    /// [`Error::AdapterName`] if there is none of that name; [`Error::Together`] if it is active with others that the new one cannot act with:
    /// then the old one stays.
    pub fn replace(&self, name: &str, adapter: Arc<dyn Method>) -> Result<Arc<dyn Method>> {
        let mut state = self.write();
        let Some(before) = state.by_name.get(name).cloned() else { return Err(state.unknown(name)) };
        state.by_name.insert(name.to_owned(), adapter);
        if let Err(error) = self.stack(&state, &state.active) {
            state.by_name.insert(name.to_owned(), before);
            return Err(error);
        }
        Ok(before)
    }

    /// Takes an adapter away and gives it back. Where it was active, the others that were stay active.
    ///
    /// # Errors
    /// [`Error::AdapterName`] if there is none of that name.
    pub fn delete(&self, name: &str) -> Result<Arc<dyn Method>> {
        let mut state = self.write();
        let Some(before) = state.by_name.remove(name) else { return Err(state.unknown(name)) };
        state.active.retain(|active| active != name);
        Ok(before)
    }

    /// Makes the adapters of these names the active ones, in this order, and no others; none is the base as it is. It also ends
    /// [`disable`](Self::disable).
    ///
    /// # Errors
    /// [`Error::AdapterName`] for a name that is unknown or there twice, [`Error::Together`] for adapters that cannot act together; then what
    /// was active stays.
    pub fn activate(&self, names: &[&str]) -> Result<()> {
        let mut state = self.write();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.stack(&state, &names)?;
        state.active = names;
        state.disabled = false;
        Ok(())
    }

    /// Lets the base act alone until [`enable`](Self::enable).
    pub fn disable(&self) {
        self.write().disabled = true;
    }

    /// Ends [`disable`](Self::disable).
    pub fn enable(&self) {
        self.write().disabled = false;
    }

    /// What acts now: a model is called with this. It stays the same whatever becomes of the set.
    pub fn active(&self) -> Arc<dyn Adapter> {
        let state = self.read();
        if state.disabled || state.active.is_empty() {
            return Arc::new(NoAdapter);
        }
        Arc::new(self.stack(&state, &state.active).expect("active adapters were checked when they became so"))
    }

    /// A different adapter for each row of a batch, by name; none is the base as it is. Whether the adapters are active does not matter.
    ///
    /// # Errors
    /// [`Error::AdapterName`] for an unknown name, and as [`RowAdapters::new`].
    pub fn rows(&self, names: &[Option<&str>]) -> Result<RowAdapters> {
        let state = self.read();
        let rows: Vec<Option<(&str, Arc<dyn Method>)>> = names
            .iter()
            .map(|name| name.map(|name| Ok((name, state.get(name)?.clone()))).transpose())
            .collect::<Result<_>>()?;
        RowAdapters::new(self.model.as_ref(), rows)
    }

    /// The adapter called `name`.
    ///
    /// # Errors
    /// [`Error::AdapterName`] if there is none of that name.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Method>> {
        self.read().get(name).cloned()
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.read().by_name.keys().cloned().collect()
    }

    /// The names of the active adapters, in their order; none while they are disabled.
    pub fn active_names(&self) -> Vec<String> {
        let state = self.read();
        if state.disabled { Vec::new() } else { state.active.clone() }
    }

    fn stack(&self, state: &State, names: &[String]) -> Result<StackedAdapters> {
        if let Some(twice) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            return Err(state.wrong_name(twice.1, "each name once"));
        }
        let adapters = names.iter().map(|name| Ok((name.as_str(), state.get(name)?.clone())));
        StackedAdapters::new(self.model.as_ref(), adapters.collect::<Result<Vec<_>>>()?)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn get(&self, name: &str) -> Result<&Arc<dyn Method>> {
        self.by_name.get(name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        self.wrong_name(name, "the name of an adapter of the set")
    }

    fn wrong_name(&self, name: &str, expected: &'static str) -> Error {
        Error::AdapterName { name: name.to_owned(), expected, known: self.by_name.keys().cloned().collect() }
    }
}
