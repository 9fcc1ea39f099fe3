use std::fmt;
use std::sync::Arc;

use chrono::NaiveDate;
use llmkit_core::{LanguageModel, Message, TokenCounter};
use serde_json::json;

use super::check::Checker;
use super::draft::Draft;
use super::{Minutes, Transcript, ask, join};
use crate::chunks::cut;
use crate::long::{Limits, in_order};
use crate::{ChatPrompt, Error, Result, Run, Traced, builtin};

/// Room in a prompt for the description of the answer's form, in tokens.
const SCHEMA_TOKENS: usize = 700;

/// What becomes of an entry whose quote is not in the transcript.
///
/// ```
/// use llmkit_prompt::minutes::{MinutesTaker, Unverified};
///
/// let taker = MinutesTaker::new().with_unverified(Unverified::Flag);
/// assert!(format!("{taker:?}").contains("Flag"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unverified {
    /// It goes to [`Minutes::rejected`].
    #[default]
    Reject,
    /// It stays where it is, with [`Evidence::Unverified`](super::Evidence::Unverified).
    Flag,
}

/// Takes the minutes of a meeting from its transcript; the [module](super) says how.
///
/// ```
/// use llmkit_prompt::minutes::MinutesTaker;
///
/// let taker = MinutesTaker::new()
///     .with_date("2026-11-24".parse().unwrap()) // "by Friday" becomes a date
///     .with_tolerance(0.0);                     // quotes must be exact
/// assert!(format!("{taker:?}").contains("2026-11-24"));
/// ```
#[derive(Clone)]
pub struct MinutesTaker {
    date: Option<NaiveDate>,
    limits: Limits,
    tolerance: f32,
    unverified: Unverified,
    prompt: ChatPrompt,
    schema: ChatPrompt,
    again: ChatPrompt,
}

impl Default for MinutesTaker {
    fn default() -> Self {
        Self::new()
    }
}

impl MinutesTaker {
    /// Takes minutes of a meeting on an unknown day.
    pub fn new() -> Self {
        Self {
            date: None,
            limits: Limits::new(2_048),
            tolerance: 0.1,
            unverified: Unverified::default(),
            prompt: builtin::prompt("minutes/extract"),
            schema: builtin::prompt("minutes/schema"),
            again: builtin::prompt("minutes/again"),
        }
    }

    /// The day of the meeting, from which relative dates count. Without it they stay words.
    pub fn with_date(mut self, date: NaiveDate) -> Self {
        self.date = Some(date);
        self
    }

    /// The tokens that prompt and answer may have together; default: what the model says of itself, and if it says nothing, every transcript is
    /// taken to fit.
    pub fn with_context_tokens(mut self, tokens: usize) -> Self {
        self.limits.context_tokens = Some(tokens);
        self
    }

    /// The longest answer, in tokens; default 2,048.
    pub fn with_answer_tokens(mut self, tokens: usize) -> Self {
        self.limits.answer_tokens = tokens;
        self
    }

    /// Counts tokens with this; default an estimate from characters, [`ApproximateTokens`](llmkit_core::ApproximateTokens).
    pub fn with_counter(mut self, counter: impl TokenCounter + 'static) -> Self {
        self.limits.counter = Arc::new(counter);
        self
    }

    /// How many parts of a long transcript are read at a time; default 4.
    pub fn with_concurrency(mut self, calls: usize) -> Self {
        self.limits.concurrency = calls;
        self
    }

    /// The part of a quote's characters that may differ from the transcript; default 0.1, see
    /// [`QuoteFinder`](super::QuoteFinder::with_tolerance).
    pub fn with_tolerance(mut self, tolerance: f32) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// What becomes of entries whose quotes are not in the transcript; default [`Unverified::Reject`].
    pub fn with_unverified(mut self, unverified: Unverified) -> Self {
        self.unverified = unverified;
        self
    }

    /// Takes another prompt in place of `prompts/minutes/extract.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] if it wants more than `transcript`, `part`, `parts`, `participants` and `date`.
    pub fn with_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompt = prompt.supplied_by(&["transcript", "part", "parts", "participants", "date"])?;
        Ok(self)
    }

    /// Takes the minutes.
    ///
    /// # Errors
    /// [`Error::NoRoom`] if the context holds not even the prompt; [`Error::NoMinutes`] if the model gives none in three
    /// attempts; [`Error::Model`] when it fails.
    pub async fn run(&self, model: &dyn LanguageModel, transcript: &Transcript) -> Result<Traced<Minutes>> {
        let run = Run::new("minutes", model);
        let minutes = self.run_in(&run, transcript).await?;
        Ok(run.finish(minutes))
    }

    /// As [`run`](Self::run), within another piece.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_in(&self, run: &Run<'_>, transcript: &Transcript) -> Result<Minutes> {
        if !transcript.skipped_lines().is_empty() {
            run.note(format!("captions passed over, at lines {:?}", transcript.skipped_lines()));
        }
        let speakers = transcript.speakers();
        let text = transcript.lines();
        let mut parts = vec![text.as_str()];
        if let Some(context) = self.limits.context(run.model()) {
            let needed = self.limits.tokens(&self.messages("", 100, 100, &speakers)?)?;
            let needed = needed + SCHEMA_TOKENS + self.limits.answer_tokens;
            let room = context.checked_sub(needed).filter(|room| *room > 0);
            let room = room.ok_or(Error::NoRoom { context, needed })?;
            parts =
                cut(&text, room, self.limits.counter.as_ref())?.into_iter().map(|chunk| chunk.text).collect();
            if parts.len() > 1 {
                run.note(format!(
                    "the transcript was cut into {} parts of at most {room} tokens",
                    parts.len()
                ));
            }
        }
        let mut work = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let messages = self.messages(part, index + 1, parts.len(), &speakers)?;
            work.push(self.draft(run, format!("part {} of {}", index + 1, parts.len()), messages));
        }
        let drafts = in_order(run, self.limits.concurrency, work).await?;
        let mut minutes = Minutes {
            date: self.date,
            participants: speakers.iter().map(|name| (*name).to_owned()).collect(),
            ..Minutes::default()
        };
        let checker = Checker::new(transcript, self.tolerance, self.date, self.unverified);
        for draft in drafts {
            let left_out = checker.add(draft, &mut minutes);
            if left_out > 0 {
                run.note(format!(
                    "{left_out} entries of a draft were left out: it has more than 100 of a kind"
                ));
            }
        }
        join::join(&mut minutes).into_iter().for_each(|note| run.note(note));
        if !minutes.rejected.is_empty() {
            run.note(format!("{} entries have no quote that is in the transcript", minutes.rejected.len()));
        }
        Ok(minutes)
    }

    async fn draft<'a>(
        &self,
        run: &Run<'a>,
        name: String,
        messages: Vec<Message>,
    ) -> (Run<'a>, Result<Draft>) {
        let part = run.part(name);
        let draft = ask::ask(&part, &self.limits, &self.again, &self.schema, messages).await;
        (part, draft)
    }

    fn messages(&self, text: &str, part: usize, parts: usize, speakers: &[&str]) -> Result<Vec<Message>> {
        self.prompt.render(json!({
            "transcript": text, "part": part, "parts": parts, "participants": speakers,
            "date": self.date.map(|date| date.format("%A, %Y-%m-%d").to_string()),
        }))
    }
}

impl fmt::Debug for MinutesTaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MinutesTaker")
            .field("date", &self.date)
            .field("context_tokens", &self.limits.context_tokens)
            .field("tolerance", &self.tolerance)
            .field("unverified", &self.unverified)
            .finish_non_exhaustive()
    }
}
