use async_trait::async_trait;

use super::chain::{Asked, reason};
use super::{Extract, Reasoned, Reasoner};
use crate::{ChatPrompt, Result, Run, builtin};

/// Zero-shot chain of thought: the model is told to think step by step before it answers.
///
/// Kojima et al. 2022, "Large Language Models are Zero-Shot Reasoners". [`two_calls`](Self::two_calls) is the paper's way: the first call
/// reasons, the second, which sees the reasoning, gives the answer alone. [`new`](Self::new) has both in one reply, which costs half as
/// much and needs a model that ends as it is told.
///
/// Prompts: `reasoning/zero_shot_cot`, or `reasoning/zero_shot_cot_reason` and `reasoning/extract`.
///
/// ```
/// use llmkit_prompt::reasoning::{Extract, Reasoner, ZeroShotCot};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let model = ScriptedModel::new(["Half of 12 is 6, and 6 + 1 = 7.", "7"]);
/// let method = ZeroShotCot::two_calls().with_extract(Extract::Number);
/// let found = pollster::block_on(method.run(&model, "What is one more than half a dozen?"))?;
/// assert_eq!(found.value.answer, "7");
/// assert_eq!(found.value.rationale, "Half of 12 is 6, and 6 + 1 = 7.");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ZeroShotCot {
    prompt: ChatPrompt,
    extraction: Option<ChatPrompt>,
    extract: Extract,
}

impl ZeroShotCot {
    /// In one call.
    pub fn new() -> Self {
        Self { prompt: builtin::prompt("reasoning/zero_shot_cot"), extraction: None, extract: Extract::Text }
    }

    /// In two calls, as in the paper.
    pub fn two_calls() -> Self {
        Self {
            prompt: builtin::prompt("reasoning/zero_shot_cot_reason"),
            extraction: Some(builtin::prompt("reasoning/extract")),
            extract: Extract::Text,
        }
    }

    /// How the answer is found; [`Extract::Text`] unless set.
    pub fn with_extract(mut self, extract: Extract) -> Self {
        self.extract = extract;
        self
    }

    /// Another prompt for the reasoning; it may use `question`, `kind` and `detail` (see [`Extract`]).
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) where it wants something else.
    pub fn with_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompt = prompt.supplied_by(&Asked::NAMES)?;
        Ok(self)
    }

    /// Another prompt for the second call, and a second call where there was none; it may use `question`, `kind` and `detail`.
    ///
    /// # Errors
    /// As [`with_prompt`](Self::with_prompt).
    pub fn with_extraction_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.extraction = Some(prompt.supplied_by(&Asked::NAMES)?);
        Ok(self)
    }
}

impl Default for ZeroShotCot {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Reasoner for ZeroShotCot {
    fn name(&self) -> &str {
        "zero-shot-cot"
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        let messages = self.prompt.render(Asked::new(question, &self.extract))?;
        let extraction = self.extraction.as_ref().map(|prompt| (prompt, question));
        reason(run, self.name(), messages, &self.extract, extraction).await
    }
}
