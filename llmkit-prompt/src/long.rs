//! What the pieces for long documents share: how much fits, work side by side, and making one text of many.

use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use llmkit_core::{ApproximateTokens, ChatRequest, FinishReason, LanguageModel, Message, TokenCounter};

use crate::{Error, Result, Run};

/// Room for the marks that a chat template puts around a message, in tokens.
const MARKS: usize = 12;

/// How much a model can read and is to write.
#[derive(Clone)]
pub(crate) struct Limits {
    pub(crate) counter: Arc<dyn TokenCounter>,
    /// Prompt and answer together; unset, what the model says of itself.
    pub(crate) context_tokens: Option<usize>,
    pub(crate) answer_tokens: usize,
    pub(crate) concurrency: usize,
}

impl Limits {
    pub(crate) fn new(answer_tokens: usize) -> Self {
        Self { counter: Arc::new(ApproximateTokens), context_tokens: None, answer_tokens, concurrency: 4 }
    }

    pub(crate) fn context(&self, model: &dyn LanguageModel) -> Option<usize> {
        self.context_tokens.or(model.capabilities().context_tokens)
    }

    pub(crate) fn tokens(&self, messages: &[Message]) -> Result<usize> {
        messages.iter().try_fold(0, |sum, message| Ok(sum + self.counter.count(&message.content)? + MARKS))
    }

    /// The tokens that are left for a document in a prompt that is `messages` without it.
    ///
    /// # Errors
    /// [`Error::NoRoom`] if nothing is left.
    pub(crate) fn room(&self, context: usize, messages: &[Message]) -> Result<usize> {
        let needed = self.tokens(messages)? + self.answer_tokens;
        context.checked_sub(needed).filter(|room| *room > 0).ok_or(Error::NoRoom { context, needed })
    }

    pub(crate) fn request(&self, messages: Vec<Message>) -> ChatRequest {
        ChatRequest { max_tokens: Some(self.answer_tokens), ..ChatRequest::new(messages) }
    }

    /// The model's answer as text; a note says if it was cut.
    pub(crate) async fn ask(&self, run: &Run<'_>, step: &str, messages: Vec<Message>) -> Result<String> {
        let response = run.chat(step, self.request(messages)).await?;
        if response.finish_reason == FinishReason::Length {
            run.note(format!("the answer of `{step}` was cut at {} tokens", self.answer_tokens));
        }
        Ok(response.message.content.trim().to_owned())
    }
}

/// Does `work`, so many at a time, and gives the results in order; the records are included in order too.
pub(crate) async fn in_order<'a, T, F>(run: &Run<'_>, concurrency: usize, work: Vec<F>) -> Result<Vec<T>>
where
    F: Future<Output = (Run<'a>, Result<T>)>,
{
    let mut results = Vec::with_capacity(work.len());
    let mut stream = stream::iter(work).buffered(concurrency.max(1));
    while let Some((part, result)) = stream.next().await {
        run.include(part);
        results.push(result?);
    }
    Ok(results)
}

/// How texts become one.
pub(crate) struct Reduction<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) context: usize,
    /// The most texts that are made one at a time.
    pub(crate) branch: usize,
    pub(crate) max_levels: usize,
    /// The step's name in the trace.
    pub(crate) step: &'a str,
    /// The prompt for these texts.
    pub(crate) prompt: &'a (dyn Fn(&[String]) -> Result<Vec<Message>> + Send + Sync),
}

impl Reduction<'_> {
    /// Makes one text of `texts`, neighbours first, level by level; and says how many levels that took.
    ///
    /// # Errors
    /// [`Error::TooManyLevels`] if `max_levels` don't suffice, or if no two texts fit into one prompt.
    pub(crate) async fn run(&self, run: &Run<'_>, mut texts: Vec<String>) -> Result<(String, usize)> {
        let room = self.limits.room(self.context, &(self.prompt)(&[])?)?;
        let mut levels = 0;
        while texts.len() > 1 {
            let groups = self.groups(&texts, room)?;
            if levels == self.max_levels || groups.len() == texts.len() {
                return Err(Error::TooManyLevels { left: texts.len(), levels, room });
            }
            levels += 1;
            let mut work = Vec::with_capacity(groups.len());
            for group in &groups {
                let prompt = if group.len() > 1 { Some((self.prompt)(&texts[group.clone()])?) } else { None };
                let alone = &texts[group.start];
                let name = format!("{} {}-{} of {}", self.step, group.start + 1, group.end, texts.len());
                work.push(async move {
                    let part = run.part(name);
                    let text = match prompt {
                        Some(prompt) => self.limits.ask(&part, self.step, prompt).await,
                        None => Ok(alone.clone()),
                    };
                    (part, text)
                });
            }
            texts = in_order(run, self.limits.concurrency, work).await?;
        }
        Ok((texts.pop().unwrap_or_default(), levels))
    }

    /// Neighbours that fit into one prompt, as many as may be.
    fn groups(&self, texts: &[String], room: usize) -> Result<Vec<Range<usize>>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut used = 0_usize;
        for (index, text) in texts.iter().enumerate() {
            let tokens = self.limits.counter.count(text)? + MARKS;
            match groups.last_mut() {
                Some(group) if group.len() < self.branch && used + tokens <= room => {
                    group.end = index + 1;
                    used += tokens;
                }
                _ => {
                    groups.push(index..index + 1);
                    used = tokens;
                }
            }
        }
        Ok(groups)
    }
}
