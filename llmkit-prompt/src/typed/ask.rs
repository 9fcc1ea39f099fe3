use llmkit_core::{ChatEvent, ChatRequest, FinishReason, Message, Role};
use serde_json::json;

use crate::run::spans;
use crate::{ChatPrompt, Error, Result, Run, builtin};

/// How often a model is asked at most, unless said otherwise.
pub(super) const ATTEMPTS: usize = 3;

/// What was read, and what a reader of the trace should know about it.
pub(super) struct Read<T> {
    pub(super) value: T,
    pub(super) note: Option<String>,
    /// Whether the text ended before the value did.
    pub(super) cut_off: bool,
}

/// Asks, reads, and asks again with what was wrong.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    attempts: usize,
    again: ChatPrompt,
}

impl Default for Ask {
    fn default() -> Self {
        Self { attempts: ATTEMPTS, again: builtin::prompt("typed/again") }
    }
}

impl Ask {
    /// # Panics
    /// If `attempts` is 0.
    pub(super) fn with_attempts(self, attempts: usize) -> Self {
        assert!(attempts > 0, "expected at least 1 attempt, found 0");
        Self { attempts, ..self }
    }

    pub(super) fn with_prompt(self, prompt: ChatPrompt) -> Result<Self> {
        Ok(Self { again: prompt.supplied_by(&["error"])?, ..self })
    }

    /// The first answer to `request` that `read` can read. `wanted` names it in errors. `tell` hears the answer as it is written, each attempt from its start.
    pub(super) async fn ask<T>(
        &self,
        run: &Run<'_>,
        wanted: &str,
        request: ChatRequest,
        read: &(dyn Fn(&str) -> Result<Read<T>> + Sync),
        mut tell: Option<&mut Tell<'_>>,
    ) -> Result<T> {
        let mut reasons = Vec::new();
        let mut last = None;
        for attempt in 1..=self.attempts {
            let mut request = request.clone();
            if let Some((text, reason)) = last.take() {
                request.messages.push(Message::assistant(text));
                request.messages.extend(self.again.render(json!({ "error": reason }))?);
            }
            let response = match tell.as_mut() {
                None => run.chat("answer", request).await?,
                Some(tell) => {
                    tell(None);
                    let told = &mut |event: &ChatEvent| {
                        if let ChatEvent::Text(text) = event {
                            tell(Some(text));
                        }
                    };
                    run.chat_streamed("answer", request, told).await?
                }
            };
            let text = response.message.content;
            let span = run.span().in_scope(|| spans::parse(wanted));
            let found = spans::ended(&span, span.in_scope(|| read(&text)));
            let too_long = response.finish_reason == FinishReason::Length;
            let reason = match found {
                Ok(Read { value, note, cut_off }) if !(cut_off && too_long) => {
                    note.into_iter().for_each(|note| run.note(note));
                    return Ok(value);
                }
                Ok(_) => CUT_OFF.to_owned(),
                Err(error) if too_long => format!("{CUT_OFF}: {error}"),
                Err(error) => error.to_string(),
            };
            run.note(format!("attempt {attempt} of {}: {reason}", self.attempts));
            last = Some((text, reason.clone()));
            reasons.push(reason);
        }
        let text = last.map(|(text, _)| text).unwrap_or_default();
        Err(Error::Answer { wanted: wanted.to_owned(), reasons, text })
    }
}

/// Hears more of an answer's text; nothing when another answer begins.
pub(super) type Tell<'a> = dyn FnMut(Option<&str>) + Send + 'a;

const CUT_OFF: &str = "the answer was cut off at the longest length allowed; a shorter one is needed, or a greater `max_tokens`";

/// The messages with `text` at the end of the last one of the user's, or as one of its own.
pub(super) fn with_text(mut messages: Vec<Message>, text: &str) -> Vec<Message> {
    match messages.last_mut() {
        Some(last) if last.role == Role::User => {
            last.content.push_str("\n\n");
            last.content.push_str(text);
        }
        _ => messages.push(Message::user(text)),
    }
    messages
}
