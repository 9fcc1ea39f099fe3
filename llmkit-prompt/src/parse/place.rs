//! Where something is in a text, and what is there, in words.

use crate::Error;

/// The longest excerpt in an error, in characters.
const EXCERPT: usize = 80;

/// The beginning of `text` on one line, quoted; `"nothing"` if it is blank.
pub(crate) fn excerpt(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return "nothing".to_owned();
    }
    let mut short: String =
        text.chars().take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}

/// An error about the whole text.
pub(super) fn unreadable(expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Parse { expected: expected.into(), found: found.into(), place: None }
}
