use serde_json::{Map, Value};

use crate::parse::MAX_DEPTH;
use crate::{Error, Result};

/// JSON that is still being written: its value so far.
///
/// Texts grow letter by letter; objects and lists fill; numbers and literals appear when they are complete, so what is shown is never wrong, only unfinished. What comes before the first
/// brace or bracket and after the end of the value is passed over. Each character is looked at once.
///
/// ```
/// use llmkit_prompt::typed::PartialJson;
/// use serde_json::json;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let mut partial = PartialJson::new();
/// partial.push(r#"{"name": "tur"#)?;
/// assert_eq!(partial.value(), Some(&json!({"name": "tur"})));
/// assert_eq!(partial.path(), "name");
/// partial.push(r#"een", "litres": 3."#)?;
/// assert_eq!(partial.value(), Some(&json!({"name": "tureen"})));
/// partial.push("5}")?;
/// assert!(partial.is_complete());
/// assert_eq!(partial.value(), Some(&json!({"name": "tureen", "litres": 3.5})));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct PartialJson {
    root: Option<Value>,
    /// The open objects and lists, outermost first.
    open: Vec<Open>,
    state: State,
    /// A key, number or literal on its way.
    token: String,
    /// The first half of a surrogate pair.
    high: Option<u16>,
    /// Characters so far, from 1.
    column: usize,
    failed: bool,
}

#[derive(Debug, Clone)]
enum Open {
    Object { key: String },
    List,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Before,
    /// Directly behind an opening bracket or brace.
    First,
    /// Behind a comma in an object.
    Key,
    Colon,
    /// Behind a colon, or behind a comma in a list.
    Value,
    /// Behind a value.
    Comma,
    /// Within a text: a key or a value.
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Unicode {
        key: bool,
        digits: u8,
        code: u16,
    },
    /// A number or literal.
    Word,
    Complete,
}

impl PartialJson {
    /// Nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value so far; none before its first bracket or brace.
    pub fn value(&self) -> Option<&Value> {
        self.root.as_ref()
    }

    /// Whether the value is at its end.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Where the value grows, such as `items[2].name`; empty at its outermost level.
    pub fn path(&self) -> String {
        let mut path = String::new();
        let mut value = self.root.as_ref();
        for open in &self.open {
            value = match open {
                Open::Object { key } => {
                    let inner = value.and_then(|value| value.get(key));
                    if inner.is_none() {
                        break;
                    }
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                    inner
                }
                Open::List => {
                    let items = value.and_then(Value::as_array);
                    let Some(last) = items.and_then(|items| items.len().checked_sub(1)) else { break };
                    path.push_str(&format!("[{last}]"));
                    items.and_then(|items| items.last())
                }
            };
        }
        path
    }

