use async_trait::async_trait;
use llmkit_core::ChatRequest;
use serde_json::json;

use super::chain::{no_answer, written};
use super::{Evidence, Extract, Reasoned, Reasoner, Step};
use crate::{ChatPrompt, Result, Run, builtin};

/// Step-back prompting: the model first asks for the law or background behind the question, answers that, and then the question with it.
///
/// Zheng et al. 2023, "Take a Step Back: Evoking Reasoning via Abstraction in Large Language Models". Three calls. The paper shows a few
/// examples of step-back questions before the first call; a prompt of your own can do so
/// ([`with_question_prompt`](Self::with_question_prompt)).
///
/// Prompts: `reasoning/step_back_question`, `reasoning/step_back_principles`, `reasoning/step_back_answer`.
///
/// ```
/// use llmkit_prompt::reasoning::{Reasoner, StepBack};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let model = ScriptedModel::new([
///     "Which days of the year have the longest daylight?",
///     "Near the June solstice in the northern hemisphere, near the December solstice in the southern.",
///     "Sydney lies in the south.\nAnswer: December",
/// ]);
/// let found = pollster::block_on(StepBack::new().run(&model, "In which month are Sydney's days longest?"))?;
/// assert_eq!(found.value.answer, "December");
/// assert_eq!(found.trace.calls().count(), 3);
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StepBack {
    question: ChatPrompt,
    principles: ChatPrompt,
    answer: ChatPrompt,
    extract: Extract,
}

impl StepBack {
    /// With the built-in prompts.
    pub fn new() -> Self {
        Self {
            question: builtin::prompt("reasoning/step_back_question"),
            principles: builtin::prompt("reasoning/step_back_principles"),
            answer: builtin::prompt("reasoning/step_back_answer"),
            extract: Extract::Text,
        }
    }

    /// How the answer is found; [`Extract::Text`] unless set.
    pub fn with_extract(mut self, extract: Extract) -> Self {
        self.extract = extract;
        self
    }

    /// Another prompt for the step-back question; it may use `question`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) where it wants something else.
    pub fn with_question_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.question = prompt.supplied_by(&["question"])?;
        Ok(self)
    }

    /// Another prompt for the principles; it may use `question` and `step_back_question`.
    ///
    /// # Errors
    /// As [`with_question_prompt`](Self::with_question_prompt).
    pub fn with_principles_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.principles = prompt.supplied_by(&["question", "step_back_question"])?;
        Ok(self)
    }

    /// Another prompt for the answer; it may use `question`, `step_back_question`, `principles`, `kind` and `detail`.
    ///
    /// # Errors
    /// As [`with_question_prompt`](Self::with_question_prompt).
    pub fn with_answer_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.answer =
            prompt.supplied_by(&["question", "step_back_question", "principles", "kind", "detail"])?;
        Ok(self)
    }
}

impl Default for StepBack {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Reasoner for StepBack {
    fn name(&self) -> &str {
        "step-back"
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        let mut values = json!({
            "question": question,
            "kind": self.extract.kind(),
            "detail": self.extract.detail(),
        });
        let reply = run.chat("step back", ChatRequest::new(self.question.render(&values)?)).await?;
        let step_back_question = reply.message.content.trim().to_owned();
        if step_back_question.is_empty() {
            return Err(no_answer(self.name(), "a more general question", &reply));
        }
        values["step_back_question"] = json!(step_back_question);
        let reply = run.chat("principles", ChatRequest::new(self.principles.render(&values)?)).await?;
        let principles = reply.message.content.trim().to_owned();
        values["principles"] = json!(principles);
        let reply = run.chat("answer", ChatRequest::new(self.answer.render(&values)?)).await?;
        let Some(answer) = self.extract.answer(&reply.message.content) else {
            return Err(no_answer(self.name(), self.extract.expected(), &reply));
        };
        let steps = vec![Step { question: step_back_question, answer: principles }];
        Ok(Reasoned::new(answer, written(&reply)).with_evidence(Evidence::Steps(steps)))
    }
}
