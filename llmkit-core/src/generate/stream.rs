use std::ops::ControlFlow;

use super::answer::Answer;
use super::{Constraint, GenerationConfig, Logprobs, NextToken, TextDecoder};
use crate::{Error, FinishReason, Result, Usage};

/// The most tokens of a prompt that are fed at once: bounds the memory of a long prompt, and how long a cancellation waits.
pub const PREFILL_CHUNK: usize = 512;

/// What [`generate`] reports as it goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A part of the prompt was read.
    Prefill {
        /// Tokens of the prompt read so far.
        fed: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was chosen.
    Token {
        /// The token.
        id: u32,
        /// The text that is certain with this token, often empty: while a character is incomplete, or while a stop text may be
        /// under way. That of the last token includes everything that was held back.
        text: String,
        /// Its log-probability, where [`logprobs`](GenerationConfig::logprobs) asks for it.
        logprobs: Option<Logprobs>,
    },
}

impl Event {
    /// The text that came with this event; empty where none did.
    pub fn text(&self) -> &str {
        match self {
            Self::Prefill { .. } => "",
            Self::Token { text, .. } => text,
        }
    }
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generated {
    /// All tokens chosen: an end token and the tokens of a stop text are among them.
    pub ids: Vec<u32>,
    /// The text, without end token and stop text: the texts of all events.
    pub text: String,
    /// Why it ended. [`FinishReason::Length`] is the limit of the settings or of the model's context.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// For each of [`ids`](Self::ids) its log-probability; empty unless [`logprobs`](GenerationConfig::logprobs) asks for them.
    pub logprobs: Vec<Logprobs>,
}

impl Generated {
    /// Tokens read and written.
    pub fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.ids.len(), cached_tokens: 0 }
    }
}

/// Feeds `prompt` to `next`, after whatever it was fed before, and lets it continue until it ends its turn, a stop text appears, a
/// limit is reached, or `on_event` breaks.
///
/// The last token is chosen but not fed: to continue the conversation on the same `next`, feed it first. A break at the last token
/// changes nothing; one before gives [`FinishReason::Cancelled`] and the text so far, without what was held back.
///
/// # Errors
/// - [`Error::Generation`] when a setting is out of range or asks for beams or several sequences, or the prompt is empty or longer than the room left in the context;
/// - [`Error::Logits`] when the model's output is unusable;
/// - whatever `next` and `decoder` report.
pub fn generate(
    next: &mut dyn NextToken,
    decoder: &mut dyn TextDecoder,
    prompt: &[u32],
    config: &GenerationConfig,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Generated> {
    run(next, decoder, prompt, config, None, on_event)
}

/// [`generate`], with every token allowed by `constraint`. The answer ends where the constraint says that it is complete, or with an end token
/// where it lets one come; [`FinishReason::Length`] leaves it incomplete.
///
/// A setting that bars all tokens that the constraint allows (bad words, suppressed tokens, an end that `min_new_tokens` delays) makes an
/// error.
///
/// # Errors
/// As from [`generate`], and whatever the constraint reports.
pub fn generate_constrained(
    next: &mut dyn NextToken,
    decoder: &mut dyn TextDecoder,
    prompt: &[u32],
    config: &GenerationConfig,
    constraint: &mut dyn Constraint,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Generated> {
    run(next, decoder, prompt, config, Some(constraint), on_event)
}

/// [`generate_constrained`] where there is a constraint, else [`generate`].
pub(crate) fn run(
    next: &mut dyn NextToken,
    decoder: &mut dyn TextDecoder,
    prompt: &[u32],
    config: &GenerationConfig,
    mut constraint: Option<&mut dyn Constraint>,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Generated> {
    let mut answer = Answer::new(config, prompt, config.seed, decoder)?;
    refuse_several(config)?;
    check_prompt(prompt, next.position(), next.max_positions())?;
    let mut logits = Vec::new();

    let mut fed = 0;
    for chunk in prompt.chunks(PREFILL_CHUNK) {
        next.feed(chunk, &mut logits)?;
        fed += chunk.len();
        if on_event(Event::Prefill { fed, total: prompt.len() }).is_break() {
            return Ok(answer.into_generated());
        }
    }

    loop {
        let full = next.position() >= next.max_positions();
        let event = answer.choose(&mut logits, full, constraint.as_deref_mut())?;
        let flow = on_event(event);
        match answer.last() {
            Some(id) if !answer.is_over() && flow.is_continue() => next.feed(&[*id], &mut logits)?,
            _ => return Ok(answer.into_generated()),
        }
    }
}

/// Refuses settings that ask for more than one sequence.
fn refuse_several(config: &GenerationConfig) -> Result<()> {
    refuse_beams(config)?;
    match config.num_return_sequences {
        1 => Ok(()),
        several => Err(Error::Generation {
            setting: "num_return_sequences",
            expected: "1 (several answers are given by generate_batch)",
            found: several.to_string(),
        }),
    }
}

/// Refuses beam search where it is not what runs.
pub(super) fn refuse_beams(config: &GenerationConfig) -> Result<()> {
    match &config.beams {
        None => Ok(()),
        Some(beams) => Err(Error::Generation {
            setting: "num_beams",
            expected: "no beams (beam search is done by generate_beams)",
            found: beams.num_beams.to_string(),
        }),
    }
}

/// Refuses a prompt that is empty or has no room after `position` tokens.
pub(super) fn check_prompt(prompt: &[u32], position: usize, max_positions: usize) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::Generation {
            setting: "prompt",
            expected: "at least one token",
            found: "none (a model that starts from nothing starts from its bos token)".into(),
        });
    }
    let room = max_positions.saturating_sub(position);
    if prompt.len() > room {
        return Err(Error::Generation {
            setting: "prompt",
            expected: "no more tokens than the context has room for",
            found: format!(
                "{} tokens, with room for {room} of {max_positions} (shorten the prompt)",
                prompt.len()
            ),
        });
    }
    Ok(())
}