    /// Takes in more of the text.
    ///
    /// # Errors
    /// [`Error::Parse`] where the text is not JSON, with the character's number, or deeper than [`MAX_DEPTH`]; the value stays what it was, and further text changes nothing.
    pub fn push(&mut self, text: &str) -> Result<()> {
        for c in text.chars() {
            if self.failed {
                return Err(self.error("text that goes on from valid JSON", "more after a fault"));
            }
            self.column += 1;
            if let Err(error) = self.step(c) {
                self.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    fn step(&mut self, c: char) -> Result<()> {
        let space = matches!(c, ' ' | '\n' | '\r' | '\t');
        match self.state {
            State::Complete => {}
            State::Before if !matches!(c, '{' | '[') => {}
            State::Text { key } => return self.text(c, key),
            State::Escape { key } => return self.escape(c, key),
            State::Unicode { key, digits, code } => return self.unicode(c, key, digits, code),
            State::Word if matches!(c, '0'..='9' | 'a'..='z' | 'A'..='Z' | '+' | '-' | '.') => {
                self.token.push(c)
            }
            State::Word => {
                self.word()?;
                return self.step(c);
            }
            _ if space => {}
            State::Before | State::Value => return self.begin(c),
            State::First => match (self.open.last(), c) {
                (Some(Open::Object { .. }), '}') | (Some(Open::List), ']') => self.close(),
                (Some(Open::Object { .. }), '"') => self.begin_key(),
                (Some(Open::Object { .. }), _) => return Err(self.unexpected("a key or `}`", c)),
                _ => return self.begin(c),
            },
            State::Key if c == '"' => self.begin_key(),
            State::Key => return Err(self.unexpected("a key", c)),
            State::Colon if c == ':' => self.state = State::Value,
            State::Colon => return Err(self.unexpected("`:`", c)),
            State::Comma => match (self.open.last(), c) {
                (Some(Open::Object { .. }), '}') | (Some(Open::List), ']') => self.close(),
                (Some(Open::Object { .. }), ',') => self.state = State::Key,
                (Some(Open::List), ',') => self.state = State::Value,
                _ => return Err(self.unexpected("`,` or the end of the object or list", c)),
            },
        }
        Ok(())
    }

    fn begin(&mut self, c: char) -> Result<()> {
        match c {
            '{' | '[' => {
                if self.open.len() == MAX_DEPTH {
                    return Err(self.error(&format!("JSON at most {MAX_DEPTH} levels deep"), "deeper JSON"));
                }
                let (value, open) = match c {
                    '{' => (Value::Object(Map::new()), Open::Object { key: String::new() }),
                    _ => (Value::Array(Vec::new()), Open::List),
                };
                self.put(value);
                self.open.push(open);
                self.state = State::First;
            }
            '"' => {
                self.put(Value::String(String::new()));
                self.state = State::Text { key: false };
            }
            '-' | '0'..='9' | 't' | 'f' | 'n' => {
                self.token.clear();
                self.token.push(c);
                self.state = State::Word;
            }
            _ => return Err(self.unexpected("a value", c)),
        }
        Ok(())
    }

    fn begin_key(&mut self) {
        self.token.clear();
        self.state = State::Text { key: true };
    }

    fn text(&mut self, c: char, key: bool) -> Result<()> {
        if self.high.is_some() && c != '\\' {
            return Err(self.unexpected("the second half of a surrogate pair", c));
        }
        match c {
            '"' if key => {
                let name = std::mem::take(&mut self.token);
                self.open.pop();
                self.open.push(Open::Object { key: name });
                self.state = State::Colon;
            }
            '"' => self.state = State::Comma,
            '\\' => self.state = State::Escape { key },
            c if c < ' ' => return Err(self.unexpected("control characters in a text as escapes", c)),
            c => self.letter(c, key),
        }
        Ok(())
    }

    fn escape(&mut self, c: char, key: bool) -> Result<()> {
        if self.high.is_some() && c != 'u' {
            return Err(self.unexpected("the second half of a surrogate pair", c));
        }
        let letter = match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                self.state = State::Unicode { key, digits: 0, code: 0 };
                return Ok(());
            }
            _ => return Err(self.unexpected("an escape that JSON has", c)),
        };
        self.letter(letter, key);
        self.state = State::Text { key };
        Ok(())
    }

    fn unicode(&mut self, c: char, key: bool, digits: u8, code: u16) -> Result<()> {
        let Some(digit) = c.to_digit(16) else { return Err(self.unexpected("four hexadecimal digits", c)) };
        let code = code << 4 | u16::try_from(digit).expect("a hexadecimal digit is below 16");
        if digits < 3 {
            self.state = State::Unicode { key, digits: digits + 1, code };
            return Ok(());
        }
        self.state = State::Text { key };
        match (self.high.take(), code) {
            (None, 0xD800..=0xDBFF) => self.high = Some(code),
            (high, code) => {
                let units = high.into_iter().chain([code]);
                for letter in char::decode_utf16(units) {
                    let Ok(letter) = letter else {
                        return Err(self.error("surrogates in pairs", "half of one"));
                    };
                    self.letter(letter, key);
                }
            }
        }
        Ok(())
    }

    fn letter(&mut self, c: char, key: bool) {
        if key {
            self.token.push(c);
        } else if let Some(Value::String(text)) = self.growing() {
            text.push(c);
        }
    }

    fn word(&mut self) -> Result<()> {
        let value = serde_json::from_str::<Value>(&self.token)
            .map_err(|_| self.error("a number, `true`, `false` or `null`", &format!("`{}`", self.token)))?;
        self.put(value);
        self.state = State::Comma;
        Ok(())
    }

    fn close(&mut self) {
        self.open.pop();
        self.state = if self.open.is_empty() { State::Complete } else { State::Comma };
    }

    /// Puts a value where the next one belongs.
    fn put(&mut self, value: Value) {
        let Some(open) = self.open.last().cloned() else {
            self.root = Some(value);
            return;
        };
        match (self.container(), open) {
            (Some(Value::Object(entries)), Open::Object { key }) => drop(entries.insert(key, value)),
            (Some(Value::Array(items)), Open::List) => items.push(value),
            _ => {}
        }
    }

    /// The innermost open object or list.
    fn container(&mut self) -> Option<&mut Value> {
        let inner = self.open.len().checked_sub(1)?;
        descend(self.root.as_mut()?, &self.open[..inner])
    }

    /// The value that was put in last.
    fn growing(&mut self) -> Option<&mut Value> {
        descend(self.root.as_mut()?, &self.open)
    }

    fn unexpected(&self, expected: &str, found: char) -> Error {
        self.error(expected, &format!("`{}`", found.escape_debug()))
    }

    fn error(&self, expected: &str, found: &str) -> Error {
        Error::Parse {
            expected: expected.to_owned(),
            found: found.to_owned(),
            place: Some(format!("character {}", self.column)),
        }
    }
}

fn descend<'a>(value: &'a mut Value, path: &[Open]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, open| match (value, open) {
        (Value::Object(entries), Open::Object { key }) => entries.get_mut(key),
        (Value::Array(items), Open::List) => items.last_mut(),
        _ => None,
    })
}
