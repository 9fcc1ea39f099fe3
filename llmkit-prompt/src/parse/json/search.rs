//! Where in a text the JSON is.

use std::cmp::Reverse;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fit::fit;
use super::repair::{self, Failure, is_space};
use super::report::{Log, RepairKind};
use super::strict::value_end;
use super::text::family;
use crate::Result;
use crate::parse::code_blocks;

/// How many pieces are taken out of their wrapping.
pub(super) const UNWRAPPED: usize = 4;

/// How many places are tried within a broken piece.
const WITHIN: usize = 64;

/// Pieces of JSON, the likeliest first.
pub(super) struct Found {
    pub(super) pieces: Vec<Piece>,
    pub(super) too_deep: bool,
}

/// A piece of JSON.
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) log: Log,
    content: Content,
    source: Source,
}

enum Content {
    /// Valid as it stands.
    Valid,
    Mended(Value),
    /// The pieces that follow each other in this range.
    List(Vec<Value>),
}

/// Where a piece stands; the likelier first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Whole,
    JsonFence,
    OtherFence,
    Bare,
}

impl Piece {
    pub(super) fn fit<T: DeserializeOwned>(&self, text: &str) -> Result<T> {
        match &self.content {
            Content::Valid => fit(&mut serde_json::Deserializer::from_str(&text[self.range.clone()])),
            Content::Mended(value) => fit(value),
            Content::List(values) => fit(serde::de::value::SeqDeserializer::new(values.iter())),
        }
    }

    pub(super) fn value(&self, text: &str) -> Option<Value> {
        match &self.content {
            Content::Valid => serde_json::from_str(&text[self.range.clone()]).ok(),
            Content::Mended(value) => Some(value.clone()),
            Content::List(_) => None,
        }
    }

    pub(super) fn is_list_of_pieces(&self) -> bool {
        matches!(self.content, Content::List(_))
    }
}

pub(super) fn search(text: &str) -> Found {
    let bytes = text.as_bytes();
    let body = behind_thoughts(text);
    for start in [0, body] {
        let trimmed = trimmed(text, start);
        if value_end(&bytes[..trimmed.end], trimmed.start) == Some(trimmed.end) {
            let piece =
                Piece { range: trimmed, log: Log::default(), content: Content::Valid, source: Source::Whole };
            return Found { pieces: vec![piece], too_deep: false };
        }
    }
    let mut found = Found { pieces: Vec::new(), too_deep: false };
    found.search_from(text, body);
    if found.pieces.is_empty() && body > 0 {
        found.search_from(text, 0);
    }
    let mut pieces = found.pieces;
    pieces.sort_by_key(|piece| {
        let broken = !matches!(piece.content, Content::Valid);
        let list = bytes[piece.range.start] == b'[';
        (
            piece.source,
            broken && !piece.is_list_of_pieces(),
            list,
            Reverse(piece.range.end),
            Reverse(piece.is_list_of_pieces()),
        )
    });
    Found { pieces, ..found }
}

/// Valid objects within broken pieces, where the break was not what it looked like: `[see {"a": 1}`.
pub(super) fn within_broken(text: &str, pieces: &[Piece]) -> Vec<Piece> {
    let mut inner = Vec::new();
    let mut tries = 0;
    for piece in pieces
        .iter()
        .filter(|piece| matches!(piece.content, Content::Mended(_)) && piece.source != Source::Whole)
    {
        let mut at = piece.range.start + 1;
        while let Some(offset) = text
            .as_bytes()
            .get(at..piece.range.end)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'{'))
        {
            let start = at + offset;
            tries += 1;
            if tries > WITHIN {
                return inner;
            }
            at = start + 1;
            if let Some(end) = value_end(text.as_bytes(), start) {
                let mut log = Log::default();
                log.add(piece.range.start, RepairKind::StrayText);
                inner.push(Piece { range: start..end, log, content: Content::Valid, source: Source::Bare });
                at = end;
            }
        }
    }
    inner
}

/// Behind the thoughts of a model that shows them.
fn behind_thoughts(text: &str) -> usize {
    ["</think>", "</thinking>", "</reasoning>"]
        .iter()
        .filter_map(|tag| text.rfind(tag).map(|at| at + tag.len()))
        .max()
        .unwrap_or(0)
}

/// Without white space, and without a byte order mark.
fn trimmed(text: &str, start: usize) -> Range<usize> {
    let body = &text[start..];
    let end = start + body.trim_end_matches(is_space).len();
    let start = text.len() - body.trim_start_matches(is_space).len();
    start.min(end)..end
}

