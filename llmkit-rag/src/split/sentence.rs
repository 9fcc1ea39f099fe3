use std::ops::Range;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::{Splitter, back, forward, validate};
use crate::Result;

/// Packs whole sentences into pieces of at most `max_chars` characters.
///
/// Sentences end where Unicode's [UAX #29](https://www.unicode.org/reports/tr29/#Sentence_Boundaries) has them end, in
/// Chinese and Japanese as in English; the space after one belongs to it. The rules know no abbreviations: `Dr. Who` is two sentences.
///
/// - A piece begins with the last whole sentences of its predecessor that have at most `overlap` characters together; fewer where
///   the next sentence would not fit otherwise.
/// - A sentence of more than `max_chars` is cut as [`CharacterSplitter`](crate::CharacterSplitter) would cut it, and the pieces share
///   exactly `overlap` characters of it, or all of it that there is and whole sentences before it. Nothing else is ever cut inside.
///
/// ```
/// use llmkit_rag::{SentenceSplitter, Splitter};
///
/// # fn main() -> Result<(), llmkit_rag::Error> {
/// let text = "One. Two. 三是三。四是四。";
/// let ranges = SentenceSplitter::new(10).with_overlap(5).ranges(text)?;
/// let pieces: Vec<&str> = ranges.into_iter().map(|range| &text[range]).collect();
/// assert_eq!(pieces, ["One. Two. ", "Two. 三是三。", "三是三。四是四。"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentenceSplitter {
    max_chars: usize,
    #[serde(default)]
    overlap: usize,
}

impl SentenceSplitter {
    /// Pieces of at most `max_chars` characters, at least 1, without overlap.
    pub fn new(max_chars: usize) -> Self {
        Self { max_chars, overlap: 0 }
    }

    /// How many characters a piece may share with its predecessor: fewer than `max_chars`. Default 0.
    #[must_use]
    pub fn with_overlap(mut self, overlap: usize) -> Self {
        self.overlap = overlap;
        self
    }

    /// The piece after one that ends at `end`, which began at `start`.
    fn next(&self, text: &str, sentences: &[usize], start: usize, end: usize) -> Range<usize> {
        let mut earliest = back(text, end, self.overlap);
        if sentences.binary_search(&end).is_err() {
            // The predecessor ends inside a long sentence; only that one may be entered in its middle.
            let sentence_start = last_until(sentences, end);
            let begin = if earliest > sentence_start { earliest } else { first_from(sentences, earliest) };
            return self.from(text, sentences, begin, end);
        }
        earliest = earliest.max(start + 1);
        let sentence_end = first_from(sentences, end + 1);
        if sentence_end <= forward(text, end, self.max_chars) {
            // The next sentence is worth more than the overlap: begin late enough for it to fit.
            earliest = earliest.max(back(text, sentence_end, self.max_chars));
        }
        self.from(text, sentences, first_from(sentences, earliest), end)
    }

    /// The piece that begins at `start` and reaches beyond `previous_end`: to the end of its last whole sentence, or full.
    fn from(&self, text: &str, sentences: &[usize], start: usize, previous_end: usize) -> Range<usize> {
        let limit = forward(text, start, self.max_chars);
        let last = sentences
            .partition_point(|sentence| *sentence <= limit)
            .checked_sub(1)
            .map(|last| sentences[last]);
        start..last.filter(|end| *end > previous_end).unwrap_or(limit)
    }
}

impl Splitter for SentenceSplitter {
    fn ranges(&self, text: &str) -> Result<Vec<Range<usize>>> {
        validate(self.max_chars, self.overlap)?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let sentences: Vec<usize> =
            text.split_sentence_bound_indices().map(|(start, sentence)| start + sentence.len()).collect();
        let mut piece = self.from(text, &sentences, 0, 0);
        let mut ranges = vec![piece.clone()];
        while piece.end < text.len() {
            piece = self.next(text, &sentences, piece.start, piece.end);
            ranges.push(piece.clone());
        }
        Ok(ranges)
    }
}

/// The first of the sorted `sentences`' ends at or after `position`; the last one is the end of the text.
fn first_from(sentences: &[usize], position: usize) -> usize {
    let index = sentences.partition_point(|end| *end < position);
    sentences[index.min(sentences.len() - 1)]
}

/// The last of the sorted `sentences`' ends at or before `position`, or the start of the text.
fn last_until(sentences: &[usize], position: usize) -> usize {
    match sentences.partition_point(|end| *end <= position) {
        0 => 0,
        after => sentences[after - 1],
    }
}
