//! WebVTT and SubRip.

use std::time::Duration;

use super::speech::{clock, name_before};
use super::transcript::{TranscriptFormat, Turn, TurnBuilder};

/// The lines in which a SubRip file shows its first times.
const FIRST_LINES: usize = 40;

/// What the text looks like.
pub(super) fn format(text: &str) -> TranscriptFormat {
    let text = text.trim_start_matches('\u{feff}');
    if text
        .strip_prefix("WEBVTT")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    {
        return TranscriptFormat::WebVtt;
    }
    if text.lines().take(FIRST_LINES).any(|line| times(line).is_some()) {
        return TranscriptFormat::Srt;
    }
    TranscriptFormat::Plain
}

/// The captions, and the lines of those that make no sense.
pub(super) fn turns(text: &str, format: TranscriptFormat) -> (Vec<Turn>, Vec<usize>) {
    let mut turns = Vec::new();
    let mut skipped = Vec::new();
    let mut lines = Lines { text, at: 0, number: 0 };
    let mut first = format == TranscriptFormat::WebVtt;
    while let Some(block) = lines.block() {
        let header = std::mem::take(&mut first)
            || format == TranscriptFormat::WebVtt
                && ["NOTE", "STYLE", "REGION"].iter().any(|word| is_header(block[0].text, word));
        // Before the times stands an identifier, or a number.
        let timing = block.iter().take(2).position(|line| line.text.contains("-->"));
        let Some(timing) = timing.filter(|_| !header || block[0].text.contains("-->")) else {
            if !header {
                skipped.push(block[0].number);
            }
            continue;
        };
        let Some(start) = times(block[timing].text) else {
            skipped.push(block[timing].number);
            continue;
        };
        turns.extend(caption(text, &block[timing + 1..], start));
    }
    (turns, skipped)
}

fn is_header(line: &str, word: &str) -> bool {
    line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

struct Line<'a> {
    text: &'a str,
    /// Its first byte.
    at: usize,
    /// From 1.
    number: usize,
}

struct Lines<'a> {
    text: &'a str,
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<Line<'a>> {
        let rest = &self.text[self.at..];
        let line = rest.split_inclusive('\n').next()?;
        let at = self.at;
        self.at += line.len();
        self.number += 1;
        Some(Line { text: line.trim_end_matches(['\n', '\r']), at, number: self.number })
    }

    /// The next lines up to a blank one.
    fn block(&mut self) -> Option<Vec<Line<'a>>> {
        let mut block = Vec::new();
        while let Some(line) = self.next() {
            if !line.text.trim().is_empty() {
                block.push(line);
            } else if !block.is_empty() {
                break;
            }
        }
        (!block.is_empty()).then_some(block)
    }
}

/// When the caption begins, of a line `start --> end settings`.
fn times(line: &str) -> Option<Duration> {
    let (start, end) = line.split_once("-->")?;
    let end = end.split_whitespace().next()?;
    let (start, end) = (clock(start.trim())?, clock(end)?);
    (start <= end).then_some(start)
}

/// What a caption says; a voice tag in it begins a new turn.
fn caption(text: &str, lines: &[Line<'_>], start: Duration) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut open = TurnBuilder::new(None, Some(start));
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            // The end of the line before.
            open.replaced(" ", line.at - 1..line.at);
        }
        let mut at = line.at;
        let end = line.at + line.text.len();
        while at < end {
            let rest = &text[at..end];
            if let Some(length) = tag(rest) {
                if let Some(name) = voice(&rest[..length]) {
                    turns.extend(finish(std::mem::take(&mut open)));
                    open = TurnBuilder::new(Some(name), Some(start));
                }
                at += length;
            } else if let Some((letter, length)) = entity(rest) {
                open.replaced(letter, at..at + length);
                at += length;
            } else {
                let first = rest.chars().next().map_or(1, char::len_utf8);
                let length = rest[first..].find(['<', '&']).map_or(rest.len(), |next| first + next);
                open.push(text, at..at + length);
                at += length;
            }
        }
    }
    turns.extend(finish(open));
    turns
}

/// The turn; a name in front of its words is the speaker.
fn finish(mut turn: TurnBuilder) -> Option<Turn> {
    if turn.is_empty() {
        return None;
    }
    if turn.speaker.is_none() {
        let blank = turn.spoken().len() - turn.spoken().trim_start_matches(['-', '>', ' ']).len();
        if let Some((name, length)) = name_before(&turn.spoken()[blank..]) {
            turn.cut_front(blank + length);
            turn.speaker = Some(name);
        }
    }
    turn.build()
}