impl Found {
    fn search_from(&mut self, text: &str, body: usize) {
        let whole = trimmed(text, body);
        if text[whole.clone()].starts_with(|c| family(c).is_some())
            && let Some(mended) = repair::mend_entries(&text[..whole.end], whole.start)
        {
            let content = Content::Mended(mended.value);
            self.pieces.push(Piece { range: whole, log: mended.log, content, source: Source::Whole });
            return;
        }
        let mut fences = Vec::new();
        for block in code_blocks(&text[body..]) {
            let range = body + block.range.start..body + block.range.end;
            let source = match block.language().as_str() {
                language if language.starts_with("json") => Source::JsonFence,
                _ => Source::OtherFence,
            };
            let before = self.pieces.len();
            self.scan(text, range.clone(), source, &[]);
            if self.pieces.len() == before && source == Source::JsonFence {
                self.scalar(text, trimmed(&text[..range.end], range.start), source);
            }
            if self.pieces.len() > before {
                fences.push(range);
            }
        }
        self.scan(text, body..text.len(), Source::Bare, &fences);
        if self.pieces.is_empty() {
            self.scalar(text, whole, Source::Whole);
        }
    }

    /// Adds the pieces in the range, but for those in one of `fences`.
    fn scan(&mut self, text: &str, range: Range<usize>, source: Source, fences: &[Range<usize>]) {
        let bytes = &text.as_bytes()[..range.end];
        let first = self.pieces.len();
        let (mut at, mut fences) = (range.start, fences.iter().peekable());
        while let Some(offset) =
            bytes.get(at..).and_then(|rest| rest.iter().position(|byte| matches!(byte, b'{' | b'[')))
        {
            let start = at + offset;
            while fences.next_if(|fence| fence.end <= start).is_some() {}
            if let Some(fence) = fences.peek().filter(|fence| fence.contains(&start)) {
                at = fence.end;
                continue;
            }
            if source == Source::Bare && !is_plausible(&text[..range.end], start) {
                at = start + 1;
                continue;
            }
            let (end, log, content) = match value_end(bytes, start) {
                Some(end) => (end, Log::default(), Content::Valid),
                None => match repair::mend(&text[..range.end], start) {
                    Ok(mended) => (mended.end, mended.log, Content::Mended(mended.value)),
                    Err(failure) => {
                        self.too_deep |= matches!(failure, Failure::TooDeep(_));
                        at = match failure {
                            Failure::TooDeep(at) => at.max(start + 1),
                            Failure::Nothing => start + 1,
                        };
                        continue;
                    }
                },
            };
            at = end.max(start + 1);
            self.pieces.push(Piece { range: start..end, log, content, source });
        }
        self.group(text, first, source);
    }

    /// Adds a list of each run of pieces, from the piece `first` on, that have only white space and commas between them.
    fn group(&mut self, text: &str, first: usize, source: Source) {
        let pieces = &self.pieces[first..];
        let mut lists = Vec::new();
        let adjacent = |pair: [&Piece; 2]| {
            let between = text.get(pair[0].range.end..pair[1].range.start).unwrap_or("x");
            between.chars().all(|c| is_space(c) || matches!(c, ',' | ';'))
        };
        for run in pieces.chunk_by(|one, next| adjacent([one, next])).filter(|run| run.len() > 1) {
            let mut log = Log::default();
            for piece in run {
                log.extend(&piece.log);
            }
            log.add(run[1].range.start, RepairKind::Concatenated);
            let values = run.iter().filter_map(|piece| piece.value(text)).collect();
            let range = run[0].range.start..run[run.len() - 1].range.end;
            lists.push(Piece { range, log, content: Content::List(values), source });
        }
        self.pieces.extend(lists);
    }

    /// Adds the range if it is one number, literal or quoted text.
    fn scalar(&mut self, text: &str, range: Range<usize>, source: Source) {
        let quoted = text[range.clone()].starts_with(|c| family(c).is_some());
        if let Ok(mended) = repair::mend(&text[..range.end], range.start)
            && (quoted || !mended.value.is_string())
            && mended.end == range.end
        {
            self.pieces.push(Piece {
                range,
                log: mended.log,
                content: Content::Mended(mended.value),
                source,
            });
        }
    }
}

/// Whether the bracket in prose may begin JSON, by what follows.
fn is_plausible(text: &str, start: usize) -> bool {
    let rest = text[start + 1..].trim_start_matches(is_space);
    let Some(c) = rest.chars().next() else { return false };
    if family(c).is_some() || matches!(c, '\\' | '/' | '#' | '.' | '…') {
        return true;
    }
    if text.as_bytes()[start] == b'[' {
        let word = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let literal = ["true", "false", "null", "none", "nan"]
            .contains(&rest[..word.min(8)].to_ascii_lowercase().as_str());
        return literal || matches!(c, '0'..='9' | '-' | '+' | '{' | '[' | ']');
    }
    if matches!(c, '{' | '}') {
        return true;
    }
    let word = rest.trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'));
    word.len() < rest.len() && word.trim_start_matches(' ').starts_with([':', '：'])
}
