use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::chain::{Asked, reason};
use super::{Extract, Reasoned, Reasoner};
use crate::{ChatPrompt, Message, Result, Role, Run, builtin};

/// Few-shot chain of thought: worked examples go before the question, and the model answers as they do.
///
/// Wei et al. 2022, "Chain-of-Thought Prompting Elicits Reasoning in Large Language Models" (eight examples there). Each
/// [`WorkedExample`] becomes a turn of the user and one of the model. Examples chosen for the question, as
/// [`FewShot`](crate::few_shot::FewShot) does, come as messages: [`from_messages`](Self::from_messages).
///
/// Prompts: `reasoning/few_shot_cot_example` for each example, `reasoning/few_shot_cot` for the question.
///
/// ```
/// use llmkit_prompt::reasoning::{Extract, FewShotCot, Reasoner, WorkedExample};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let examples = [
///     WorkedExample::new("Tom has 3 pears and buys 4. How many has he?", "3 and 4 more are 3 + 4 = 7.", "7"),
///     WorkedExample::new("Of 10 birds 4 fly off. How many stay?", "10 less 4 is 10 - 4 = 6.", "6"),
/// ];
/// let method = FewShotCot::new(examples)?.with_extract(Extract::Number);
/// let model = ScriptedModel::new(["5 and 8 more are 5 + 8 = 13.\nAnswer: 13"]);
/// let found = pollster::block_on(method.run(&model, "Ann has 5 cards and gets 8. How many has she?"))?;
/// assert_eq!(found.value.answer, "13");
/// assert_eq!(model.requests()[0].messages.len(), 5);
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FewShotCot {
    examples: Vec<Message>,
    prompt: ChatPrompt,
    extract: Extract,
}

/// A question with its answer and the reasoning that leads to it.
///
/// ```
/// use llmkit_prompt::reasoning::WorkedExample;
///
/// let line = r#"{"question": "What is 2 + 3?", "rationale": "2 + 3 = 5", "answer": "5"}"#;
/// let example: WorkedExample = serde_json::from_str(line)?;
/// assert_eq!(example, WorkedExample::new("What is 2 + 3?", "2 + 3 = 5", "5"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkedExample {
    /// The question.
    pub question: String,
    /// The reasoning.
    pub rationale: String,
    /// The answer alone.
    pub answer: String,
}

impl WorkedExample {
    /// An example.
    pub fn new(question: impl Into<String>, rationale: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { question: question.into(), rationale: rationale.into(), answer: answer.into() }
    }
}

impl FewShotCot {
    /// Shows these examples, in this order, each in the built-in form.
    ///
    /// # Errors
    /// What rendering an example reports.
    pub fn new(examples: impl IntoIterator<Item = WorkedExample>) -> Result<Self> {
        Self::with_example_prompt(examples, builtin::prompt("reasoning/few_shot_cot_example"))
    }

    /// Shows these examples in the form of `prompt`, which may use `question`, `rationale` and `answer`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) where the prompt wants something else, and what rendering it reports.
    pub fn with_example_prompt(
        examples: impl IntoIterator<Item = WorkedExample>,
        prompt: ChatPrompt,
    ) -> Result<Self> {
        let prompt = prompt.supplied_by(&["question", "rationale", "answer"])?;
        let mut messages = Vec::new();
        for example in examples {
            messages.extend(prompt.render(example)?);
        }
        Ok(Self::from_messages(messages))
    }

    /// Shows these messages: examples that are already turns of the user and the model.
    pub fn from_messages(examples: impl IntoIterator<Item = Message>) -> Self {
        Self {
            examples: examples.into_iter().collect(),
            prompt: builtin::prompt("reasoning/few_shot_cot"),
            extract: Extract::Text,
        }
    }

    /// How the answer is found; [`Extract::Text`] unless set. The examples should end accordingly, as the built-in form does with
    /// `Answer: ..`.
    pub fn with_extract(mut self, extract: Extract) -> Self {
        self.extract = extract;
        self
    }

    /// Another prompt for the question; it may use `question`, `kind` and `detail`. Its system turns go before the examples.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) where it wants something else.
    pub fn with_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompt = prompt.supplied_by(&Asked::NAMES)?;
        Ok(self)
    }
}

#[async_trait]
impl Reasoner for FewShotCot {
    fn name(&self) -> &str {
        "few-shot-cot"
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        let turns = self.prompt.render(Asked::new(question, &self.extract))?;
        let systems = turns.iter().take_while(|turn| turn.role == Role::System).count();
        let mut messages = turns[..systems].to_vec();
        messages.extend_from_slice(&self.examples);
        messages.extend_from_slice(&turns[systems..]);
        reason(run, self.name(), messages, &self.extract, None).await
    }
}
