use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// Reads a Hugging Face `config.json` field by field, so that each complaint names its field.
#[derive(Debug, Clone, Copy)]
pub struct ConfigReader<'a> {
    path: &'a Path,
    fields: &'a Value,
}

/// The largest size that a field may claim: enough for every model there is, and far from overflowing a product of two.
const LARGEST: u64 = 1 << 28;

impl<'a> ConfigReader<'a> {
    /// Reads `fields`, which came from `path`.
    pub fn new(path: &'a Path, fields: &'a Value) -> Self {
        Self { path, fields }
    }

    /// Reads other `fields` as if they stood in the same file.
    pub(super) fn over<'b>(&self, fields: &'b Value) -> ConfigReader<'b>
    where
        'a: 'b,
    {
        ConfigReader { path: self.path, fields }
    }

    /// A positive integer that must be there.
    ///
    /// # Errors
    /// [`Error::Config`] if it is missing, no integer, zero or absurdly large.
    pub fn size(&self, field: &str) -> Result<usize> {
        match self.optional(field) {
            Some(value) => match value.as_u64() {
                Some(size @ 1..=LARGEST) => Ok(size as usize),
                _ => Err(self.wrong(field, "a positive integer", value)),
            },
            None => Err(self.wrong(field, "a positive integer", &"nothing")),
        }
    }

    /// A positive integer, or `default` where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn size_or(&self, field: &str, default: usize) -> Result<usize> {
        if self.optional(field).is_some() { self.size(field) } else { Ok(default) }
    }

    /// A positive integer up to `most`, or `default`, if that is not more, where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there, or the default is more than `most`.
    pub fn at_most(&self, field: &str, default: usize, most: usize) -> Result<usize> {
        match self.size_or(field, default)? {
            size if size <= most => Ok(size),
            size => Err(self.wrong(field, &format!("a positive integer up to {most}"), &size)),
        }
    }

    /// The size of a window, or `None` where the field is null; `default` where it is missing.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn window_or(&self, field: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.fields.get(field) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.size(field).map(Some),
        }
    }

    /// A finite number, or `default` where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        match self.optional(field) {
            Some(value) => {
                value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.wrong(field, "a number", value))
            }
            None => Ok(default),
        }
    }

    /// A text, or `default` where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn text_or(&self, field: &str, default: &str) -> Result<String> {
        match self.optional(field) {
            Some(value) => {
                value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(field, "a text", value))
            }
            None => Ok(default.to_owned()),
        }
    }

    /// A truth value, or `default` where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        match self.optional(field) {
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(field, "true or false", value)),
            None => Ok(default),
        }
    }

    /// Insists that a field, if it is there at all, is one of `allowed`: any other value would change the result unnoticed.
    ///
    /// # Errors
    /// [`Error::Config`] if it is something else.
    pub fn only(&self, field: &str, allowed: &[&str]) -> Result<()> {
        match self.optional(field) {
            Some(value) if !value.as_str().is_some_and(|text| allowed.contains(&text)) => {
                Err(self.wrong(field, &format!("one of {allowed:?}"), value))
            }
            _ => Ok(()),
        }
    }

    /// Insists that a field is missing or null, because what it asks for isn't supported.
    ///
    /// # Errors
    /// [`Error::Config`] if it is set.
    pub fn unsupported(&self, field: &str) -> Result<()> {
        match self.optional(field) {
            Some(value) => Err(self.wrong(field, "null (what it asks for is not supported yet)", value)),
            None => Ok(()),
        }
    }

    /// A list of `len` texts, each one of `allowed`, or `None` where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn texts(&self, field: &str, len: usize, allowed: &[&str]) -> Result<Option<Vec<&'a str>>> {
        let Some(value) = self.optional(field) else { return Ok(None) };
        let texts = value.as_array().filter(|list| list.len() == len).and_then(|list| {
            list.iter().map(|text| text.as_str().filter(|text| allowed.contains(text))).collect()
        });
        match texts {
            Some(texts) => Ok(Some(texts)),
            None => Err(self.wrong(field, &format!("a list of {len}, each one of {allowed:?}"), value)),
        }
    }

    /// The object in a field, to be read field by field.
    pub(super) fn nested(&self, field: &str) -> Option<Self> {
        self.optional(field).map(|fields| Self { path: self.path, fields })
    }

    pub(super) fn positive(&self, field: &str) -> Result<f64> {
        let value = self.number_or(field, 0.0)?;
        if value > 0.0 { Ok(value) } else { Err(self.wrong(field, "a positive number", &value)) }
    }

    pub(super) fn optional(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// The names of the fields that are set.
    pub(super) fn set_fields(&self) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.as_object();
        fields.into_iter().flatten().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str())
    }

    /// An [`Error::Config`] about `field`.
    pub fn wrong(&self, field: &str, expected: &str, found: &dyn std::fmt::Display) -> Error {
        Error::Config {
            path: self.path.to_path_buf(),
            field: field.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}
