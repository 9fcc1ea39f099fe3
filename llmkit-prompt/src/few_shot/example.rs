use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// One worked example: values by the names of their fields.
///
/// ```
/// use llmkit_prompt::few_shot::Example;
///
/// let example = Example::new([("text", "a small bird of prey"), ("label", "animal")]);
/// assert_eq!(example.text("label").as_deref(), Some("animal"));
/// assert_eq!(example.text("colour"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Example {
    fields: Map<String, Value>,
}

impl Example {
    /// An example of these fields; of two with the same name, the later one.
    pub fn new<N: Into<String>, V: Into<Value>>(fields: impl IntoIterator<Item = (N, V)>) -> Self {
        Self { fields: fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    /// The names of the fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// The value of a field as text: a string as it is, everything else as JSON.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// What `value`, a struct or a map, says of itself.
    pub(super) fn from_value(value: &impl Serialize) -> Result<Self, String> {
        match serde_json::to_value(value) {
            Ok(Value::Object(fields)) => Ok(Self { fields }),
            Ok(other) => {
                Err(format!("expected a struct or a map with one entry a field, found {}", kind(&other)))
            }
            Err(error) => Err(format!("cannot be serialised: {error}")),
        }
    }
}

/// Refuses an object that names a field twice: which of the two was meant is anybody's guess.
impl<'de> Deserialize<'de> for Example {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Example;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one entry a field")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Example, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!("the field `{name}` is there twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Example { fields })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Worked examples that all have the same fields, so that a template that fits one fits all.
///
/// ```
/// use llmkit_prompt::few_shot::Examples;
///
/// #[derive(serde::Serialize)]
/// struct Row {
///     text: &'static str,
///     label: &'static str,
/// }
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let examples = Examples::new([
///     Row { text: "a small bird of prey", label: "animal" },
///     Row { text: "hot soup with noodles", label: "food" },
/// ])?;
/// assert_eq!(examples.fields(), ["text", "label"]);
///
/// // The same as lines of JSON; `Examples::from_jsonl` reads them from a file.
/// let lines = "{\"text\": \"a small bird of prey\", \"label\": \"animal\"}\n{\"text\": \"hot soup\"}";
/// let error = Examples::parse_jsonl("rows.jsonl", lines).unwrap_err();
/// assert_eq!(error.to_string(), "rows.jsonl:2: expected the fields `text`, `label`, as before it; found `text`");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Examples {
    examples: Vec<Example>,
}

impl Examples {
    /// The largest file that [`from_jsonl`](Self::from_jsonl) reads: 64 MiB.
    pub const MAX_BYTES: usize = 64 << 20;

    /// The most examples: a million.
    pub const MAX_EXAMPLES: usize = 1_000_000;

    /// Examples out of structs or maps, one each.
    ///
    /// # Errors
    /// [`Error::Example`] with the number of the first (from 1) that is neither, or whose fields differ from those before it; also when there
    /// is none at all, or more than [`MAX_EXAMPLES`](Self::MAX_EXAMPLES).
    pub fn new<T: Serialize>(examples: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut collected = Collected::new("examples");
        for (index, example) in examples.into_iter().enumerate() {
            let example =
                Example::from_value(&example).map_err(|reason| collected.error(index + 1, reason))?;
            collected.push(index + 1, example)?;
        }
        collected.finish()
    }

    /// Reads a file with one JSON object a line; empty lines are passed over.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Example`] with its line for what [`parse_jsonl`](Self::parse_jsonl) reports and for
    /// a file larger than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io { action: "read", path: path.to_path_buf(), source };
        let mut bytes = Vec::new();
        let limit = Self::MAX_BYTES as u64 + 1;
        File::open(path).map_err(io)?.take(limit).read_to_end(&mut bytes).map_err(io)?;
        let name = path.display().to_string();
        let collected = Collected::new(&name);
        if bytes.len() > Self::MAX_BYTES {
            let reason = format!("expected at most {} bytes: split the file", Self::MAX_BYTES);
            return Err(collected.error(1, reason));
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            collected.error(line, "is not UTF-8".to_owned())
        })?;
        Self::parse_jsonl(&name, text)
    }

    /// Examples out of lines of JSON, one object each; empty lines are passed over. Errors name the text `origin`.
    ///
    /// # Errors
    /// [`Error::Example`] with the line (from 1) that is no object, names a field twice, or has other fields than those before it; also when
    /// there is none at all, or more than [`MAX_EXAMPLES`](Self::MAX_EXAMPLES).
    pub fn parse_jsonl(origin: &str, text: &str) -> Result<Self> {
        let mut collected = Collected::new(origin);
        // Editors on Windows begin a file with a byte order mark.
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let example = serde_json::from_str(line)
                .map_err(|error| collected.error(index + 1, json_reason(&error)))?;
            collected.push(index + 1, example)?;
        }
        collected.finish()
    }

