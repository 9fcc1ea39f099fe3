use async_trait::async_trait;

use super::chain::{Asked, reason};
use super::{Extract, Reasoned, Reasoner};
use crate::{ChatPrompt, Result, Run, builtin};

/// Plan-and-solve: the model says what is asked, lists the quantities, makes a plan, and carries it out with care for each result.
///
/// Wang et al. 2023, "Plan-and-Solve Prompting", in its detailed form "PS+". The paper asks for the answer in a second call;
/// [`two_calls`](Self::two_calls) does so, [`new`](Self::new) has it in the same reply.
///
/// Prompts: `reasoning/plan_and_solve`, and `reasoning/extract` for a second call.
///
/// ```
/// use llmkit_prompt::reasoning::{Extract, PlanAndSolve, Reasoner};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let model = ScriptedModel::new(["1. The total price.\n2. 3 pens, 2 dollars each.\n3. Multiply.\n4. 3 * 2 = 6\nAnswer: 6"]);
/// let method = PlanAndSolve::new().with_extract(Extract::Number);
/// let found = pollster::block_on(method.run(&model, "A pen costs 2 dollars. What do 3 cost?"))?;
/// assert_eq!(found.value.answer, "6");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PlanAndSolve {
    prompt: ChatPrompt,
    extraction: Option<ChatPrompt>,
    extract: Extract,
}

impl PlanAndSolve {
    /// In one call.
    pub fn new() -> Self {
        Self { prompt: builtin::prompt("reasoning/plan_and_solve"), extraction: None, extract: Extract::Text }
    }

    /// In two calls: the second, which sees the plan and its execution, gives the answer alone.
    pub fn two_calls() -> Self {
        Self { extraction: Some(builtin::prompt("reasoning/extract")), ..Self::new() }
    }

    /// How the answer is found; [`Extract::Text`] unless set.
    pub fn with_extract(mut self, extract: Extract) -> Self {
        self.extract = extract;
        self
    }

    /// Another prompt; it may use `question`, `kind` and `detail` (see [`Extract`]).
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) where it wants something else.
    pub fn with_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompt = prompt.supplied_by(&Asked::NAMES)?;
        Ok(self)
    }
}

impl Default for PlanAndSolve {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Reasoner for PlanAndSolve {
    fn name(&self) -> &str {
        "plan-and-solve"
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        let messages = self.prompt.render(Asked::new(question, &self.extract))?;
        let extraction = self.extraction.as_ref().map(|prompt| (prompt, question));
        reason(run, self.name(), messages, &self.extract, extraction).await
    }
}
