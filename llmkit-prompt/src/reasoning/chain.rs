//! A chain of thought: a reply that reasons, and the answer out of it, or out of a second reply that is asked for it.

use llmkit_core::{ChatRequest, ChatResponse, FinishReason, Message};
use serde::Serialize;

use super::{Extract, Reasoned};
use crate::{ChatPrompt, Error, Result, Run};

/// What every prompt that asks for an answer may use.
#[derive(Serialize)]
pub(super) struct Asked<'a> {
    pub(super) question: &'a str,
    pub(super) kind: &'static str,
    pub(super) detail: String,
}

impl<'a> Asked<'a> {
    pub(super) const NAMES: [&'static str; 3] = ["question", "kind", "detail"];

    pub(super) fn new(question: &'a str, extract: &Extract) -> Self {
        Self { question, kind: extract.kind(), detail: extract.detail() }
    }
}

/// Has `messages` answered; the answer stands in the reply, or comes with the next one where `extraction` asks for it.
pub(super) async fn reason(
    run: &Run<'_>,
    method: &str,
    messages: Vec<Message>,
    extract: &Extract,
    extraction: Option<(&ChatPrompt, &str)>,
) -> Result<Reasoned> {
    let reply = run.chat("reason", ChatRequest::new(messages.clone())).await?;
    let rationale = written(&reply);
    let Some((prompt, question)) = extraction else {
        return match extract.answer(&reply.message.content) {
            Some(answer) => Ok(Reasoned::new(answer, rationale)),
            None => Err(no_answer(method, extract.expected(), &reply)),
        };
    };
    let mut conversation = messages;
    conversation.push(Message::assistant(reply.message.content));
    conversation.extend(prompt.render(Asked::new(question, extract))?);
    let reply = run.chat("extract", ChatRequest::new(conversation)).await?;
    match extract.answer_alone(&reply.message.content) {
        Some(answer) => Ok(Reasoned::new(answer, rationale)),
        None => Err(no_answer(method, extract.expected(), &reply)),
    }
}

/// All that a reply says, its thoughts first.
pub(super) fn written(reply: &ChatResponse) -> String {
    let content = reply.message.content.trim();
    match reply.message.reasoning.as_deref().map(str::trim) {
        Some(thoughts) if !thoughts.is_empty() => format!("{thoughts}\n\n{content}"),
        _ => content.to_owned(),
    }
}

pub(super) fn no_answer(method: &str, expected: &'static str, reply: &ChatResponse) -> Error {
    Error::NoAnswer {
        method: method.to_owned(),
        expected,
        text: reply.message.content.clone(),
        cut_off: reply.finish_reason == FinishReason::Length,
    }
}
