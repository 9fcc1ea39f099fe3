//! Reading one line of the language of actions and plans.

use std::fmt;

/// What is wrong with a line, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// In characters, from 1.
    pub(super) column: usize,
    pub(super) expected: String,
    pub(super) found: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: expected {}, found {}", self.column, self.expected, self.found)
    }
}

/// Letters, digits and `_`, not beginning with a digit; of any script.
pub(super) fn is_identifier(text: &str) -> bool {
    text.chars().next().is_some_and(|first| !first.is_numeric()) && text.chars().all(is_word)
}

pub(super) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// A place in a line. Every step but [`rest`](Self::rest) skips white space first.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    line: &'a str,
    /// In bytes.
    at: usize,
    /// In characters, from 1.
    column: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self { line, at: 0, column: 1 }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    pub(super) fn column(&self) -> usize {
        self.column
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += letter.len_utf8();
        self.column += 1;
        Some(letter)
    }

    pub(super) fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.bump();
        }
    }

    pub(super) fn skip_space(&mut self) {
        self.skip_while(char::is_whitespace);
    }

    pub(super) fn take(&mut self, letter: char) -> bool {
        self.skip_space();
        let there = self.peek() == Some(letter);
        if there {
            self.bump();
        }
        there
    }

    /// `letter`, or a fault; `place` says after what, following "expected `letter`".
    pub(super) fn expect(&mut self, letter: char, place: &str) -> Result<(), Fault> {
        if self.take(letter) { Ok(()) } else { Err(self.fault(format!("`{letter}` {place}"))) }
    }

    /// A name, or a fault.
    pub(super) fn identifier(&mut self, what: &str) -> Result<String, Fault> {
        self.skip_space();
        let start = self.at;
        if self.peek().is_some_and(|first| first.is_numeric()) {
            return Err(self.fault(what));
        }
        let before = self.clone();
        self.skip_while(is_word);
        if self.at == start {
            return Err(before.fault(what));
        }
        Ok(self.line[start..self.at].to_owned())
    }

    pub(super) fn fault(&self, expected: impl Into<String>) -> Fault {
        let found = match self.peek() {
            None => "the end of the line".to_owned(),
            Some(letter) if is_word(letter) => {
                let word: String =
                    self.rest().chars().take_while(|letter| is_word(*letter)).take(40).collect();
                format!("`{word}`")
            }
            Some(letter) => format!("`{letter}`"),
        };
        Fault { column: self.column, expected: expected.into(), found }
    }
}
