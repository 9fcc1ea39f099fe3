//! Cutting documents into chunks.
//!
//! Every splitter gives ranges of bytes on the borders of characters, in order, that together cover the whole text: a byte may be in two
//! chunks (the overlap) but never in none.

mod character;
mod sentence;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use character::CharacterSplitter;
pub use sentence::SentenceSplitter;

use crate::{Chunk, Document, Error, Result};

/// A way to cut a text into pieces.
pub trait Splitter: Send + Sync {
    /// The pieces as ranges of bytes: on the borders of characters, in order, together covering all of `text`. None for an empty text.
    ///
    /// # Errors
    /// [`Error::Splitter`] if a setting is out of range.
    fn ranges(&self, text: &str) -> Result<Vec<Range<usize>>>;

    /// The pieces of `document`.
    ///
    /// # Errors
    /// As [`ranges`](Self::ranges).
    fn split(&self, document: &Document) -> Result<Vec<Chunk>> {
        self.ranges(document.text())?.into_iter().map(|range| Chunk::new(document, range)).collect()
    }
}

/// The splitters of this crate, as a value for configuration files: `{"type": "sentence", "max_chars": 800, "overlap": 100}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TextSplitter {
    /// See [`CharacterSplitter`].
    Character(CharacterSplitter),
    /// See [`SentenceSplitter`].
    Sentence(SentenceSplitter),
}

impl Splitter for TextSplitter {
    fn ranges(&self, text: &str) -> Result<Vec<Range<usize>>> {
        match self {
            Self::Character(splitter) => splitter.ranges(text),
            Self::Sentence(splitter) => splitter.ranges(text),
        }
    }
}

/// Both splitters need pieces that are longer than what they share, or they would not get ahead.
fn validate(max_chars: usize, overlap: usize) -> Result<()> {
    if max_chars == 0 {
        return Err(Error::Splitter { setting: "max_chars", expected: "at least 1".to_owned(), found: 0 });
    }
    if overlap >= max_chars {
        let expected = format!("less than `max_chars`, {max_chars}");
        return Err(Error::Splitter { setting: "overlap", expected, found: overlap });
    }
    Ok(())
}

/// The byte position `count` characters after `from`, or the end of the text.
fn forward(text: &str, from: usize, count: usize) -> usize {
    text[from..].char_indices().nth(count).map_or(text.len(), |(offset, _)| from + offset)
}

/// The byte position `count` characters before `from`, or the start of the text.
fn back(text: &str, from: usize, count: usize) -> usize {
    match count {
        0 => from,
        _ => text[..from].char_indices().rev().nth(count - 1).map_or(0, |(offset, _)| offset),
    }
}
