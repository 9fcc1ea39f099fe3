//! A tolerant reader of JSON: reads what models write, and logs every departure from the standard.
//!
//! It is one pass with a stack of its own. Where the text can be meant in two ways (does this quote end the text?), it looks ahead a bounded
//! number of bytes and decides once.

use serde_json::{Map, Value};

use super::MAX_DEPTH;
use super::report::{Log, RepairKind as Kind};
use super::text::Role;

/// A value, where it ends, and what was mended.
#[derive(Debug)]
pub(super) struct Mended {
    pub(super) value: Value,
    pub(super) end: usize,
    pub(super) log: Log,
}

/// Why nothing could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// More than [`MAX_DEPTH`] brackets are open; at this offset.
    TooDeep(usize),
    /// There is no value.
    Nothing,
}

/// Reads the value at `start`; offsets are those of `text`.
pub(super) fn mend(text: &str, start: usize) -> Result<Mended, Failure> {
    Reader::new(text, start).read(Want::Value)
}

/// Reads the entries at `start` of an object whose opening brace is missing; none if no key is there.
pub(super) fn mend_entries(text: &str, start: usize) -> Option<Mended> {
    let mut reader = Reader::new(text, start);
    if reader.key_at(start) != Some(true) {
        return None;
    }
    reader.log.add(start, Kind::MissingOpening);
    reader.open.push(Frame::object());
    reader.read(Want::Key).ok()
}

/// An open bracket and what has been read in it.
enum Frame {
    Array(Vec<Value>),
    Object { entries: Map<String, Value>, key: Option<String>, doubled: bool },
}

impl Frame {
    fn object() -> Self {
        Self::Object { entries: Map::new(), key: None, doubled: false }
    }

    fn is_object(&self) -> bool {
        matches!(self, Self::Object { .. })
    }
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Value,
    Key,
    Colon,
    /// A comma, or a closing bracket.
    Comma,
}

pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// Where the text ends; before `bytes.len()` when closing brackets at its end were found to be outside an unclosed text.
    pub(super) limit: usize,
    pub(super) log: Log,
    open: Vec<Frame>,
    root: Option<Value>,
    /// Whether keys have come without quotes, so that `word:` may begin an entry.
    pub(super) bare_keys: bool,
    /// Where the last comma was read, to know one too many.
    comma: Option<usize>,
    /// Whether a blank line was just skipped.
    blank_line: bool,
    /// Whether it's known that no `"""` comes any more.
    pub(super) no_triple: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, start: usize) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: start,
            limit: text.len(),
            log: Log::default(),
            open: Vec::new(),
            root: None,
            bare_keys: false,
            comma: None,
            blank_line: false,
            no_triple: false,
        }
    }

    fn read(mut self, mut want: Want) -> Result<Mended, Failure> {
        loop {
            self.skip_space();
            want = match want {
                Want::Value => self.value()?,
                Want::Key => self.key()?,
                Want::Colon => self.colon(),
                Want::Comma => self.comma(),
            };
            if self.open.is_empty() || self.at >= self.limit {
                break;
            }
        }
        self.finish(want);
        match self.root {
            Some(value) => Ok(Mended { value, end: self.at, log: self.log }),
            None => Err(Failure::Nothing),
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text[self.at..self.limit].chars().next()
    }

    pub(super) fn in_object(&self) -> Option<bool> {
        self.open.last().map(Frame::is_object)
    }

    /// The closing brackets that would end everything, innermost first.
    pub(super) fn closers(&self) -> impl Iterator<Item = u8> {
        self.open.iter().rev().map(|frame| if frame.is_object() { b'}' } else { b']' })
    }

    pub(super) fn has_open(&self, object: bool) -> bool {
        self.open.iter().any(|frame| frame.is_object() == object)
    }

    // --- what may come ---

    fn value(&mut self) -> Result<Want, Failure> {
        let Some(c) = self.peek() else { return Ok(Want::Value) };
        let in_object = self.in_object();
        match c {
            '{' => {
                self.push(Frame::object())?;
                Ok(Want::Key)
            }
            '[' | '(' => {
                if c == '(' {
                    self.log.add(self.at, Kind::Bracket);
                }
                self.push(Frame::Array(Vec::new()))?;
                Ok(Want::Value)
            }
            '}' | ']' | ')' => {
                if in_object == Some(true) {
                    self.log.add(self.at, Kind::MissingValue);
                    self.put(Value::Null);
                } else {
                    self.trailing_comma();
                }
                Ok(self.close(c))
            }
            ',' | '，' | '、' if in_object == Some(true) => {
                self.log.add(self.at, Kind::MissingValue);
                self.put(Value::Null);
                Ok(Want::Comma)
            }
            ',' | '，' | '、' => {
                self.log.add(self.at, Kind::ExtraComma);
                self.at += c.len_utf8();
                Ok(Want::Value)
            }
            ':' => {
                self.log.add(self.at, Kind::StrayText);
                self.at += 1;
                Ok(Want::Value)
            }
            _ if self.ellipsis() => Ok(if in_object == Some(true) { Want::Value } else { Want::Comma }),
            _ => {
                if let Some(quote) = self.quote_at(self.at) {
                    let text =
                        self.quoted(quote, if in_object == Some(true) { Role::Entry } else { Role::Element });
                    self.put(Value::String(text));
                } else if let Some(value) = self.unquoted() {
                    self.put(value);
                }
                Ok(Want::Comma)
            }
        }
    }

    fn key(&mut self) -> Result<Want, Failure> {
        let Some(c) = self.peek() else { return Ok(Want::Key) };
        match c {
            '}' | ']' | ')' => {
                self.trailing_comma();
                return Ok(self.close(c));
            }
            ',' | '，' | '、' | ':' | ';' => {
                self.log.add(self.at, if c == ':' { Kind::StrayText } else { Kind::ExtraComma });
                self.at += c.len_utf8();
                return Ok(Want::Key);
            }
            '{' => return self.brace_for_key(),
            '[' | '(' => {
                self.log.add(self.at, Kind::Bracket);
                self.at += 1;
                return Ok(Want::Key);
            }
            _ if self.ellipsis() => return Ok(Want::Comma),
            _ => {}
        }
        let name = match self.quote_at(self.at) {
            Some(quote) => Some(self.quoted(quote, Role::Key)),
            None => self.bare_key(),
        };
        match (name, self.open.last_mut()) {
            (Some(name), Some(Frame::Object { key, .. })) => {
                *key = Some(name);
                Ok(Want::Colon)
            }
            _ => Ok(Want::Comma),
        }
    }

    /// A brace where a key should be: doubled, or the object before it was not closed.
    fn brace_for_key(&mut self) -> Result<Want, Failure> {
        let parent_is_array = self.open.len() > 1 && !self.open[self.open.len() - 2].is_object();
        match self.open.last_mut() {
            Some(Frame::Object { doubled, .. }) if !*doubled && self.bytes[..self.at].ends_with(b"{") => {
                *doubled = true;
                self.log.add(self.at, Kind::DoubledBraces);
                self.at += 1;
                Ok(Want::Key)
            }
            _ => {
                self.log.add(self.at, Kind::Bracket);
                if parent_is_array {
                    self.pop();
                    Ok(Want::Value)
                } else {
                    self.at += 1;
                    Ok(Want::Key)
                }
            }
        }
    }

    fn colon(&mut self) -> Want {
        let Some(c) = self.peek() else { return Want::Colon };
        match c {
            ':' => self.at += 1,
            '=' => {
                self.log.add(self.at, Kind::MissingColon);
                self.at += if self.bytes[self.at..self.limit].starts_with(b"=>") { 2 } else { 1 };
            }
            '：' => {
                self.log.add(self.at, Kind::Punctuation);
                self.at += c.len_utf8();
            }
            ',' | '，' | '、' | '}' | ']' | ')' => {
                self.log.add(self.at, Kind::MissingValue);
                self.put(Value::Null);
                return Want::Comma;
            }
            _ => self.log.add(self.at, Kind::MissingColon),
        }
        Want::Value
    }

    fn comma(&mut self) -> Want {
        let next = if self.in_object() == Some(true) { Want::Key } else { Want::Value };
        let Some(c) = self.peek() else { return Want::Comma };
        match c {
            ',' => {
                self.comma = Some(self.at);
                self.at += 1;
                next
            }
            '，' | '、' | ';' | '；' => {
                self.log.add(self.at, Kind::Punctuation);
                self.comma = Some(self.at);
                self.at += c.len_utf8();
                next
            }
            '}' | ']' | ')' => self.close(c),
            ':' => {
                self.log.add(self.at, Kind::StrayText);
                self.at += 1;
                next
            }
            _ => self.missing_comma(next),
        }
    }

    /// Something that is no comma behind a value: the next one, or words.
    fn missing_comma(&mut self, next: Want) -> Want {
        let begins = |c: char| self.quote_at(self.at).is_some() || matches!(c, '{' | '[' | '0'..='9' | '-');
        let begins = self.peek().is_some_and(begins)
            || self.ellipsis_at(self.at)
            || (next == Want::Key && self.key_at(self.at).is_some())
            || (next == Want::Value && self.literal_at(self.at));
        if begins {
            self.log.add(self.at, Kind::MissingComma);
            return next;
        }
        if self.blank_line {
            self.limit = self.at; // Prose after JSON that broke off.
            return Want::Comma;
        }
        self.log.add(self.at, Kind::StrayText);
        while self.at < self.limit {
            match self.bytes[self.at] {
                b',' | b'}' | b']' | b'{' | b'[' | b'"' | b'\n' => break,
                _ => self.at += 1,
            }
        }
        Want::Comma
    }

    // --- brackets ---

    fn push(&mut self, frame: Frame) -> Result<(), Failure> {
        if self.open.len() == MAX_DEPTH {
            return Err(Failure::TooDeep(self.at));
        }
        self.open.push(frame);
        self.at += 1;
        self.comma = None;
        Ok(())
    }

    fn put(&mut self, value: Value) {
        self.comma = None;
        match self.open.last_mut() {
            Some(Frame::Array(values)) => values.push(value),
            Some(Frame::Object { entries, key, .. }) => {
                if let Some(key) = key.take() {
                    entries.insert(key, value);
                }
            }
            None => self.root = Some(value),
        }
    }

    fn pop(&mut self) {
        match self.open.pop() {
            Some(Frame::Array(values)) => self.put(Value::Array(values)),
            Some(Frame::Object { entries, .. }) => self.put(Value::Object(entries)),
            None => {}
        }
    }

    fn trailing_comma(&mut self) {
        if let Some(comma) = self.comma.take() {
            self.log.add(comma, Kind::ExtraComma);
        }
    }

    fn close(&mut self, closer: char) -> Want {
        let object = closer == '}';
        let here = self.at;
        self.at += 1;
        let after = self.next_visible(self.at);
        if closer == ')' {
            self.log.add(here, Kind::Bracket);
        }
        if self.in_object() == Some(object) {
            let doubled = matches!(self.open.last(), Some(Frame::Object { doubled: true, .. }));
            if doubled && self.bytes[self.at..self.limit].starts_with(b"}") {
                self.at += 1;
            } else if self.open.len() == 1 && object && after == Some(b',') && self.entry_after_comma() {
                self.log.add(here, Kind::Bracket); // One too many: the object goes on.
                return Want::Comma;
            }
            self.pop();
            return Want::Comma;
        }
        self.log.add(here, Kind::Bracket);
        match self.open.iter().rposition(|frame| frame.is_object() == object) {
            // Closing all would lose what follows: it stands for the bracket of the innermost.
            Some(0) if matches!(after, Some(b',' | b'}' | b']')) => self.pop(),
            Some(depth) => {
                while self.open.len() > depth {
                    self.pop();
                }
            }
            None if self.open.len() == 1 && after == Some(b',') => {}
            None => self.pop(),
        }
        Want::Comma
    }

    /// Whether behind the comma that comes next there is `"key":`.
    fn entry_after_comma(&self) -> bool {
        let comma = self.skipped(self.at);
        self.key_at(self.skipped(comma + 1)).is_some_and(|certain| certain)
    }

    /// Closes what the text leaves open.
    fn finish(&mut self, want: Want) {
        if self.open.is_empty() {
            return;
        }
        if matches!(want, Want::Colon | Want::Value) && self.in_object() == Some(true) {
            self.log.add(self.at, Kind::UnfinishedEntry);
        }
        self.trailing_comma();
        self.log.add(self.at, Kind::Closed);
        while !self.open.is_empty() {
            self.pop();
        }
    }

    // --- between values ---

    fn skip_space(&mut self) {
        let mut newlines = 0;
        while let Some(c) = self.peek() {
            let rest = &self.bytes[self.at..self.limit];
            if is_space(c) {
                newlines += usize::from(c == '\n');
                self.at += c.len_utf8();
            } else if rest.starts_with(b"//") || rest.starts_with(b"#") {
                self.log.add(self.at, Kind::Comment);
                self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            } else if rest.starts_with(b"/*") {
                self.log.add(self.at, Kind::Comment);
                let end = self.text[self.at + 2..self.limit].find("*/");
                self.at = end.map_or(self.limit, |end| self.at + end + 4);
            } else {
                break;
            }
        }
        self.blank_line = newlines > 1;
    }

    /// The offset of what is not white space.
    pub(super) fn skipped(&self, from: usize) -> usize {
        let rest = self.text.get(from..self.limit).unwrap_or_default();
        self.limit.max(from) - rest.trim_start_matches(is_space).len()
    }

    /// The first byte from `from` on that is not white space.
    pub(super) fn next_visible(&self, from: usize) -> Option<u8> {
        self.bytes[..self.limit].get(self.skipped(from)).copied()
    }

    fn ellipsis_at(&self, at: usize) -> bool {
        let rest = &self.text[at..self.limit];
        rest.starts_with("...") || rest.starts_with('…')
    }

    fn ellipsis(&mut self) -> bool {
        let found = self.ellipsis_at(self.at);
        if found {
            self.log.add(self.at, Kind::Ellipsis);
            self.at += 3; // Both are three bytes.
            self.comma = None;
        }
        found
    }
}

pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}')
}
