use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

/// The longest quote that is looked for with differences, in characters after normalising.
const MAX_FUZZY: usize = 1_024;
/// The letters and digits that a quote must have to prove anything.
const MIN_LETTERS: usize = 4;
/// The part of a quote's characters that may differ, unless set.
const TOLERANCE: f32 = 0.1;
const WORD: usize = u64::BITS as usize;

/// Finds quotes in a text: where they are, and how exact.
///
/// Runs of white space count as one space; letter case, kinds of quotation marks, dashes and full-width forms make no difference. A quote
/// that isn't there like that may still differ in a few characters, a tenth of them unless
/// [`with_tolerance`](Self::with_tolerance) says otherwise (Levenshtein's distance; at most 1,024 characters are compared so), but
/// never in a number or a negation.
///
/// ```
/// use llmkit_prompt::minutes::{QuoteFinder, Unfound};
///
/// let text = "Ben: I\u{2019}ll send the  report\nto 15 clients by Friday.";
/// let finder = QuoteFinder::new(text);
///
/// let found = finder.find("I'll send the report to 15 clients").unwrap();
/// assert_eq!((&text[found.range], found.distance), ("I\u{2019}ll send the  report\nto 15 clients", 0));
///
/// assert_eq!(finder.find("Ill send the report to 15 clients").unwrap().distance, 1);
/// assert_eq!(finder.find("I'll send the report to 50 clients"), Err(Unfound::NumberDiffers));
/// assert_eq!(finder.find("I will call all of our clients"), Err(Unfound::NotThere));
/// ```
#[derive(Debug, Clone)]
pub struct QuoteFinder {
    text: Normal,
    tolerance: f32,
}

/// Where a quote is.
///
/// ```
/// use llmkit_prompt::minutes::{QuoteFinder, QuoteMatch};
///
/// let found = QuoteFinder::new("So: ship it now.").find("Ship it").unwrap();
/// assert_eq!(found, QuoteMatch { range: 4..11, distance: 0 });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteMatch {
    /// In bytes of the text.
    pub range: Range<usize>,
    /// The characters that differ after normalising: Levenshtein's distance.
    pub distance: usize,
}

/// Why a quote was not found.
///
/// ```
/// use llmkit_prompt::minutes::{QuoteFinder, Unfound};
///
/// let finder = QuoteFinder::new("We will not ship on Monday, whatever happens until then.");
/// assert_eq!(finder.find("We"), Err(Unfound::TooShort));
/// assert_eq!(
///     finder.find("We will ship on Monday, whatever happens until then."),
///     Err(Unfound::NegationDiffers),
/// );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unfound {
    /// It has fewer than four letters and digits, which prove nothing.
    #[error("the quote has fewer than 4 letters")]
    TooShort,
    /// The text says nothing like it.
    #[error("the quote is not in the transcript")]
    NotThere,
    /// The text says nearly that, with other numbers.
    #[error("the transcript has another number there")]
    NumberDiffers,
    /// The text says nearly that, but denies what the quote says, or the reverse.
    #[error("the transcript has a negation there that the quote lacks, or the reverse")]
    NegationDiffers,
}

impl QuoteFinder {
    /// Looks for quotes in `text`, of which only the first 4 GiB are looked at.
    pub fn new(text: &str) -> Self {
        let mut normal = Normal::default();
        normal.push(text.char_indices().map(|(at, letter)| (letter, at..at + letter.len_utf8())));
        Self::over(normal)
    }

    /// Looks for quotes in what is normal already.
    pub(super) fn over(text: Normal) -> Self {
        Self { text, tolerance: TOLERANCE }
    }

    /// The part of a quote's characters that may differ; default 0.1, 0 for none. Values outside of `0.0..=0.5` are taken as the nearer
    /// end.
    pub fn with_tolerance(mut self, tolerance: f32) -> Self {
        self.tolerance = tolerance.clamp(0.0, 0.5);
        self
    }