    /// The names of the fields, in the first example's order.
    pub fn fields(&self) -> Vec<&str> {
        self.examples.first().into_iter().flat_map(Example::names).collect()
    }

    /// The examples, in order.
    pub fn as_slice(&self) -> &[Example] {
        &self.examples
    }

    /// How many there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.examples.len()
    }
}

/// Examples while they are being checked.
struct Collected<'a> {
    origin: &'a str,
    examples: Vec<Example>,
}

impl<'a> Collected<'a> {
    fn new(origin: &'a str) -> Self {
        Self { origin, examples: Vec::new() }
    }

    fn error(&self, number: usize, reason: String) -> Error {
        Error::Example { origin: self.origin.to_owned(), number, reason }
    }

    fn push(&mut self, number: usize, example: Example) -> Result<()> {
        if self.examples.len() == Examples::MAX_EXAMPLES {
            return Err(self.error(number, format!("expected at most {} examples", Examples::MAX_EXAMPLES)));
        }
        if let Some(first) = self.examples.first() {
            let same = first.fields.len() == example.fields.len()
                && example.names().all(|name| first.get(name).is_some());
            if !same {
                let (expected, found) = (quoted(first), quoted(&example));
                let reason = format!("expected the fields {expected}, as before it; found {found}");
                return Err(self.error(number, reason));
            }
        } else if example.fields.is_empty() {
            return Err(self.error(number, "expected at least one field, found none".to_owned()));
        }
        self.examples.push(example);
        Ok(())
    }

    fn finish(self) -> Result<Examples> {
        if self.examples.is_empty() {
            return Err(self.error(1, "expected at least one example, found none".to_owned()));
        }
        Ok(Examples { examples: self.examples })
    }
}

fn quoted(example: &Example) -> String {
    let names: Vec<String> = example.names().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The parser's message with its column; its line is always the first, as it sees one line at a time.
fn json_reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    format!("column {}: {message}", error.column())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Examples::parse_jsonl("x.jsonl", text).unwrap_err().to_string()
    }

    #[test]
    fn each_fault_is_reported_with_its_line() {
        assert_eq!(error("{\"a\": 1}\n\n{\"a\": 1"), "x.jsonl:3: column 7: EOF while parsing an object");
        assert_eq!(error("{\"a\": 1, \"a\": 2}"), "x.jsonl:1: column 16: the field `a` is there twice");
        assert_eq!(
            error("{\"a\": 1}\n{\"b\": 1}"),
            "x.jsonl:2: expected the fields `a`, as before it; found `b`"
        );
        assert!(error("[1]").starts_with("x.jsonl:1: "), "{}", error("[1]"));
        assert_eq!(error(" \n\n"), "x.jsonl:1: expected at least one example, found none");
        assert_eq!(error("{}"), "x.jsonl:1: expected at least one field, found none");
        assert!(error(&"{\"a\":".repeat(100_000)).contains("recursion limit"));
    }

    #[test]
    fn fields_may_come_in_another_order_and_lines_may_end_as_on_windows() {
        let text = "\u{feff}{\"a\": 1, \"b\": [true]}\r\n{\"b\": [], \"a\": \"x\"}\r\n";
        let examples = Examples::parse_jsonl("x.jsonl", text).unwrap();
        assert_eq!(examples.fields(), ["a", "b"]);
        assert_eq!(examples.as_slice()[0].text("b").unwrap(), "[true]");
        assert_eq!(examples.as_slice()[1].text("a").unwrap(), "x");
    }

    #[test]
    fn what_is_no_struct_is_refused_with_its_number() {
        let error = Examples::new([Value::from(1)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "examples:1: expected a struct or a map with one entry a field, found a number"
        );
    }

    #[test]
    fn a_file_that_is_not_text_or_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, b"{\"a\": 1}\n{\"a\": \"\xff\"}").unwrap();
        let error = Examples::from_jsonl(&path).unwrap_err().to_string();
        assert!(error.ends_with("rows.jsonl:2: is not UTF-8"), "{error}");
        let error = Examples::from_jsonl(folder.path().join("none")).unwrap_err();
        assert!(matches!(error, Error::Io { action: "read", .. }), "{error:?}");
    }
}
