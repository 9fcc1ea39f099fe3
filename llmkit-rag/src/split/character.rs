use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Splitter, back, forward, validate};
use crate::Result;

/// Cuts after a fixed number of characters, wherever that falls.
///
/// A character is a Unicode scalar value, Rust's `char`: one for a Chinese character, several for an emoji of several parts.
/// Each piece has `max_chars` of them, the last one the rest; it begins exactly `overlap` before its predecessor's end.
///
/// ```
/// use llmkit_rag::{CharacterSplitter, Splitter};
///
/// # fn main() -> Result<(), llmkit_rag::Error> {
/// let text = "abcdefgh";
/// let ranges = CharacterSplitter::new(4).with_overlap(1).ranges(text)?;
/// let pieces: Vec<&str> = ranges.into_iter().map(|range| &text[range]).collect();
/// assert_eq!(pieces, ["abcd", "defg", "gh"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CharacterSplitter {
    max_chars: usize,
    #[serde(default)]
    overlap: usize,
}

impl CharacterSplitter {
    /// Pieces of `max_chars` characters, at least 1, without overlap.
    pub fn new(max_chars: usize) -> Self {
        Self { max_chars, overlap: 0 }
    }

    /// How many characters a piece shares with its predecessor: fewer than `max_chars`. Default 0.
    #[must_use]
    pub fn with_overlap(mut self, overlap: usize) -> Self {
        self.overlap = overlap;
        self
    }
}

impl Splitter for CharacterSplitter {
    fn ranges(&self, text: &str) -> Result<Vec<Range<usize>>> {
        validate(self.max_chars, self.overlap)?;
        let mut ranges = Vec::new();
        let (mut start, mut end) = (0, 0);
        while end < text.len() {
            end = forward(text, start, self.max_chars);
            ranges.push(start..end);
            start = back(text, end, self.overlap);
        }
        Ok(ranges)
    }
}