    /// Whether the text says this, however short it is.
    pub(super) fn contains(&self, words: &str) -> bool {
        let mut wanted = Normal::default();
        wanted.push(words.char_indices().map(|(at, letter)| (letter, at..at + 1)));
        let wanted = wanted.text.trim_matches(|letter: char| matches!(letter, ' ' | '"' | '\'' | '.' | ','));
        let is_bound = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_ascii_alphanumeric());
        // "May" is not in "maybe".
        !wanted.is_empty()
            && self.text.text.match_indices(wanted).any(|(at, found)| {
                let (before, after) = (&self.text.text[..at], &self.text.text[at + found.len()..]);
                is_bound(before.chars().next_back()) && is_bound(after.chars().next())
            })
    }

    /// The first place where the text says `quote`, or comes nearest to it.
    ///
    /// # Errors
    /// [`Unfound`] says why there is none.
    pub fn find(&self, quote: &str) -> Result<QuoteMatch, Unfound> {
        let mut wanted = Normal::default();
        wanted.push(quote.char_indices().map(|(at, letter)| (letter, at..at + 1)));
        let wanted = wanted.text.trim_matches(|letter: char| matches!(letter, ' ' | '"' | '\'' | '.' | ','));
        if wanted.chars().filter(|letter| letter.is_alphanumeric()).count() < MIN_LETTERS {
            return Err(Unfound::TooShort);
        }
        let text = &self.text;
        let letters: Vec<char> = text.text.chars().collect();
        // Within a word a quote may say something else: "15" in "150", "can" in "can't".
        let said_otherwise = |range: Range<usize>| {
            let said: String = letters[whole_words(&letters, range)].iter().collect();
            if numbers(&said) != numbers(wanted) {
                return Some(Unfound::NumberDiffers);
            }
            (negations(&said) != negations(wanted)).then_some(Unfound::NegationDiffers)
        };
        let mut otherwise = None;
        for (at, found) in text.text.match_indices(wanted) {
            let range = text.letter_at(at)..text.letter_at(at + found.len());
            match said_otherwise(range.clone()) {
                None => return Ok(QuoteMatch { range: text.range(range), distance: 0 }),
                Some(difference) => otherwise = Some(difference),
            }
        }
        if let Some(difference) = otherwise {
            return Err(difference);
        }
        let wanted: Vec<char> = wanted.chars().collect();
        // The tolerance is at most a half, so the product fits.
        let allowed = (wanted.len() as f32 * self.tolerance) as usize;
        if wanted.len() > MAX_FUZZY || allowed == 0 {
            return Err(Unfound::NotThere);
        }
        let (letters_range, distance) = nearest(&wanted, &letters, allowed).ok_or(Unfound::NotThere)?;
        if let Some(difference) = said_otherwise(letters_range.clone()) {
            return Err(difference);
        }
        Ok(QuoteMatch { range: text.range(letters_range), distance })
    }
}

/// A text without the differences that do not matter, and where each letter of it stands in the source.
#[derive(Debug, Clone, Default)]
pub(super) struct Normal {
    text: String,
    /// For each letter, its place in `text` and its bytes in the source.
    letters: Vec<(u32, u32, u32)>,
}

impl Normal {
    /// Adds letters, each with its bytes in the source, which follow those that are there.
    pub(super) fn push(&mut self, letters: impl Iterator<Item = (char, Range<usize>)>) {
        for (letter, source) in letters {
            let (Ok(start), Ok(end)) = (u32::try_from(source.start), u32::try_from(source.end)) else {
                return;
            };
            match letter {
                letter if letter.is_whitespace() => self.space(start, end),
                '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{ad}' => {}
                '\u{2018}' | '\u{2019}' | '\u{201b}' | '`' | '\u{b4}' => self.letter('\'', start, end),
                '\u{201c}'..='\u{201f}' | '\u{ab}' | '\u{bb}' | '\u{300c}'..='\u{300f}' => {
                    self.letter('"', start, end)
                }
                '\u{2010}'..='\u{2015}' | '\u{2212}' => self.letter('-', start, end),
                '\u{2026}' => "...".chars().for_each(|dot| self.letter(dot, start, end)),
                '\u{3002}' => self.letter('.', start, end),
                '\u{3001}' => self.letter(',', start, end),
                '\u{ff01}'..='\u{ff5e}' => {
                    let narrow = char::from_u32(u32::from(letter) - 0xfee0).expect("an ASCII letter");
                    self.letter(narrow.to_ascii_lowercase(), start, end);
                }
                letter => letter.to_lowercase().for_each(|letter| self.letter(letter, start, end)),
            }
        }
    }