/// The length of the tag at the beginning of `text`.
fn tag(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('<')?;
    // `a < b` is no tag.
    inside.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '/').then_some(())?;
    inside.find(['>', '<']).filter(|end| inside[*end..].starts_with('>')).map(|end| end + 2)
}

/// The name in `<v Name>` or `<v.class Name>`.
fn voice(tag: &str) -> Option<String> {
    let inside = tag.strip_prefix("<v")?.strip_suffix('>')?;
    let (classes, name) = inside.split_once(char::is_whitespace)?;
    (classes.is_empty() || classes.starts_with('.')).then_some(())?;
    let mut name = name.trim().to_owned();
    for (entity, letter) in ENTITIES {
        name = name.replace(entity, letter);
    }
    Some(name).filter(|name| !name.is_empty())
}

const ENTITIES: [(&str, &str); 9] = [
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&nbsp;", "\u{a0}"),
    ("&lrm;", "\u{200e}"),
    ("&rlm;", "\u{200f}"),
    ("&quot;", "\""),
    ("&#39;", "'"),
    ("&apos;", "'"),
    ("&amp;", "&"),
];

fn entity(text: &str) -> Option<(&'static str, usize)> {
    ENTITIES
        .iter()
        .find(|(entity, _)| text.starts_with(entity))
        .map(|(entity, letter)| (*letter, entity.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Transcript;
    use super::*;

    #[test]
    fn captions_are_read_with_their_places() {
        let text = "WEBVTT - weekly\nKind: captions\n\nNOTE\n00:01.000 --> 00:02.000\nnot said\n\n\
                    intro\n00:01.000 --> 00:04.500 align:start\n<v.loud Ana Ruiz>Tom &amp; <i>I</i>\r\nagree.</v> <v Ben>So do I.\n\n\
                    00:05.000 --> 00:04.000\nbackwards\n\n01:00:05.250 --> 01:00:06.000\nZoe: 1 < 2\n";
        let (turns, skipped) = turns(text, TranscriptFormat::WebVtt);
        let read: Vec<_> = turns.iter().map(|turn| (turn.speaker.as_deref(), turn.spoken.as_str())).collect();
        assert_eq!(
            read,
            [(Some("Ana Ruiz"), "Tom & I agree."), (Some("Ben"), "So do I."), (Some("Zoe"), "1 < 2")]
        );
        assert_eq!(turns[2].start, Some(Duration::from_millis(3_605_250)));
        assert_eq!(skipped, [13]);
        assert_eq!(&text[turns[0].range.clone()], "Tom &amp; <i>I</i>\r\nagree.");
        let transcript = Transcript::parse(text).unwrap();
        let found = transcript.quotes().find("Tom & I agree. So do I.").unwrap();
        assert_eq!(&text[found.range], "Tom &amp; <i>I</i>\r\nagree.</v> <v Ben>So do I");
        assert_eq!(transcript.quotes().find("Ana Ruiz"), Err(super::super::Unfound::NotThere));
    }

    proptest! {
        #[test]
        fn anything_is_a_transcript_or_none(text in "(WEBVTT\n)?(\\PC|\n|\r\n|00:01.000 --> 00:02.000\n|<v Ana>|<|>|&amp;|Ben: |: |\\[00:01\\] ){0,80}") {
            if let Ok(transcript) = Transcript::parse(text.as_str()) {
                let mut before = 0;
                for turn in transcript.turns() {
                    prop_assert!(turn.range.start >= before && turn.range.start < turn.range.end);
                    before = turn.range.end;
                    prop_assert!(text.get(turn.range.clone()).is_some());
                    for piece in &turn.pieces {
                        prop_assert!(turn.spoken.get(piece.spoken.clone()).is_some() && text.get(piece.source.clone()).is_some());
                        // Of one length, they are the same but for the kind of white space.
                        let plain = |text: &str| text.replace(char::is_whitespace, " ");
                        prop_assert!(
                            piece.spoken.len() != piece.source.len()
                                || piece.source.len() == 1
                                || plain(&turn.spoken[piece.spoken.clone()]) == plain(&text[piece.source.clone()])
                        );
                    }
                }
                let _ = transcript.quotes().find(&transcript.lines());
            }
        }
    }
}
