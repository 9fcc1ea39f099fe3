//! Python's ways of writing values, which Jinja templates rely on: `json.dumps`, `repr`, and methods of `str` and `list`.
//!
//! Shared by chat templates and by the prompts of `llmkit-prompt`; no part of the public interface.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// The deepest value that is written. Python's own recursion limit is of the same order.
const MAX_DEPTH: usize = 200;

/// Gives `environment` the filters, tests and methods that behave as in Python.
pub fn add_to(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(method);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", str);
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_test("number", is_number);
}

/// The filter `tojson` as transformers defines it: `json.dumps` with `ensure_ascii=False`, and nothing escaped for HTML.
pub fn tojson(state: &State, value: &Value, arguments: Kwargs) -> Result<Value, Error> {
    let ensure_ascii = arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort_keys = arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = match arguments.get::<Option<Value>>("indent")? {
        Some(indent) if !indent.is_none() => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(indent.as_usize().filter(|width| *width <= 64).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, "tojson: `indent` must be a text or from 0 to 64")
            })?),
        }),
        _ => None,
    };
    let separators = match arguments.get::<Option<Vec<String>>>("separators")? {
        Some(separators) => <[String; 2]>::try_from(separators)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson: `separators` must be two texts"))?,
        None if indent.is_some() => [",".to_owned(), ": ".to_owned()],
        None => [", ".to_owned(), ": ".to_owned()],
    };
    arguments.assert_all_used()?;
    let mut writer = Writer {
        state,
        out: String::new(),
        style: Style::Json { ensure_ascii, sort_keys, indent, separators },
    };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

/// `json.dumps(value, ensure_ascii=False)`.
pub fn dumps(state: &State, value: &Value) -> Result<String, Error> {
    let separators = [", ".to_owned(), ": ".to_owned()];
    let style = Style::Json { ensure_ascii: false, sort_keys: false, indent: None, separators };
    let mut writer = Writer { state, out: String::new(), style };
    writer.value(value, 0)?;
    Ok(writer.out)
}

/// Python's `str()` of a value, as `{{ value }}` shows it.
pub fn str(state: &State, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    if value.is_undefined() {
        return Ok(String::new());
    }
    let mut writer = Writer { state, out: String::new(), style: Style::Repr };
    writer.value(value, 0)?;
    Ok(writer.out)
}

enum Style {
    Json { ensure_ascii: bool, sort_keys: bool, indent: Option<String>, separators: [String; 2] },
    Repr,
}

