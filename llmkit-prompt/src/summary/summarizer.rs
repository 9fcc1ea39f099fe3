use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use llmkit_core::{LanguageModel, Message, TokenCounter};
use serde::Serialize;
use serde_json::json;

use crate::chunks::{Chunk, cut};
use crate::long::{Limits, Reduction, in_order};
use crate::{ChatPrompt, Error, Result, Run, Traced, builtin};

/// What a model is taken to read if neither it nor the user says, in tokens.
const DEFAULT_CONTEXT: usize = 4_096;

/// How a document is summarized that does not fit into one prompt.
///
/// ```
/// use llmkit_prompt::summary::{Strategy, Summarizer};
///
/// let summarizer = Summarizer::new(Strategy::Tree { branch: 4 });
/// assert!(format!("{summarizer:?}").contains("Tree { branch: 4 }"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Strategy {
    /// Not at all: it is an error. One call.
    Stuff,
    /// Part by part: the summary so far and the next part make the next summary. One call after the other; later parts weigh more.
    Refine,
    /// Each part by itself, side by side; then one summary of the summaries, in as few steps as fit.
    MapReduce,
    /// Each part by itself, side by side; then so many neighbours at a time, level by level, until one is left.
    Tree {
        /// How many neighbours; 2 at least.
        branch: usize,
    },
}

/// Summarizes documents of any length.
///
/// ```
/// use llmkit_prompt::summary::{Strategy, Summarizer};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["A ferry left."]);
/// let summarizer = Summarizer::new(Strategy::Refine).with_focus("ships").with_summary_tokens(60);
/// let summary = summarizer.run(&model, "The ferry left at noon.").await?;
/// assert_eq!(summary.value.text, "A ferry left.");
/// assert!(model.requests()[0].messages[1].content.contains("above all what it says about ships"));
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Summarizer {
    strategy: Strategy,
    limits: Limits,
    max_levels: usize,
    focus: Option<String>,
    whole: ChatPrompt,
    part: ChatPrompt,
    combine: ChatPrompt,
    refine: ChatPrompt,
}

/// A summary, and what it was made from.
///
/// ```
/// use llmkit_prompt::summary::{Strategy, Summarizer};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["A ferry left."]);
/// let summary = Summarizer::new(Strategy::Stuff).run(&model, "The ferry left at noon.").await?.value;
/// assert_eq!((summary.chunks, summary.levels), (vec![0..23], 0));
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The summary.
    pub text: String,
    /// The parts that the document was cut into, in bytes; one if it fitted.
    pub chunks: Vec<Range<usize>>,
    /// How often summaries were made of summaries.
    pub levels: usize,
}

impl Summarizer {
    /// A summarizer of documents that need `strategy`.
    ///
    /// # Panics
    /// If a tree has less than two branches.
    pub fn new(strategy: Strategy) -> Self {
        if let Strategy::Tree { branch } = strategy {
            assert!(branch >= 2, "expected a tree with at least 2 branches, found {branch}");
        }
        Self {
            strategy,
            limits: Limits::new(400),
            max_levels: 8,
            focus: None,
            whole: builtin::prompt("summary/whole"),
            part: builtin::prompt("summary/part"),
            combine: builtin::prompt("summary/combine"),
            refine: builtin::prompt("summary/refine"),
        }
    }

    /// The tokens that prompt and answer may have together; default: what the model says of itself, else 4,096 (which the trace then
    /// notes).
    pub fn with_context_tokens(mut self, tokens: usize) -> Self {
        self.limits.context_tokens = Some(tokens);
        self
    }

    /// The longest summary, of a part or of the whole, in tokens; default 400.
    pub fn with_summary_tokens(mut self, tokens: usize) -> Self {
        self.limits.answer_tokens = tokens;
        self
    }

    /// Counts tokens with this; default an estimate from characters, [`ApproximateTokens`](llmkit_core::ApproximateTokens).
    pub fn with_counter(mut self, counter: impl TokenCounter + 'static) -> Self {
        self.limits.counter = Arc::new(counter);
        self
    }

    /// How many calls are made at a time; default 4.
    pub fn with_concurrency(mut self, calls: usize) -> Self {
        self.limits.concurrency = calls;
        self
    }

    /// How often summaries are made of summaries at most; default 8.
    pub fn with_max_levels(mut self, levels: usize) -> Self {
        self.max_levels = levels;
        self
    }

    /// What the summary is to be about above all; default nothing.
    pub fn with_focus(mut self, focus: impl Into<String>) -> Self {
        self.focus = Some(focus.into());
        self
    }

