use std::path::Path;

use super::{Metadata, MetadataValue};
use crate::{Error, Result};

/// Reads metadata by type; its errors name the file and the key.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
}

impl<'a> Fields<'a> {
    /// Reads `metadata`; `path` is for error messages.
    pub fn new(path: &'a Path, metadata: &'a Metadata) -> Self {
        Self { path, metadata }
    }

    /// A non-negative integer of at most 32 bits, if the key is there.
    ///
    /// # Errors
    /// [`Error::Config`] if the value is something else; so for all methods of this type.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.get(key, "an integer from 0 to 4294967295", MetadataValue::as_u32)
    }

    /// A floating-point number, if the key is there.
    ///
    /// # Errors
    /// [`Error::Config`] if the value is something else.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a floating-point number", MetadataValue::as_f64)
    }

    /// A truth value, if the key is there.
    ///
    /// # Errors
    /// [`Error::Config`] if the value is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "a truth value", MetadataValue::as_bool)
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// [`Error::Config`] if the value is something else.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a text", MetadataValue::as_str)
    }

    /// An array, if the key is there.
    ///
    /// # Errors
    /// [`Error::Config`] if the value is something else.
    pub fn array(&self, key: &str) -> Result<Option<&'a [MetadataValue]>> {
        self.get(key, "an array", MetadataValue::as_array)
    }

    /// As [`u32`](Self::u32).
    ///
    /// # Errors
    /// [`Error::Config`] if the value is missing or something else.
    pub fn require_u32(&self, key: &str) -> Result<u32> {
        self.u32(key)?.ok_or_else(|| self.missing(key, "an integer"))
    }

    /// As [`f64`](Self::f64).
    ///
    /// # Errors
    /// [`Error::Config`] if the value is missing or something else.
    pub fn require_f64(&self, key: &str) -> Result<f64> {
        self.f64(key)?.ok_or_else(|| self.missing(key, "a floating-point number"))
    }

    /// As [`str`](Self::str).
    ///
    /// # Errors
    /// [`Error::Config`] if the value is missing or something else.
    pub fn require_str(&self, key: &str) -> Result<&'a str> {
        self.str(key)?.ok_or_else(|| self.missing(key, "a text"))
    }

    /// As [`array`](Self::array).
    ///
    /// # Errors
    /// [`Error::Config`] if the value is missing or something else.
    pub fn require_array(&self, key: &str) -> Result<&'a [MetadataValue]> {
        self.array(key)?.ok_or_else(|| self.missing(key, "an array"))
    }

    /// An error about the key's value.
    pub(super) fn refuse(&self, key: &str, expected: impl Into<String>) -> Error {
        let found = self.metadata.get(key).map_or_else(|| "nothing".into(), MetadataValue::describe);
        Error::Config {
            path: self.path.to_path_buf(),
            field: key.to_owned(),
            expected: expected.into(),
            found,
        }
    }

    fn missing(&self, key: &str, expected: &str) -> Error {
        self.refuse(key, expected)
    }

    fn get<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.refuse(key, expected)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_key_expectation_and_value() {
        let metadata =
            Metadata::from([("llama.block_count".to_owned(), MetadataValue::String("many".into()))]);
        let fields = Fields::new(Path::new("m.gguf"), &metadata);
        assert_eq!(
            fields.require_u32("llama.block_count").unwrap_err().to_string(),
            "m.gguf: field `llama.block_count`: expected an integer from 0 to 4294967295, found the text \"many\""
        );
        assert_eq!(
            fields.require_f64("llama.rope.freq_base").unwrap_err().to_string(),
            "m.gguf: field `llama.rope.freq_base`: expected a floating-point number, found nothing"
        );
        assert_eq!(fields.u32("absent").unwrap(), None);
    }
}
