use std::fmt;

use serde::Serialize;

/// What [`json_with_repairs`](super::json_with_repairs) gives: the value, and all that had to be mended to read it.
///
/// ```
/// use llmkit_prompt::parse::json_with_repairs;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let read = json_with_repairs::<serde_json::Value>("{'a': 1,}")?;
/// assert_eq!(read.value["a"], 1);
/// let repairs: Vec<String> = read.repairs.iter().map(ToString::to_string).collect();
/// assert_eq!(repairs, [
///     "line 1, column 2: quotes of another kind than `\"`",
///     "line 1, column 8: a comma too many left out",
/// ]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Repaired<T> {
    /// The value.
    pub value: T,
    /// What was mended, in the order of the text; the first 100. Empty for valid JSON.
    pub repairs: Vec<Repair>,
    /// How many repairs are not listed.
    pub unlisted: usize,
    /// How many other pieces of JSON the text holds, which were not taken.
    pub others: usize,
}

impl<T> Repaired<T> {
    /// Whether the JSON broke off and was closed by us, so that more may have been meant to come.
    pub fn is_cut_off(&self) -> bool {
        self.repairs
            .iter()
            .any(|repair| matches!(repair.kind, RepairKind::Closed | RepairKind::UnfinishedEntry))
    }
}

/// One thing that was mended, and where in the text. Shown as `line 1, column 8: a comma too many left out`.
///
/// ```
/// use llmkit_prompt::parse::{RepairKind, json_with_repairs};
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let read = json_with_repairs::<Vec<u32>>("[1, 2")?;
/// assert_eq!((read.repairs[0].kind, read.repairs[0].column), (RepairKind::Closed, 6));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Repair {
    /// What it was.
    pub kind: RepairKind,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.kind)
    }
}

/// The kinds of mending; their [`Display`](fmt::Display) says in words what was done.
///
/// ```
/// use llmkit_prompt::parse::RepairKind;
///
/// assert_eq!(RepairKind::MissingComma.to_string(), "a missing comma put in");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RepairKind {
    /// Single, typographic, escaped, tripled or back quotes around a text.
    Quotes,
    /// A key without quotes.
    UnquotedKey,
    /// A text without quotes.
    UnquotedText,
    /// A quote at the beginning or end of a text was missing.
    MissingQuote,
    /// An unescaped quote within a text.
    InnerQuote,
    /// An unescaped line break or other control character within a text.
    ControlCharacter,
    /// An escape that JSON does not have, or half a surrogate pair.
    Escape,
    /// A comma was missing.
    MissingComma,
    /// A comma was too many.
    ExtraComma,
    /// A colon was missing, or another sign stood for it.
    MissingColon,
    /// A sign of Chinese punctuation, or a semicolon, stood for a comma or colon.
    Punctuation,
    /// A comment.
    Comment,
    /// A literal of another language: `True`, `None`, `undefined`.
    Literal,
    /// `NaN` or an infinity, which JSON does not have: read as `null`.
    NotANumber,
    /// A number in another notation: `+1`, `.5`, `1,000`, `0x1f`, `007`.
    Number,
    /// A key without a value: read as `null`.
    MissingValue,
    /// Brackets that do not match, missing or too many within the text.
    Bracket,
    /// Braces doubled, as in a template.
    DoubledBraces,
    /// An ellipsis in place of elements.
    Ellipsis,
    /// Words between values that are none themselves, left out.
    StrayText,
    /// A key at the very end whose value did not come any more, left out.
    UnfinishedEntry,
    /// The text ended within a text, list or object: closed.
    Closed,
    /// The opening brace was missing.
    MissingOpening,
    /// Several values one after another: taken as a list.
    Concatenated,
    /// JSON within a JSON text: taken out.
    InnerJson,
    /// The value lay in an object or list around it, alone: taken out.
    Unwrapped,
}

impl fmt::Display for RepairKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quotes => "quotes of another kind than `\"`",
            Self::UnquotedKey => "a key without quotes",
            Self::UnquotedText => "a text without quotes",
            Self::MissingQuote => "a missing quote put in",
            Self::InnerQuote => "an unescaped quote within a text",
            Self::ControlCharacter => "an unescaped control character within a text",
            Self::Escape => "an escape that JSON does not have",
            Self::MissingComma => "a missing comma put in",
            Self::ExtraComma => "a comma too many left out",
            Self::MissingColon => "a missing colon put in",
            Self::Punctuation => "other punctuation in place of a comma or colon",
            Self::Comment => "a comment left out",
            Self::Literal => "a literal of another language",
            Self::NotANumber => "a number that JSON does not have, read as null",
            Self::Number => "a number in another notation",
            Self::MissingValue => "a missing value, read as null",
            Self::Bracket => "brackets that do not match",
            Self::DoubledBraces => "doubled braces",
            Self::Ellipsis => "an ellipsis left out",
            Self::StrayText => "words between values left out",
            Self::UnfinishedEntry => "an unfinished entry left out",
            Self::Closed => "closed where the text ends",
            Self::MissingOpening => "a missing opening brace put in",
            Self::Concatenated => "values one after another taken as a list",
            Self::InnerJson => "JSON within a text taken out",
            Self::Unwrapped => "taken out of what was around it",
        })
    }
}

/// The repairs of one piece of text, by offset.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    listed: Vec<(usize, RepairKind)>,
    unlisted: usize,
}

/// How many repairs are listed.
const LISTED: usize = 100;

impl Log {
    pub(super) fn add(&mut self, offset: usize, kind: RepairKind) {
        if self.listed.len() < LISTED {
            self.listed.push((offset, kind));
        } else {
            self.unlisted += 1;
        }
    }

    pub(super) fn mark(&self) -> (usize, usize) {
        (self.listed.len(), self.unlisted)
    }

    /// Forgets what was added since the mark.
    pub(super) fn back_to(&mut self, (listed, unlisted): (usize, usize)) {
        self.listed.truncate(listed);
        self.unlisted = unlisted;
    }

    pub(super) fn extend(&mut self, other: &Self) {
        other.listed.iter().for_each(|(offset, kind)| self.add(*offset, *kind));
        self.unlisted += other.unlisted;
    }

    /// With lines and columns of `text`.
    pub(super) fn placed(mut self, text: &str) -> (Vec<Repair>, usize) {
        self.listed.sort_by_key(|(offset, _)| *offset);
        let (mut at, mut line, mut column) = (0, 1, 1);
        let place = |(offset, kind): (usize, RepairKind)| {
            let offset = text.floor_char_boundary(offset);
            for c in text[at..offset].chars() {
                (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
            }
            at = offset;
            Repair { kind, line, column }
        };
        (self.listed.into_iter().map(place).collect(), self.unlisted)
    }
}
