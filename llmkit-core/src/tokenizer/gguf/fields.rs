use super::error;
use crate::Result;
use crate::checkpoint::gguf::{Metadata, MetadataValue};

/// What a token is, as `tokenizer.ggml.token_type` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenType {
    /// Numbers that the format does not define count as normal tokens, as elsewhere.
    pub(super) fn new(number: i64) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// Typed access to the metadata: a field may be missing, but not of another type.
pub(super) struct Fields<'a>(&'a Metadata);

impl<'a> Fields<'a> {
    pub(super) fn new(metadata: &'a Metadata) -> Self {
        Self(metadata)
    }

    fn get<T>(
        &self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        match convert(value) {
            Some(value) => Ok(Some(value)),
            None => Err(error(format!("`{name}` is not {expected}"))),
        }
    }

    fn list<T>(
        &self,
        name: &str,
        expected: &str,
        convert: impl Fn(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        self.get(name, expected, |value| match value {
            MetadataValue::Array(values) => values.iter().map(convert).collect(),
            _ => None,
        })
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name, "a string", string)
    }

    pub(super) fn bool(&self, name: &str) -> Result<Option<bool>> {
        self.get(name, "a boolean", |value| match value {
            MetadataValue::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub(super) fn strings(&self, name: &str) -> Result<Option<Vec<&'a str>>> {
        self.list(name, "an array of strings", string)
    }

    pub(super) fn integers(&self, name: &str) -> Result<Option<Vec<i64>>> {
        self.list(name, "an array of integers", integer)
    }

    /// An array of finite numbers.
    pub(super) fn floats(&self, name: &str) -> Result<Option<Vec<f64>>> {
        self.list(name, "an array of finite numbers", |value| match value {
            MetadataValue::F32(value) => Some(f64::from(*value)).filter(|value| value.is_finite()),
            MetadataValue::F64(value) => Some(*value).filter(|value| value.is_finite()),
            _ => None,
        })
    }

    /// The id of a token, which must be below `vocab_size`.
    pub(super) fn id(&self, name: &str, vocab_size: usize) -> Result<Option<u32>> {
        match self.get(name, "an integer", integer)? {
            None => Ok(None),
            Some(id) => match u32::try_from(id) {
                Ok(id) if (id as usize) < vocab_size => Ok(Some(id)),
                _ => Err(error(format!("`{name}` is {id}, but there are {vocab_size} tokens"))),
            },
        }
    }
}

fn string(value: &MetadataValue) -> Option<&str> {
    match value {
        MetadataValue::String(text) => Some(text),
        _ => None,
    }
}

fn integer(value: &MetadataValue) -> Option<i64> {
    match *value {
        MetadataValue::U8(value) => Some(value.into()),
        MetadataValue::I8(value) => Some(value.into()),
        MetadataValue::U16(value) => Some(value.into()),
        MetadataValue::I16(value) => Some(value.into()),
        MetadataValue::U32(value) => Some(value.into()),
        MetadataValue::I32(value) => Some(value.into()),
        MetadataValue::U64(value) => i64::try_from(value).ok(),
        MetadataValue::I64(value) => Some(value),
        _ => None,
    }
}

/// Refuses an array that is not as long as the vocabulary.
pub(super) fn same_length(name: &str, found: usize, tokens: usize) -> Result<()> {
    if found == tokens {
        return Ok(());
    }
    Err(error(format!("`{name}` has {found} entries for {tokens} tokens")))
}
