use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

/// What memories keep with a conversation, by their names: a running summary, for instance. Saved with it.
///
/// ```
/// use llmkit_prompt::memory::Notes;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// let mut notes = Notes::default();
/// notes.set("mood", ["cheerful", "tired"])?;
/// assert_eq!(notes.get::<Vec<String>>("mood")?.unwrap(), ["cheerful", "tired"]);
/// assert_eq!(notes.get::<Vec<String>>("plans")?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notes {
    entries: BTreeMap<String, Value>,
}

impl Notes {
    /// What was kept under `name`.
    ///
    /// # Errors
    /// [`Error::Memory`] if it is of another type, as where a file was changed by hand.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.entries.get(name) else { return Ok(None) };
        T::deserialize(value)
            .map(Some)
            .map_err(|error| unusable(name, format!("something else: {error}; remove the entry")))
    }

    /// Keeps `value` under `name`, in place of what was there.
    ///
    /// # Errors
    /// [`Error::Memory`] if it cannot be written as JSON.
    pub fn set(&mut self, name: impl Into<String>, value: impl Serialize) -> Result<()> {
        let name = name.into();
        let value = serde_json::to_value(value).map_err(|error| unusable(&name, error.to_string()))?;
        self.entries.insert(name, value);
        Ok(())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

fn unusable(name: &str, found: String) -> Error {
    Error::Memory { memory: name.to_owned(), expected: "notes of its own type".to_owned(), found }
}
