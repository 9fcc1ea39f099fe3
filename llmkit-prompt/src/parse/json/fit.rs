//! Whether a value is of the wanted type, and where not.

use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;

use super::report::RepairKind;
use super::{repair, strict};
use crate::{Error, Result};

/// Reads a `T`.
///
/// # Errors
/// [`Error::Parse`] with the path of the wrong field.
pub(super) fn fit<'de, T: DeserializeOwned>(
    json: impl Deserializer<'de, Error = serde_json::Error>,
) -> Result<T> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        let (expected, found) = in_words(&error.inner().to_string());
        Error::Parse { expected, found, place: (path != ".").then(|| format!("`{path}`")) }
    })
}

/// What serde expected and what it found, out of its message.
fn in_words(message: &str) -> (String, String) {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let message =
        message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: ")).unwrap_or(message);
    if let Some(field) = message.strip_prefix("missing field ") {
        return (format!("the field {field}"), "none".to_owned());
    }
    match message.rsplit_once(", expected ") {
        Some((found, expected)) => (expected.to_owned(), found.to_owned()),
        None => ("a value that fits".to_owned(), message.to_owned()),
    }
}

/// How often something is taken out of what is around it.
const WRAPPINGS: usize = 2;

/// A `T` out of an object or list that holds nothing else, or out of a text; and what was done for it.
pub(super) fn unwrapped<T: DeserializeOwned>(mut value: Value) -> Option<(T, Vec<RepairKind>)> {
    let mut done = Vec::new();
    for _ in 0..WRAPPINGS {
        let kind;
        (value, kind) = match value {
            Value::Array(mut values) if values.len() == 1 => (values.pop()?, RepairKind::Unwrapped),
            Value::Object(entries) if entries.len() == 1 => {
                (entries.into_iter().next()?.1, RepairKind::Unwrapped)
            }
            Value::String(text) => (inner(&text)?, RepairKind::InnerJson),
            _ => return None,
        };
        done.push(kind);
        if let Ok(value) = fit(&value) {
            return Some((value, done));
        }
    }
    None
}

/// The object or list that the text is.
fn inner(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    match strict::value_end(text.as_bytes(), 0) {
        Some(end) if end == text.len() => serde_json::from_str(text).ok(),
        _ => repair::mend(text, 0).ok().map(|mended| mended.value),
    }
}
