//! Cutting a long text into pieces that a model can read at once.
//!
//! ```
//! use llmkit_core::ApproximateTokens;
//! use llmkit_prompt::chunks::cut;
//!
//! # fn main() -> Result<(), llmkit_prompt::Error> {
//! let text = "The ferry left at noon.\n\nIt came back empty. Nobody knew why.\n";
//! let chunks = cut(text, 8, &ApproximateTokens)?;
//!
//! assert_eq!(chunks[0].text, "The ferry left at noon.\n\n");
//! assert!(chunks.iter().all(|chunk| chunk.tokens <= 8 && chunk.text == &text[chunk.range.clone()]));
//! // Nothing is lost: the chunks are the text.
//! assert_eq!(chunks.iter().map(|chunk| chunk.text).collect::<String>(), text);
//! # Ok(())
//! # }
//! ```

use std::ops::Range;

use llmkit_core::TokenCounter;
use unicode_segmentation::UnicodeSegmentation;

use crate::{Error, Result};

/// A piece of a text.
///
/// ```
/// use llmkit_core::ApproximateTokens;
/// use llmkit_prompt::chunks::cut;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let chunks = cut("One paragraph.", 100, &ApproximateTokens)?;
/// assert_eq!((chunks[0].range.clone(), chunks[0].text), (0..14, "One paragraph."));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Where it is, in bytes.
    pub range: Range<usize>,
    /// What it says.
    pub text: &'a str,
    /// How many tokens that takes.
    pub tokens: usize,
}

/// Cuts `text` into chunks of at most `max_tokens` tokens: between paragraphs where that is possible, else between lines, sentences
/// or words, and inside a word only where the word alone is too long.
///
/// Each chunk takes as much as fits, and together they are the whole text. A text that fits is one chunk; an empty one is none.
///
/// # Errors
/// [`Error::ChunkTooSmall`] if one character takes more than `max_tokens`; what the counter reports.
pub fn cut<'a>(text: &'a str, max_tokens: usize, counter: &dyn TokenCounter) -> Result<Vec<Chunk<'a>>> {
    let units = units(text, max_tokens, counter)?;
    let mut chunks = Vec::new();
    let mut rest = units.as_slice();
    while let Some(first) = rest.first() {
        let mut sum = 0_usize;
        let mut take = rest
            .iter()
            .take_while(|unit| {
                sum = sum.saturating_add(unit.tokens);
                sum <= max_tokens
            })
            .count()
            .max(1);
        // Two pieces can take more tokens together than apart, though hardly ever.
        let chunk = loop {
            let range = first.range.start..rest[take - 1].range.end;
            let tokens = if take == 1 { first.tokens } else { counter.count(&text[range.clone()])? };
            if tokens <= max_tokens || take == 1 {
                break Chunk { text: &text[range.clone()], range, tokens };
            }
            take -= (take / 8).max(1);
        };
        chunks.push(chunk);
        rest = &rest[take..];
    }
    Ok(chunks)
}

/// A piece that fits and that is cut no further.
struct Unit {
    range: Range<usize>,
    tokens: usize,
}

/// Where a piece may be cut, from the best place to the worst.
#[derive(Clone, Copy)]
enum Bound {
    Paragraph,
    Line,
    Sentence,
    Word,
    /// The middle of a word, over and over.
    Middle,
}

fn units(text: &str, max_tokens: usize, counter: &dyn TokenCounter) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    let mut open = Vec::new();
    if !text.is_empty() {
        open.push((0..text.len(), Bound::Paragraph));
    }
    while let Some((range, bound)) = open.pop() {
        let piece = &text[range.clone()];
        let tokens = counter.count(piece)?;
        if tokens <= max_tokens {
            units.push(Unit { range, tokens });
            continue;
        }
        let (parts, next) = bound.split(piece);
        if parts.len() == 1 && matches!(bound, Bound::Middle) {
            return Err(Error::ChunkTooSmall { max_tokens, needed: tokens, text: piece.to_owned() });
        }
        let mut end = range.end;
        for part in parts.iter().rev() {
            let start = end - part.len();
            open.push((start..end, next));
            end = start;
        }
    }
    Ok(units)
}

