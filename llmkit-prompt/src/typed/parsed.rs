use std::fmt;
use std::sync::Arc;

use llmkit_core::{ChatRequest, LanguageModel, Message};

use super::ask::{Ask, Read};
use crate::{ChatPrompt, Result, Run, Traced};

type Parser<T> = dyn Fn(&str) -> Result<T> + Send + Sync;

/// An answer that a parser reads, asked for again, with the parser's error, while it can't be read.
///
/// How the answer should look is the prompt's business; here it is only read. [`Typed`](super::Typed) does both for JSON.
///
/// ```
/// use llmkit_core::Message;
/// use llmkit_prompt::parse;
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::typed::Parsed;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["Some time in spring.", "On 3 March 2026."]);
/// let date = Parsed::new("a date", parse::date);
/// let answer = date.run(&model, vec![Message::user("When was it? Answer with a date.")]).await?;
/// assert_eq!(answer.value.to_string(), "2026-03-03");
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Parsed<T> {
    wanted: String,
    parser: Arc<Parser<T>>,
    ask: Ask,
}

impl<T> Parsed<T> {
    /// Answers that `parser` reads. `wanted` says what they are, for errors: "a date". The parser's errors are shown to the model.
    pub fn new(
        wanted: impl Into<String>,
        parser: impl Fn(&str) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        Self { wanted: wanted.into(), parser: Arc::new(parser), ask: Ask::default() }
    }

    /// Asks at most this often; 3 without.
    ///
    /// # Panics
    /// If `attempts` is 0.
    pub fn with_attempts(self, attempts: usize) -> Self {
        Self { ask: self.ask.with_attempts(attempts), ..self }
    }

    /// Sends this prompt after an answer that can't be read; the variable `error` says why. Built in: `typed/again`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) when it wants other variables.
    pub fn with_prompt(self, prompt: ChatPrompt) -> Result<Self> {
        Ok(Self { ask: self.ask.with_prompt(prompt)?, ..self })
    }

    /// Asks `model` for the answer to `messages`.
    ///
    /// # Errors
    /// [`Error::Answer`](crate::Error::Answer) when no attempt could be read, [`Error::Model`](crate::Error::Model) when the model fails.
    pub async fn run(&self, model: &dyn LanguageModel, messages: Vec<Message>) -> Result<Traced<T>> {
        let run = Run::new(format!("parsed: {}", self.wanted), model);
        let value = self.run_in(&run, messages).await?;
        Ok(run.finish(value))
    }

    /// As [`run`](Self::run), as a part of other work.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_in(&self, run: &Run<'_>, messages: Vec<Message>) -> Result<T> {
        let read = |text: &str| {
            let value = (self.parser)(text)?;
            Ok(Read { value, note: None, cut_off: false })
        };
        self.ask.ask(run, &self.wanted, ChatRequest::new(messages), &read, None).await
    }
}

impl<T> fmt::Debug for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parsed").field("wanted", &self.wanted).field("ask", &self.ask).finish_non_exhaustive()
    }
}