    /// Takes another prompt for documents that fit, in place of `prompts/summary/whole.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] if it wants more than `document`, `focus` and `words`.
    pub fn with_whole_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.whole = prompt.supplied_by(&["document", "focus", "words"])?;
        Ok(self)
    }

    /// Takes another prompt for parts, in place of `prompts/summary/part.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] if it wants more than `document`, `part`, `parts`, `focus` and `words`.
    pub fn with_part_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.part = prompt.supplied_by(&["document", "part", "parts", "focus", "words"])?;
        Ok(self)
    }

    /// Takes another prompt for summaries of summaries, in place of `prompts/summary/combine.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] if it wants more than `summaries`, `focus` and `words`.
    pub fn with_combine_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.combine = prompt.supplied_by(&["summaries", "focus", "words"])?;
        Ok(self)
    }

    /// Takes another prompt for [`Strategy::Refine`], in place of `prompts/summary/refine.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] if it wants more than `summary`, `document`, `part`, `parts`, `focus` and `words`.
    pub fn with_refine_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.refine = prompt.supplied_by(&["summary", "document", "part", "parts", "focus", "words"])?;
        Ok(self)
    }

    /// Summarizes `document`.
    ///
    /// # Errors
    /// [`Error::DocumentTooLong`] if it does not fit and the strategy is [`Strategy::Stuff`], or a summary came out longer than
    /// asked for; [`Error::NoRoom`] if the context holds not even the prompt; [`Error::TooManyLevels`] if the summaries do not become fewer;
    /// [`Error::Model`] when the model fails.
    pub async fn run(&self, model: &dyn LanguageModel, document: &str) -> Result<Traced<Summary>> {
        let run = Run::new("summary", model);
        let summary = self.run_in(&run, document).await?;
        Ok(run.finish(summary))
    }

    /// As [`run`](Self::run), within another piece.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_in(&self, run: &Run<'_>, document: &str) -> Result<Summary> {
        let whole = self.messages(&self.whole, document, 1, 1, "")?;
        let known = self.limits.context(run.model());
        let context = known.unwrap_or(DEFAULT_CONTEXT);
        let tokens = self.limits.tokens(&whole)? + self.limits.answer_tokens;
        if tokens <= context || known.is_none() && self.strategy == Strategy::Stuff {
            let text = self.limits.ask(run, "summarize", whole).await?;
            let chunks = std::iter::once(0..document.len()).collect();
            return Ok(Summary { text, chunks, levels: 0 });
        }
        if known.is_none() {
            run.note(format!("the model does not say what it reads at once: taken to be {context} tokens"));
        }
        match self.strategy {
            Strategy::Stuff => Err(Error::DocumentTooLong { tokens, context }),
            Strategy::Refine => self.refine(run, document, context).await,
            Strategy::MapReduce => self.map_reduce(run, document, context, usize::MAX).await,
            Strategy::Tree { branch } => self.map_reduce(run, document, context, branch).await,
        }
    }

    async fn refine(&self, run: &Run<'_>, document: &str, context: usize) -> Result<Summary> {
        let empty = self.messages(&self.refine, "", 100, 100, "")?;
        let room = self.limits.room(context, &empty)?;
        // The summary so far takes as much as a summary may.
        let room = room.checked_sub(self.limits.answer_tokens).filter(|room| *room > 0);
        let needed = self.limits.tokens(&empty)? + 2 * self.limits.answer_tokens;
        let chunks = self.cut(run, document, room.ok_or(Error::NoRoom { context, needed })?)?;
        let mut text = String::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let (prompt, step) = if index == 0 { (&self.part, "part 1") } else { (&self.refine, "refine") };
            let messages = self.messages(prompt, chunk.text, index + 1, chunks.len(), &text)?;
            let tokens = self.limits.tokens(&messages)? + self.limits.answer_tokens;
            if tokens > context {
                return Err(Error::DocumentTooLong { tokens, context });
            }
            let step = if index == 0 { step.to_owned() } else { format!("{step} with part {}", index + 1) };
            text = self.limits.ask(run, &step, messages).await?;
        }
        let levels = chunks.len().saturating_sub(1);
        Ok(Summary { text, chunks: chunks.into_iter().map(|chunk| chunk.range).collect(), levels })
    }

    async fn map_reduce(
        &self,
        run: &Run<'_>,
        document: &str,
        context: usize,
        branch: usize,
    ) -> Result<Summary> {
        let room = self.limits.room(context, &self.messages(&self.part, "", 100, 100, "")?)?;
        let chunks = self.cut(run, document, room)?;
        let mut work = Vec::with_capacity(chunks.len());
        for (index, chunk) in chunks.iter().enumerate() {
            let messages = self.messages(&self.part, chunk.text, index + 1, chunks.len(), "")?;
            let name = format!("part {} of {}, bytes {:?}", index + 1, chunks.len(), chunk.range);
            work.push(async move {
                let part = run.part(name);
                let text = self.limits.ask(&part, "part", messages).await;
                (part, text)
            });
        }
        let parts = in_order(run, self.limits.concurrency, work).await?;
        let prompt = |summaries: &[String]| {
            self.combine.render(json!({ "summaries": summaries, "focus": self.focus, "words": self.words() }))
        };
        let reduction = Reduction {
            limits: &self.limits,
            context,
            branch,
            max_levels: self.max_levels,
            step: "combine",
            prompt: &prompt,
        };
        let (text, levels) = reduction.run(run, parts).await?;
        Ok(Summary { text, chunks: chunks.into_iter().map(|chunk| chunk.range).collect(), levels })
    }

    fn cut<'a>(&self, run: &Run<'_>, document: &'a str, room: usize) -> Result<Vec<Chunk<'a>>> {
        let chunks = cut(document, room, self.limits.counter.as_ref())?;
        let ranges: Vec<String> = chunks.iter().map(|chunk| format!("{:?}", chunk.range)).collect();
        run.note(format!(
            "the document has {} bytes and was cut into {} parts of at most {room} tokens: bytes {}",
            document.len(),
            chunks.len(),
            ranges.join(", ")
        ));
        Ok(chunks)
    }

    fn messages(
        &self,
        prompt: &ChatPrompt,
        document: &str,
        part: usize,
        parts: usize,
        summary: &str,
    ) -> Result<Vec<Message>> {
        let (focus, words) = (&self.focus, self.words());
        prompt.render(json!({
            "document": document, "part": part, "parts": parts, "summary": summary, "focus": focus, "words": words
        }))
    }

    /// A word is about four thirds of a token.
    fn words(&self) -> usize {
        (self.limits.answer_tokens * 3 / 4).max(1)
    }
}

impl fmt::Debug for Summarizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summarizer")
            .field("strategy", &self.strategy)
            .field("context_tokens", &self.limits.context_tokens)
            .field("summary_tokens", &self.limits.answer_tokens)
            .field("focus", &self.focus)
            .finish_non_exhaustive()
    }
}
