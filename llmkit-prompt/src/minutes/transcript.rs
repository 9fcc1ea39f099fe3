use std::ops::Range;
use std::time::Duration;

use super::captions;
use super::quotes::{Normal, QuoteFinder};
use super::speech;
use crate::{Error, Result};

/// The longest transcript, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// From so many bytes on, a line of captions that is shown to a model is not made longer.
const MAX_LINE: usize = 600;

/// What was said in a meeting, turn by turn, out of a text in one of the usual forms ([`TranscriptFormat`]).
///
/// ```
/// use std::time::Duration;
///
/// use llmkit_prompt::minutes::Transcript;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let transcript = Transcript::parse("[00:01:02] Ana Ruiz: Shall we\nbegin?\n[00:01:05] Ben: Yes.")?;
/// let turn = &transcript.turns()[0];
/// assert_eq!(turn.speaker.as_deref(), Some("Ana Ruiz"));
/// assert_eq!(turn.start, Some(Duration::from_secs(62)));
/// assert_eq!(&transcript.text()[turn.range.clone()], "Shall we\nbegin?");
/// assert_eq!(transcript.speakers(), ["Ana Ruiz", "Ben"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Transcript {
    text: String,
    format: TranscriptFormat,
    turns: Vec<Turn>,
    skipped: Vec<usize>,
}

/// The form of a transcript.
///
/// ```
/// use llmkit_prompt::minutes::{Transcript, TranscriptFormat};
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let captions = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ana>Shall we begin?";
/// assert_eq!(Transcript::parse(captions)?.format(), TranscriptFormat::WebVtt);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TranscriptFormat {
    /// Lines such as `Name: text`, `[00:01:02] Name: text`, `Name (00:01:02): text`. A line that names nobody goes on with what was said
    /// before.
    Plain,
    /// Captions as in WebVTT files, which begin with `WEBVTT`; speakers as `<v Name>` or `Name: text`.
    WebVtt,
    /// Captions as in SubRip files (`.srt`): number, `00:00:01,000 --> 00:00:02,000`, text.
    Srt,
}

/// What one person says at a time.
///
/// ```
/// use llmkit_prompt::minutes::Transcript;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let captions = "1\n00:00:01,000 --> 00:00:02,500\nAna: Tom &amp; I agree.";
/// let transcript = Transcript::parse(captions)?;
/// let turn = &transcript.turns()[0];
/// assert_eq!((turn.speaker.as_deref(), turn.spoken.as_str()), (Some("Ana"), "Tom & I agree."));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Who, where the transcript says it.
    pub speaker: Option<String>,
    /// When it begins, from the beginning of the recording, where the transcript says it.
    pub start: Option<Duration>,
    /// What is said, without markup.
    pub spoken: String,
    /// Where that stands in the transcript, in bytes, from its first letter to its last.
    pub range: Range<usize>,
    /// Its parts, where they stand in `spoken` and in the transcript: alike, or else one for the other.
    pub(super) pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) spoken: Range<usize>,
    pub(super) source: Range<usize>,
}