    /// Adds a space that stands nowhere, unless one is there.
    pub(super) fn gap(&mut self) {
        if let Some((_, _, end)) = self.letters.last().copied() {
            self.space(end, end);
        }
    }

    fn space(&mut self, start: u32, end: u32) {
        if !self.text.is_empty() && !self.text.ends_with(' ') {
            self.letter(' ', start, end);
        }
    }

    fn letter(&mut self, letter: char, start: u32, end: u32) {
        if let Ok(at) = u32::try_from(self.text.len()) {
            self.text.push(letter);
            self.letters.push((at, start, end));
        }
    }

    /// The index of the letter at this byte of `text`.
    fn letter_at(&self, byte: usize) -> usize {
        self.letters.partition_point(|(at, _, _)| (*at as usize) < byte)
    }

    /// Where these letters, one at least, stand in the source.
    fn range(&self, letters: Range<usize>) -> Range<usize> {
        self.letters[letters.start].1 as usize..self.letters[letters.end - 1].2 as usize
    }
}

/// The part of `text` that is nearest to `pattern`, the first of those that are equally near, if no more than `allowed` edits are needed.
///
/// Myers' bit-parallel algorithm (J. ACM 46, 1999) in blocks, as Hyyrö (2003) has it: each letter costs one step for every 64 letters
/// of the pattern.
fn nearest(pattern: &[char], text: &[char], allowed: usize) -> Option<(Range<usize>, usize)> {
    let mut columns = Columns::new(pattern.iter().copied(), false);
    let mut best: Option<(usize, usize)> = None;
    for (index, letter) in text.iter().enumerate() {
        let distance = columns.next(*letter);
        if distance <= best.map_or(allowed, |(best, _)| best.saturating_sub(1))
            && best.is_none_or(|(best, _)| distance < best)
        {
            best = Some((distance, index + 1));
        }
    }
    let (distance, end) = best?;
    // Where it begins: the same backwards from its end, where the pattern must begin at once.
    let mut columns = Columns::new(pattern.iter().rev().copied(), true);
    let window = &text[end.saturating_sub(pattern.len() + distance)..end];
    let length = window.iter().rev().position(|letter| columns.next(*letter) == distance)? + 1;
    Some((end - length..end, distance))
}

/// The last row of the table of edit distances, column after column.
struct Columns {
    /// For each letter of the pattern, the places where it stands.
    places: HashMap<char, Vec<u64>>,
    /// The vertical differences of a column: +1 and -1.
    plus: Vec<u64>,
    minus: Vec<u64>,
    /// The bit of the last row in the last block.
    last: usize,
    score: usize,
    /// Whether the first row counts the letters that were passed over.
    anchored: bool,
}

impl Columns {
    fn new(pattern: impl ExactSizeIterator<Item = char>, anchored: bool) -> Self {
        let length = pattern.len();
        let blocks = length.div_ceil(WORD);
        let mut places: HashMap<char, Vec<u64>> = HashMap::new();
        for (index, letter) in pattern.enumerate() {
            places.entry(letter).or_insert_with(|| vec![0; blocks])[index / WORD] |= 1 << (index % WORD);
        }
        Self {
            places,
            plus: vec![u64::MAX; blocks],
            minus: vec![0; blocks],
            last: (length - 1) % WORD,
            score: length,
            anchored,
        }
    }

    /// The distance of the pattern to the text that ends with `letter`.
    fn next(&mut self, letter: char) -> usize {
        let places = self.places.get(&letter);
        let blocks = self.plus.len();
        // The horizontal difference that comes in from the block above.
        let (mut plus_in, mut minus_in) = (u64::from(self.anchored), 0);
        for block in 0..blocks {
            let equal = places.map_or(0, |places| places[block]);
            let (plus, minus) = (self.plus[block], self.minus[block]);
            let vertical = equal | minus;
            let equal = equal | minus_in;
            let horizontal = ((equal & plus).wrapping_add(plus) ^ plus) | equal;
            let up = minus | !(horizontal | plus);
            let down = plus & horizontal;
            let out = if block + 1 == blocks { self.last } else { WORD - 1 };
            let (plus_out, minus_out) = (up >> out & 1, down >> out & 1);
            let (up, down) = (up << 1 | plus_in, down << 1 | minus_in);
            self.plus[block] = down | !(vertical | up);
            self.minus[block] = up & vertical;
            (plus_in, minus_in) = (plus_out, minus_out);
        }
        self.score = self.score + plus_in as usize - minus_in as usize;
        self.score
    }
}

