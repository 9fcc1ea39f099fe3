use async_trait::async_trait;
use llmkit_core::ChatRequest;
use serde_json::json;

use super::chain::{no_answer, written};
use super::list::list;
use super::{Evidence, Extract, Reasoned, Reasoner, Step, normalise};
use crate::{ChatPrompt, Result, Run, builtin};

/// Least-to-most: easier questions are found and answered first, one after the other, each with the answers before it.
///
/// Zhou et al. 2022, "Least-to-Most Prompting Enables Complex Reasoning in Large Language Models". The question itself is the last of the
/// list. Where the model finds no easier question, its own is asked at once, and the trace says so.
///
/// Prompts: `reasoning/least_to_most_decompose` and `reasoning/least_to_most_solve`.
///
/// ```
/// use llmkit_prompt::reasoning::{Extract, LeastToMost, Reasoner};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let model = ScriptedModel::new([
///     "1. How many apples does Anna have?\n2. How many do they have together?",
///     "2 more than 5 is 7.",
///     "5 and 7 are 12.",
///     "Together they have 12.\nAnswer: 12",
/// ]);
/// let method = LeastToMost::new().with_extract(Extract::Number);
/// let question = "Elsa has 5 apples, Anna 2 more than Elsa. How many have they together?";
/// let found = pollster::block_on(method.run(&model, question))?;
/// assert_eq!(found.value.answer, "12");
/// assert_eq!(found.value.steps()[0].question, "How many apples does Anna have?");
/// assert_eq!(found.value.steps()[0].answer, "2 more than 5 is 7.");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LeastToMost {
    decompose: ChatPrompt,
    solve: ChatPrompt,
    extract: Extract,
    limit: usize,
}

impl LeastToMost {
    /// With at most eight easier questions.
    pub fn new() -> Self {
        Self {
            decompose: builtin::prompt("reasoning/least_to_most_decompose"),
            solve: builtin::prompt("reasoning/least_to_most_solve"),
            extract: Extract::Text,
            limit: 8,
        }
    }

    /// How the answer is found; [`Extract::Text`] unless set.
    pub fn with_extract(mut self, extract: Extract) -> Self {
        self.extract = extract;
        self
    }

    /// The most easier questions that are asked; the trace says if the model wanted more. 8 unless set.
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Another prompt that breaks the question up; it may use `question` and `limit`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) where it wants something else.
    pub fn with_decompose_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.decompose = prompt.supplied_by(&["question", "limit"])?;
        Ok(self)
    }

    /// Another prompt that answers one question; it may use `question`, `solved` (a list of `question` and `answer`), `subquestion`,
    /// `is_last`, `kind` and `detail`.
    ///
    /// # Errors
    /// As [`with_decompose_prompt`](Self::with_decompose_prompt).
    pub fn with_solve_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.solve =
            prompt.supplied_by(&["question", "solved", "subquestion", "is_last", "kind", "detail"])?;
        Ok(self)
    }

    async fn subquestions(&self, run: &Run<'_>, question: &str) -> Result<Vec<String>> {
        let messages = self.decompose.render(json!({ "question": question, "limit": self.limit }))?;
        let reply = run.chat("decompose", ChatRequest::new(messages)).await?;
        let mut subquestions = list(&reply.message.content);
        let whole = normalise(question);
        subquestions.retain(|subquestion| normalise(subquestion) != whole);
        if subquestions.is_empty() {
            run.note("no easier question was found, so the question is asked at once");
        }
        if subquestions.len() > self.limit {
            run.note(format!(
                "{} easier questions were found; the first {} are asked",
                subquestions.len(),
                self.limit
            ));
            subquestions.truncate(self.limit);
        }
        Ok(subquestions)
    }

    fn messages(
        &self,
        question: &str,
        solved: &[Step],
        subquestion: Option<&str>,
    ) -> Result<Vec<crate::Message>> {
        self.solve.render(json!({
            "question": question,
            "solved": solved,
            "subquestion": subquestion,
            "is_last": subquestion.is_none(),
            "kind": self.extract.kind(),
            "detail": self.extract.detail(),
        }))
    }
}

impl Default for LeastToMost {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Reasoner for LeastToMost {
    fn name(&self) -> &str {
        "least-to-most"
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        let mut steps: Vec<Step> = Vec::new();
        for subquestion in self.subquestions(run, question).await? {
            let messages = self.messages(question, &steps, Some(&subquestion))?;
            let reply = run.chat("solve", ChatRequest::new(messages)).await?;
            steps.push(Step { question: subquestion, answer: reply.message.content.trim().to_owned() });
        }
        let reply = run.chat("answer", ChatRequest::new(self.messages(question, &steps, None)?)).await?;
        let Some(answer) = self.extract.answer(&reply.message.content) else {
            return Err(no_answer(self.name(), self.extract.expected(), &reply));
        };
        Ok(Reasoned::new(answer, written(&reply)).with_evidence(Evidence::Steps(steps)))
    }
}