impl Transcript {
    /// Reads a transcript and finds out its format.
    ///
    /// # Errors
    /// [`Error::Transcript`] if nobody says anything in it, or it is longer than 16 MiB.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.len() > MAX_BYTES {
            return Err(Error::Transcript {
                reason: format!("{} bytes are more than {MAX_BYTES}", text.len()),
            });
        }
        let format = captions::format(&text);
        let (turns, skipped) = match format {
            TranscriptFormat::Plain => (speech::turns(&text), Vec::new()),
            TranscriptFormat::WebVtt | TranscriptFormat::Srt => captions::turns(&text, format),
        };
        if turns.is_empty() {
            let reason = match format {
                TranscriptFormat::Plain => "it is empty".to_owned(),
                TranscriptFormat::WebVtt => {
                    "the WebVTT file holds no caption `start --> end` with a text".to_owned()
                }
                TranscriptFormat::Srt => {
                    "the SubRip file holds no caption `start --> end` with a text".to_owned()
                }
            };
            return Err(Error::Transcript { reason });
        }
        Ok(Self { text, format, turns, skipped })
    }

    /// The transcript as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its format.
    pub fn format(&self) -> TranscriptFormat {
        self.format
    }

    /// What was said, in order. Captions are one turn each.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The lines, from 1, of captions that were passed over because their times make no sense.
    pub fn skipped_lines(&self) -> &[usize] {
        &self.skipped
    }

    /// Those who speak, in the order in which they first do.
    pub fn speakers(&self) -> Vec<&str> {
        let mut speakers: indexmap::IndexSet<&str> = indexmap::IndexSet::new();
        speakers.extend(self.turns.iter().filter_map(|turn| turn.speaker.as_deref()));
        speakers.into_iter().collect()
    }

    /// The turn that is being said at this byte of the text; the one before it where nobody speaks.
    pub fn turn_at(&self, byte: usize) -> Option<&Turn> {
        let after = self.turns.partition_point(|turn| turn.range.start <= byte);
        after.checked_sub(1).map(|index| &self.turns[index])
    }

    /// As a model is to read it: lines `Name: text`. Captions of one speaker follow each other in a line, up to some length.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        let mut speaker = None;
        let mut start = 0;
        for turn in &self.turns {
            let goes_on = self.format != TranscriptFormat::Plain
                && turn.speaker.as_deref() == speaker
                && text.len() - start < MAX_LINE;
            if !text.is_empty() {
                text.push(if goes_on { ' ' } else { '\n' });
            }
            if !goes_on {
                start = text.len();
            }
            if let (Some(name), false) = (&turn.speaker, goes_on) {
                text += name;
                text += ": ";
            }
            text += &turn.spoken.split_whitespace().collect::<Vec<_>>().join(" ");
            speaker = turn.speaker.as_deref();
        }
        text
    }

    /// Finds quotes in what is said; names, times and markup are no part of it.
    pub fn quotes(&self) -> QuoteFinder {
        let mut normal = Normal::default();
        for turn in &self.turns {
            normal.gap();
            for piece in &turn.pieces {
                let spoken = &turn.spoken[piece.spoken.clone()];
                let alike = piece.spoken.len() == piece.source.len();
                normal.push(spoken.char_indices().map(|(at, letter)| {
                    let start = piece.source.start + at;
                    (letter, if alike { start..start + letter.len_utf8() } else { piece.source.clone() })
                }));
            }
        }
        QuoteFinder::over(normal)
    }
}

/// A turn in the making.
#[derive(Default)]
pub(super) struct TurnBuilder {
    pub(super) speaker: Option<String>,
    pub(super) start: Option<Duration>,
    spoken: String,
    pieces: Vec<Piece>,
}

impl TurnBuilder {
    pub(super) fn new(speaker: Option<String>, start: Option<Duration>) -> Self {
        Self { speaker, start, ..Self::default() }
    }

    /// Adds what stands at `source` as it is.
    pub(super) fn push(&mut self, text: &str, source: Range<usize>) {
        self.replaced(&text[source.clone()], source);
    }

    /// Adds `spoken`, for which something else stands at `source`.
    pub(super) fn replaced(&mut self, spoken: &str, source: Range<usize>) {
        if spoken.is_empty() {
            return;
        }
        let start = self.spoken.len();
        self.spoken.push_str(spoken);
        match self.pieces.last_mut() {
            Some(last)
                if last.source.end == source.start
                    && last.source.len() == last.spoken.len()
                    && source.len() == spoken.len() =>
            {
                last.source.end = source.end;
                last.spoken.end = self.spoken.len();
            }
            _ => self.pieces.push(Piece { spoken: start..self.spoken.len(), source }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spoken.trim().is_empty()
    }

    /// What has been said so far.
    pub(super) fn spoken(&self) -> &str {
        &self.spoken
    }

    /// Takes away the first `bytes` bytes of what has been said.
    pub(super) fn cut_front(&mut self, bytes: usize) {
        self.spoken.drain(..bytes);
        self.pieces.retain_mut(|piece| {
            let alike = piece.spoken.len() == piece.source.len();
            let cut = bytes.saturating_sub(piece.spoken.start).min(piece.spoken.len());
            if alike {
                piece.source.start += cut;
            }
            piece.spoken = piece.spoken.start.saturating_sub(bytes)..piece.spoken.end.saturating_sub(bytes);
            !piece.spoken.is_empty()
        });
    }

    /// The turn, without white space around it; none if nothing is said.
    pub(super) fn build(mut self) -> Option<Turn> {
        let front = self.spoken.len() - self.spoken.trim_start().len();
        self.cut_front(front);
        let end = self.spoken.trim_end().len();
        self.spoken.truncate(end);
        self.pieces.retain_mut(|piece| {
            let over = piece.spoken.end.saturating_sub(end);
            if over > 0 && piece.spoken.len() == piece.source.len() {
                piece.source.end -= over.min(piece.source.len());
            }
            piece.spoken.end = piece.spoken.end.min(end);
            piece.spoken.start < piece.spoken.end
        });
        let range = self.pieces.first()?.source.start..self.pieces.last()?.source.end;
        Some(Turn {
            speaker: self.speaker,
            start: self.start,
            spoken: self.spoken,
            range,
            pieces: self.pieces,
        })
    }
}