/// The range, widened to the bounds of the words at its ends (by 32 letters at most).
fn whole_words(letters: &[char], range: Range<usize>) -> Range<usize> {
    let of_word =
        |letter: &char| letter.is_alphanumeric() && letter.is_ascii() || matches!(letter, '\'' | '.' | ',');
    let before = letters[..range.start].iter().rev().take(32).take_while(|letter| of_word(letter)).count();
    let after = letters[range.end..].iter().take(32).take_while(|letter| of_word(letter)).count();
    let (before, after) = (
        if letters.get(range.start).is_some_and(of_word) { before } else { 0 },
        if range.end > 0 && of_word(&letters[range.end - 1]) { after } else { 0 },
    );
    range.start - before..range.end + after
}

/// The numbers in a text, in digits or in Chinese words, in order.
fn numbers(text: &str) -> Vec<String> {
    let is_digit = |letter: char| letter.is_numeric() || "一二两三四五六七八九十百千万亿半".contains(letter);
    let mut numbers: Vec<String> =
        text.split(|letter| !is_digit(letter)).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    const WORDS: [&str; 31] = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
        "thirty",
        "forty",
        "fifty",
        "sixty",
        "seventy",
        "eighty",
        "ninety",
        "hundred",
        "thousand",
        "million",
        "billion",
    ];
    numbers.extend(text.unicode_words().filter(|word| WORDS.contains(word)).map(str::to_owned));
    numbers
}

