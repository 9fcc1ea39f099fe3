use std::ops::ControlFlow;

use super::{GenerationConfig, NextToken, Sampler, StopScanner, TextDecoder};
use crate::{Error, FinishReason, Result, Usage};

/// The most tokens of a prompt that are fed at once: bounds the memory of a long prompt, and how long a cancellation waits.
pub const PREFILL_CHUNK: usize = 512;

/// What [`generate`] reports as it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Generated {
    /// Tokens read and written.
    pub fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.ids.len() }
    }
}

/// Feeds `prompt` to `next`, after whatever it was fed before, and lets it continue until it ends its turn, a stop text appears, a
/// limit is reached, or `on_event` breaks.
///
/// The last token is chosen but not fed: to continue the conversation on the same `next`, feed it first. A break at the last token
/// changes nothing; one before gives [`FinishReason::Cancelled`] and the text so far, without what was held back.
///
/// # Errors
/// - [`Error::Generation`] when a setting is out of range, or the prompt is empty or longer than the room left in the context;
/// - [`Error::Logits`] when the model's output is unusable;
/// - whatever `next` and `decoder` report.
pub fn generate(
    next: &mut dyn NextToken,
    decoder: &mut dyn TextDecoder,
    prompt: &[u32],
    config: &GenerationConfig,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Generated> {
    let mut sampler = Sampler::new(config, prompt)?;
    check_prompt(next, prompt)?;
    let mut scanner = StopScanner::new(&config.stop);
    let mut logits = Vec::new();
    let mut answer = Generated {
        ids: Vec::new(),
        text: String::new(),
        finish_reason: FinishReason::Cancelled,
        prompt_tokens: prompt.len(),
    };

    let mut fed = 0;
    for chunk in prompt.chunks(PREFILL_CHUNK) {
        next.feed(chunk, &mut logits)?;
        fed += chunk.len();
        if on_event(Event::Prefill { fed, total: prompt.len() }).is_break() {
            return Ok(answer);
        }
    }

    loop {
        let id = sampler.choose(&mut logits)?;
        answer.ids.push(id);
        let ended = config.eos_token_ids.contains(&id);
        let mut text = String::new();
        if !ended && let Some(piece) = decoder.step(id)? {
            text = scanner.push(&piece);
        }

        let full = answer.ids.len() >= config.max_new_tokens || next.position() >= next.max_positions();
        let last = ended || full || scanner.found().is_some();
        if last && scanner.found().is_none() {
            if let Some(piece) = decoder.finish()? {
                text += &scanner.push(&piece);
            }
            text += &scanner.finish();
        }

        answer.text += &text;
        let flow = on_event(Event::Token { id, text });
        if last {
            let stopped = ended || scanner.found().is_some();
            answer.finish_reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
            return Ok(answer);
        }
        if flow.is_break() {
            return Ok(answer);
        }
        next.feed(&[id], &mut logits)?;
    }
}

fn check_prompt(next: &dyn NextToken, prompt: &[u32]) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::Generation {
            setting: "prompt",
            expected: "at least one token",
            found: "none (a model that starts from nothing starts from its bos token)".into(),
        });
    }
    let room = next.max_positions().saturating_sub(next.position());
    if prompt.len() > room {
        return Err(Error::Generation {
            setting: "prompt",
            expected: "no more tokens than the context has room for",
            found: format!(
                "{} tokens, with room for {room} of {} (shorten the prompt)",
                prompt.len(),
                next.max_positions()
            ),
        });
    }
    Ok(())
}
