use std::fmt;
use std::sync::Arc;

use chrono::NaiveDate;
use llmkit_core::{ChatRequest, LanguageModel, Message, TokenCounter};
use serde_json::json;

use super::check::Checker;
use super::draft::Draft;
use super::{Minutes, Transcript, UnreadPart, join};
use crate::chunks::cut;
use crate::long::{Limits, in_order};
use crate::typed::Typed;
use crate::{ChatPrompt, Error, Result, Run, Traced, WithDefaults, builtin};

/// Room in a prompt for what goes with the schema, and for telling the model what is wrong with its answer, in tokens.
const EXTRA_TOKENS: usize = 250;
/// How much of a part is shown where it is missing, in characters.
const BEGINNING: usize = 80;

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
    typed: Typed<Draft>,
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
            typed: Typed::new(),
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

    /// How often the model may answer for a part of the transcript, told what is wrong with its last answer; default 3.
    ///
    /// # Panics
    /// If `attempts` is 0.
    pub fn with_attempts(mut self, attempts: usize) -> Self {
        self.typed = self.typed.with_attempts(attempts);
        self
    }

    /// Takes the minutes. A part of a long transcript for which the model gives nothing that can be read goes to [`Minutes::unread`].
    ///
    /// # Errors
    /// [`Error::NoRoom`] if the context holds not even the prompt; [`Error::Answer`] if the model gives nothing that can be read for any part;
    /// [`Error::Model`] when it fails.
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
            let needed = self.limits.tokens(&self.messages("", 100, 100, &speakers)?)?
                + self.limits.counter.count(&self.typed.schema().to_string())?
                // An answer that is shown to the model again, and the next one.
                + 2 * self.limits.answer_tokens
                + EXTRA_TOKENS;
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
        let defaults = ChatRequest { max_tokens: Some(self.limits.answer_tokens), ..ChatRequest::default() };
        let model = WithDefaults::new(run.model(), defaults);
        let mut work = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let messages = self.messages(part, index + 1, parts.len(), &speakers)?;
            let part = Run::new(format!("part {} of {}", index + 1, parts.len()), &model);
            work.push(async move {
                let draft = match self.typed.run_in(&part, messages).await {
                    Ok(draft) => Ok(Ok(draft)),
                    Err(error @ Error::Answer { .. }) => Ok(Err(error)),
                    Err(error) => Err(error),
                };
                (part, draft)
            });
        }
        let drafts = in_order(run, self.limits.concurrency, work).await?;
        let mut minutes = Minutes {
            date: self.date,
            participants: speakers.iter().map(|name| (*name).to_owned()).collect(),
            ..Minutes::default()
        };
        let checker = Checker::new(transcript, self.tolerance, self.date, self.unverified);
        let mut failures = Vec::new();
        for (index, draft) in drafts.into_iter().enumerate() {
            let draft = match draft {
                Ok(draft) => draft,
                Err(error) => {
                    let beginning = parts[index].chars().take(BEGINNING).collect();
                    let (part, parts, reason) = (index + 1, parts.len(), error.to_string());
                    minutes.unread.push(UnreadPart { part, parts, beginning, reason });
                    failures.push(error);
                    continue;
                }
            };
            let left_out = checker.add(draft, &mut minutes);
            if left_out > 0 {
                run.note(format!(
                    "{left_out} entries of a draft were left out: it has more than 100 of a kind"
                ));
            }
        }
        if failures.len() == parts.len()
            && let Some(error) = failures.pop()
        {
            return Err(error);
        }
        join::join(&mut minutes).into_iter().for_each(|note| run.note(note));
        if !minutes.rejected.is_empty() {
            run.note(format!("{} entries have no quote that is in the transcript", minutes.rejected.len()));
        }
        Ok(minutes)
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