struct Writer<'a> {
    state: &'a State<'a, 'a>,
    out: String,
    style: Style,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "a value is nested too deeply to be written",
            ));
        }
        // A list that holds the same list twice, and so on, is small in memory but not on paper: pay while writing.
        let start = self.out.len();
        self.state.consume_fuel(1)?;
        let json = matches!(self.style, Style::Json { .. });
        match value.kind() {
            ValueKind::None => self.out.push_str(if json { "null" } else { "None" }),
            ValueKind::Undefined if !json => self.out.push_str("Undefined"),
            ValueKind::Bool => self.out.push_str(match (json, value.is_true()) {
                (true, true) => "true",
                (true, false) => "false",
                (false, true) => "True",
                (false, false) => "False",
            }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => {
                let number = f64::try_from(value.clone())?;
                self.out.push_str(&float(number, json));
            }
            ValueKind::String => {
                self.string(value.as_str().unwrap_or_default());
                self.state.consume_fuel((self.out.len() - start) as u64 / 64)?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect::<Vec<_>>();
                let (open, close) = if value.is_tuple() && !json { ('(', ')') } else { ('[', ']') };
                let lone = value.is_tuple() && !json && items.len() == 1;
                self.items(open, close, items.len(), depth, |writer, index| {
                    writer.value(&items[index], depth + 1)
                })?;
                if lone {
                    self.out.insert(self.out.len() - 1, ',');
                }
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    let item = value.get_item(&key)?;
                    pairs.push((key, item));
                }
                if matches!(self.style, Style::Json { sort_keys: true, .. }) {
                    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.items('{', '}', pairs.len(), depth, |writer, index| {
                    let (key, item) = &pairs[index];
                    writer.key(key, depth)?;
                    match &writer.style {
                        Style::Json { separators: [_, colon], .. } => writer.out.push_str(colon),
                        Style::Repr => writer.out.push_str(": "),
                    }
                    writer.value(item, depth + 1)
                })?;
            }
            kind => {
                let message = format!(
                    "a value of kind {kind} cannot be written as {}",
                    if json { "JSON" } else { "text" }
                );
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn key(&mut self, key: &Value, depth: usize) -> Result<(), Error> {
        // JSON's keys are texts: Python writes the numbers, booleans and None among them as they would be without quotes.
        if matches!(self.style, Style::Json { .. }) && key.as_str().is_none() {
            self.out.push('"');
            self.value(key, depth + 1)?;
            self.out.push('"');
            return Ok(());
        }
        self.value(key, depth + 1)
    }

    fn items(
        &mut self,
        open: char,
        close: char,
        count: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for index in 0..count {
            if index > 0 {
                match &self.style {
                    Style::Json { separators: [comma, _], .. } => self.out.push_str(comma),
                    Style::Repr => self.out.push_str(", "),
                }
            }
            self.line_break(depth + 1);
            item(self, index)?;
        }
        if count > 0 {
            self.line_break(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line_break(&mut self, depth: usize) {
        if let Style::Json { indent: Some(indent), .. } = &self.style {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        let Style::Json { ensure_ascii, .. } = self.style else {
            return self.quoted(text);
        };
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (ensure_ascii && c >= '\u{7f}') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    /// Python's `repr` of a text: in single quotes, unless it holds some and no double ones.
    fn quoted(&mut self, text: &str) {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                c if c == quote => self.out.extend(['\\', c]),
                c if c.is_control() => self.out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => self.out.push(c),
            }
        }
        self.out.push(quote);
    }
}

/// Python's `repr` of a float: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
fn float(number: f64, json: bool) -> String {
    if number.is_nan() {
        return if json { "NaN" } else { "nan" }.to_owned();
    }
    if number.is_infinite() {
        let text = if json { "Infinity" } else { "inf" };
        return if number < 0.0 { format!("-{text}") } else { text.to_owned() };
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{number:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) => match exponent.strip_prefix('-') {
                Some(exponent) => format!("{digits}e-{exponent:0>2}"),
                None => format!("{digits}e+{exponent:0>2}"),
            },
            None => text,
        };
    }
    // The Debug form keeps the `.0` of whole numbers.
    format!("{number:?}")
}

/// The test `iterable`: what Python's `iter` takes, which `None` is not.
pub fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

/// The test `sequence`: what has a length and items, which texts and mappings have too.
pub fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
}

/// The test `number`: Python's booleans are numbers.
pub fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

/// Methods of Python's `str` and `list` beyond those that minijinja-contrib has.
pub fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match name {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(arguments)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(arguments)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "partition" | "rpartition" => {
                let (separator,): (&str,) = from_args(arguments)?;
                let found = if name == "partition" {
                    text.split_once(separator)
                } else {
                    text.rsplit_once(separator)
                };
                let parts = match found {
                    Some((before, after)) => [before, separator, after],
                    None if name == "partition" => [text, "", ""],
                    None => ["", "", text],
                };
                return Ok(parts.into_iter().map(Value::from).collect());
            }
            "rsplit" => {
                let (separator, most): (Option<&str>, Option<i64>) = from_args(arguments)?;
                let separator = separator.filter(|separator| !separator.is_empty()).ok_or_else(|| {
                    Error::new(ErrorKind::InvalidOperation, "rsplit needs a separator that is not empty")
                })?;
                let mut parts: Vec<&str> = match most.and_then(|most| usize::try_from(most).ok()) {
                    Some(most) => text.rsplitn(most.saturating_add(1), separator).collect(),
                    None => text.rsplit(separator).collect(),
                };
                parts.reverse();
                return Ok(parts.into_iter().map(Value::from).collect());
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (5e-324, "5e-324"),
        ];
        for (number, expected) in cases {
            assert_eq!(float(number, true), expected);
        }
    }
}