impl Bound {
    /// The parts of `piece`, which are all of it, and where those are cut that are still too long.
    fn split(self, piece: &str) -> (Vec<&str>, Self) {
        match self {
            Self::Paragraph => (paragraphs(piece), Self::Line),
            Self::Line => (piece.split_inclusive('\n').collect(), Self::Sentence),
            Self::Sentence => (piece.split_sentence_bounds().collect(), Self::Word),
            Self::Word => (piece.split_word_bounds().collect(), Self::Middle),
            Self::Middle => {
                let middle = piece.ceil_char_boundary(piece.len().div_ceil(2));
                let middle =
                    if middle == piece.len() { piece.floor_char_boundary(piece.len() / 2) } else { middle };
                let (left, right) = piece.split_at(middle);
                ([left, right].into_iter().filter(|part| !part.is_empty()).collect(), Self::Middle)
            }
        }
    }
}

/// The paragraphs, each with the blank lines after it.
fn paragraphs(piece: &str) -> Vec<&str> {
    let mut paragraphs = Vec::new();
    let (mut start, mut at, mut after_blank) = (0, 0, false);
    for line in piece.split_inclusive('\n') {
        let blank = line.trim().is_empty();
        if after_blank && !blank {
            paragraphs.push(&piece[start..at]);
            start = at;
        }
        after_blank = blank;
        at += line.len();
    }
    paragraphs.push(&piece[start..]);
    paragraphs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token is a character.
    struct Characters;

    impl TokenCounter for Characters {
        fn count(&self, text: &str) -> llmkit_core::Result<usize> {
            Ok(text.chars().count())
        }
    }

    fn texts(text: &str, max_tokens: usize) -> Vec<&str> {
        cut(text, max_tokens, &Characters).unwrap().into_iter().map(|chunk| chunk.text).collect()
    }

    #[test]
    fn the_best_bound_that_fits_is_taken() {
        assert_eq!(texts("one two\n\nthree four\n\nfive", 21), ["one two\n\nthree four\n\n", "five"]);
        assert_eq!(texts("one\ntwo\nthree", 8), ["one\ntwo\n", "three"]);
        assert_eq!(texts("It is. It was. It will be.", 16), ["It is. It was. ", "It will be."]);
        assert_eq!(texts("one two three", 8), ["one two ", "three"]);
        assert_eq!(
            texts("\u{4eca}\u{5929}\u{3002}\u{660e}\u{5929}\u{3002}", 4),
            ["\u{4eca}\u{5929}\u{3002}", "\u{660e}\u{5929}\u{3002}"]
        );
        assert_eq!(texts("abcdefgh", 3), ["ab", "cd", "ef", "gh"]);
        assert_eq!(texts("", 3), [""; 0]);
    }

    #[test]
    fn a_budget_below_one_character_is_an_error() {
        let error = cut("ab", 0, &Characters).unwrap_err();
        assert!(matches!(error, Error::ChunkTooSmall { max_tokens: 0, needed: 1, .. }), "{error}");
    }

    /// Counts one token more for each call, as a tokenizer that puts a mark before each text.
    struct Marked;

    impl TokenCounter for Marked {
        fn count(&self, text: &str) -> llmkit_core::Result<usize> {
            Ok(text.len().div_ceil(3) + 1)
        }
    }

    proptest! {
        #[test]
        fn chunks_are_the_text_and_fit(text in "(\\PC|\n|\n\n|[.] ){0,300}", budget in 4_usize..40) {
            for counter in [&Characters as &dyn TokenCounter, &Marked] {
                let chunks = cut(&text, budget, counter).unwrap();
                prop_assert_eq!(chunks.iter().map(|chunk| chunk.text).collect::<String>(), text.as_str());
                for chunk in chunks {
                    prop_assert!(chunk.tokens <= budget);
                    prop_assert_eq!(chunk.tokens, counter.count(chunk.text).unwrap());
                    prop_assert_eq!(&text[chunk.range.clone()], chunk.text);
                }
            }
        }
    }
}