/// How often a text denies something.
fn negations(text: &str) -> usize {
    const WORDS: [&str; 9] = ["not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without"];
    const FORMS: [&str; 12] = [
        "dont", "doesnt", "didnt", "wont", "cant", "cannot", "isnt", "arent", "wasnt", "shouldnt", "wouldnt",
        "couldnt",
    ];
    let denies = |word: &&str| WORDS.contains(word) || word.ends_with("n't") || FORMS.contains(word);
    text.unicode_words().filter(denies).count()
        + text.chars().filter(|letter| "不没未别非无".contains(*letter)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain table (Sellers 1980).
    fn slow(pattern: &[char], text: &[char]) -> Vec<usize> {
        let mut column: Vec<usize> = (0..=pattern.len()).collect();
        let mut last = Vec::new();
        for letter in text {
            let mut diagonal = column[0];
            for row in 1..column.len() {
                let change = diagonal + usize::from(pattern[row - 1] != *letter);
                diagonal = column[row];
                column[row] = change.min(column[row] + 1).min(column[row - 1] + 1);
            }
            last.push(column[pattern.len()]);
        }
        last
    }

    proptest! {
        #[test]
        fn the_bits_give_the_distances_of_the_table(pattern in "[abc]{1,200}", text in "[abc]{0,300}") {
            let pattern: Vec<char> = pattern.chars().collect();
            let text: Vec<char> = text.chars().collect();
            let expected = slow(&pattern, &text);
            let mut columns = Columns::new(pattern.iter().copied(), false);
            let found: Vec<usize> = text.iter().map(|letter| columns.next(*letter)).collect();
            prop_assert_eq!(&found, &expected);
            if let Some((range, distance)) = nearest(&pattern, &text, pattern.len()) {
                prop_assert_eq!(Some(&distance), expected.iter().min());
                let part: String = text[range].iter().collect();
                let whole: String = pattern.iter().collect();
                prop_assert_eq!(strsim::levenshtein(&whole, &part), distance);
            }
        }

        #[test]
        fn a_quote_that_is_there_is_found_where_it_is(text in "(\\PC|[a-z .,\n\u{2019}\u{ff01}\u{130}]){0,200}", from in 0_usize..200, length in 1_usize..100) {
            let letters: Vec<char> = text.chars().collect();
            let start = from.min(letters.len());
            let quote: String = letters[start..(start + length).min(letters.len())].iter().collect();
            match QuoteFinder::new(&text).find(&quote) {
                Ok(found) => {
                    prop_assert_eq!(found.distance, 0);
                    let said = &text[found.range];
                    prop_assert_eq!(QuoteFinder::new(said).find(&quote).map(|found| found.distance), Ok(0), "{}", said);
                }
                // A cut through a number or a negation says something else.
                Err(reason) => prop_assert!(matches!(
                    reason,
                    Unfound::TooShort | Unfound::NumberDiffers | Unfound::NegationDiffers
                )),
            }
        }

        #[test]
        fn anything_is_found_or_not(text in "\\PC{0,200}", quote in "\\PC{0,80}") {
            if let Ok(found) = QuoteFinder::new(&text).with_tolerance(0.5).find(&quote) {
                prop_assert!(text.get(found.range).is_some());
            }
        }
    }

    #[test]
    fn differences_that_do_not_matter_are_passed_over() {
        let text = "\u{5f20}\u{4f1f}\u{ff1a}\u{201c}\u{4e0b}\u{5468}\u{4e94}\u{ff0c}\u{6211}\u{4ea4}\u{62a5}\u{544a}\u{3002}\u{201d}  It\u{2019}s \u{2014} well \u{2014} DONE\u{2026} now";
        let finder = QuoteFinder::new(text);
        let said = |quote: &str| finder.find(quote).map(|found| (&text[found.range], found.distance));
        assert_eq!(
            said("\u{4e0b}\u{5468}\u{4e94},\u{6211}\u{4ea4}\u{62a5}\u{544a}."),
            Ok(("\u{4e0b}\u{5468}\u{4e94}\u{ff0c}\u{6211}\u{4ea4}\u{62a5}\u{544a}", 0))
        );
        assert_eq!(
            said("it's - well - done... Now"),
            Ok(("It\u{2019}s \u{2014} well \u{2014} DONE\u{2026} now", 0))
        );
        assert_eq!(said("\"it's - well\""), Ok(("It\u{2019}s \u{2014} well", 0)));
        assert_eq!(said("its - well - done... now").map(|(_, distance)| distance), Ok(1));
    }

    #[test]
    fn a_change_of_meaning_is_no_small_difference() {
        let finder = QuoteFinder::new(
            "We can't move the launch to the 14th of March because marketing has booked everything already.",
        );
        let find = |quote: &str| finder.find(quote).map(|found| found.distance);
        assert_eq!(
            find("we can't move the launch to the 14th of March, because marketing has booked everything"),
            Ok(1)
        );
        assert_eq!(
            find("we can move the launch to the 14th of March because marketing has booked everything"),
            Err(Unfound::NegationDiffers)
        );
        assert_eq!(
            find("we can't move the launch to the 24th of March because marketing has booked everything"),
            Err(Unfound::NumberDiffers)
        );
        // A quote that breaks off before the end of a negated word.
        assert_eq!(
            QuoteFinder::new("I think that we really can't.").find("Ii think that we really can"),
            Err(Unfound::NegationDiffers)
        );
    }

    #[test]
    fn long_texts_and_quotes_take_a_bounded_time() {
        let text = "ab ".repeat(200_000);
        let begin = std::time::Instant::now();
        let finder = QuoteFinder::new(&text);
        assert_eq!(finder.find(&"abc".repeat(1_000)), Err(Unfound::NotThere));
        assert_eq!(finder.find(&"xyz".repeat(300)), Err(Unfound::NotThere));
        assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_number_or_a_negation_that_is_cut_through_is_another_one() {
        let finder =
            QuoteFinder::new("We ordered 150 units, and we can't wait. Later we ordered 15 of the others.");
        assert_eq!(finder.find("and we can"), Err(Unfound::NegationDiffers));
        assert!(finder.find("we ordered 15").is_ok(), "the second place says so");
        assert_eq!(finder.find("We ordered 150").map(|found| found.distance), Ok(0));
        let hiring = QuoteFinder::new("we will hire eighteen people before the summer");
        assert_eq!(hiring.find("we will hire eighty people before the summer"), Err(Unfound::NumberDiffers));
    }
}
