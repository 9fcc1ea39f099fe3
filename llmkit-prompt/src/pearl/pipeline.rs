use std::fmt;
use std::sync::Arc;

use llmkit_core::{LanguageModel, TokenCounter};
use serde_json::json;

use super::{
    Actions, Demonstration, PearlAnswer, PearlOutcome, PlainReason, Plan, Planning, execute, planner,
};
use crate::long::Limits;
use crate::{ChatPrompt, Result, Run, Traced, builtin};

/// Answers questions about documents by plan; the [module](super) says how.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Demonstration, Pearl};
///
/// let pearl = Pearl::new(Actions::builtin())
///     .with_demonstrations(Demonstration::builtin().into_iter().take(2).collect())
///     .with_context_tokens(8_192) // longer documents are read part by part
///     .with_concurrency(2)
///     .with_routing(true);
/// assert!(!pearl.actions().is_empty());
/// ```
#[derive(Clone)]
pub struct Pearl {
    pub(super) actions: Actions,
    pub(super) demonstrations: Vec<Demonstration>,
    pub(super) limits: Limits,
    pub(super) plan_tokens: usize,
    pub(super) attempts: usize,
    pub(super) routing: bool,
    pub(super) prompts: Prompts,
}

#[derive(Clone)]
pub(super) struct Prompts {
    pub(super) plan: ChatPrompt,
    pub(super) repair: ChatPrompt,
    pub(super) execute: ChatPrompt,
    pub(super) merge: ChatPrompt,
    pub(super) plain: ChatPrompt,
    pub(super) route: ChatPrompt,
}

impl Pearl {
    /// Plans with these actions. The built-in demonstrations are used as far as their plans need no others.
    pub fn new(actions: Actions) -> Self {
        let mut demonstrations = Demonstration::builtin();
        demonstrations.retain(|demonstration| Plan::parse(&demonstration.plan, &actions).is_ok());
        Self {
            actions,
            demonstrations,
            limits: Limits::new(512),
            plan_tokens: 1_024,
            attempts: 8,
            routing: false,
            prompts: Prompts {
                plan: builtin::prompt("pearl/plan"),
                repair: builtin::prompt("pearl/repair"),
                execute: builtin::prompt("pearl/execute"),
                merge: builtin::prompt("pearl/merge"),
                plain: builtin::prompt("pearl/plain"),
                route: builtin::prompt("pearl/route"),
            },
        }
    }

    /// The actions that a plan may use.
    pub fn actions(&self) -> &Actions {
        &self.actions
    }

    /// Shows the model these plans, in place of the built-in ones.
    pub fn with_demonstrations(mut self, demonstrations: Vec<Demonstration>) -> Self {
        self.demonstrations = demonstrations;
        self
    }

    /// The tokens that prompt and answer may have together; default: what the model says of itself, and if it says nothing, every document is
    /// taken to fit.
    pub fn with_context_tokens(mut self, tokens: usize) -> Self {
        self.limits.context_tokens = Some(tokens);
        self
    }

    /// The longest outcome of a step, in tokens; default 512.
    pub fn with_step_tokens(mut self, tokens: usize) -> Self {
        self.limits.answer_tokens = tokens;
        self
    }

    /// The longest plan, in tokens; default 1,024.
    pub fn with_plan_tokens(mut self, tokens: usize) -> Self {
        self.plan_tokens = tokens;
        self
    }

    /// Counts tokens with this; default an estimate from characters, [`ApproximateTokens`](llmkit_core::ApproximateTokens).
    pub fn with_counter(mut self, counter: impl TokenCounter + 'static) -> Self {
        self.limits.counter = Arc::new(counter);
        self
    }

    /// How many steps (and, of a long document, how many parts in each) are worked on at a time; default 4.
    pub fn with_concurrency(mut self, calls: usize) -> Self {
        self.limits.concurrency = calls;
        self
    }

    /// How often the model may write the plan before the question is asked plainly; default 8, as in the paper.
    pub fn with_attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts;
        self
    }

    /// Whether the model is asked first if the question needs a plan at all; default no. One short call more.
    pub fn with_routing(mut self, routing: bool) -> Self {
        self.routing = routing;
        self
    }

    /// Takes another prompt in place of `prompts/pearl/plan.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `actions`, `demonstrations` and `question`.
    pub fn with_plan_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompts.plan = prompt.supplied_by(&["actions", "demonstrations", "question"])?;
        Ok(self)
    }

    /// Takes another prompt in place of `prompts/pearl/repair.md`; it follows the faulty plan.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `problems`, `attempt` and `attempts`.
    pub fn with_repair_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompts.repair = prompt.supplied_by(&["problems", "attempt", "attempts"])?;
        Ok(self)
    }

    /// Takes another prompt in place of `prompts/pearl/execute.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `document`, `part`, `parts`, `action`, `definition`, `arguments`
    /// (a list of `name` and `value`) and `why`.
    pub fn with_execute_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        let supplied = ["document", "part", "parts", "action", "definition", "arguments", "why"];
        self.prompts.execute = prompt.supplied_by(&supplied)?;
        Ok(self)
    }

    /// Takes another prompt in place of `prompts/pearl/merge.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `findings`, `action`, `definition`, `arguments` and `why`.
    pub fn with_merge_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompts.merge = prompt.supplied_by(&["findings", "action", "definition", "arguments", "why"])?;
        Ok(self)
    }

    /// Takes another prompt in place of `prompts/pearl/plain.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `document` and `question`.
    pub fn with_plain_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompts.plain = prompt.supplied_by(&["document", "question"])?;
        Ok(self)
    }

    /// Takes another prompt in place of `prompts/pearl/route.md`; an answer that begins with `DIRECT` means that no plan is needed.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `question`.
    pub fn with_route_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompts.route = prompt.supplied_by(&["question"])?;
        Ok(self)
    }

    /// Answers `question` about `document`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when the model fails; for documents that are read part by part also
    /// [`Error::NoRoom`](crate::Error::NoRoom) and [`Error::TooManyLevels`](crate::Error::TooManyLevels).
    pub async fn run(
        &self,
        model: &dyn LanguageModel,
        document: &str,
        question: &str,
    ) -> Result<Traced<PearlAnswer>> {
        let run = Run::new("pearl", model);
        let answer = self.run_in(&run, document, question).await?;
        Ok(run.finish(answer))
    }

    /// As [`run`](Self::run), within another piece.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_in(&self, run: &Run<'_>, document: &str, question: &str) -> Result<PearlAnswer> {
        if self.routing && self.is_direct(run, question).await? {
            return self.plain(run, document, question, PlainReason::Routed).await;
        }
        match self.plan_in(run, question).await? {
            Planning::Valid { plan, .. } => {
                let outputs = self.execute_in(run, document, &plan).await?;
                let text: Vec<&str> =
                    plan.answers().into_iter().map(|index| outputs[index].as_str()).collect();
                Ok(PearlAnswer { text: text.join("\n\n"), outcome: PearlOutcome::Planned { plan, outputs } })
            }
            Planning::Failed { attempts } => {
                run.note(format!("no plan in {} attempts: the question is asked plainly", attempts.len()));
                self.plain(run, document, question, PlainReason::NoValidPlan { attempts }).await
            }
        }
    }

    /// Writes a plan for `question`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when the model fails. That it writes no plan is no error: [`Planning::Failed`].
    pub async fn plan(&self, model: &dyn LanguageModel, question: &str) -> Result<Traced<Planning>> {
        let run = Run::new("pearl plan", model);
        let planning = planner::plan(self, &run, self.opening(question)?).await?;
        Ok(run.finish(planning))
    }

    /// As [`plan`](Self::plan), within another piece.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn plan_in(&self, run: &Run<'_>, question: &str) -> Result<Planning> {
        let part = run.part("plan");
        let planning = planner::plan(self, &part, self.opening(question)?).await;
        run.include(part);
        planning
    }

    /// Carries out `plan` on `document` and gives what came out of each step, in order.
    ///
    /// # Errors
    /// As [`run`](Self::run); and [`Error::Action`](crate::Error::Action) if the plan was checked against other actions and uses one that is
    /// not among those here.
    pub async fn execute(
        &self,
        model: &dyn LanguageModel,
        document: &str,
        plan: &Plan,
    ) -> Result<Traced<Vec<String>>> {
        let run = Run::new("pearl execute", model);
        let outputs = execute::execute(self, &run, document, plan).await?;
        Ok(run.finish(outputs))
    }

    /// As [`execute`](Self::execute), within another piece.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn execute_in(&self, run: &Run<'_>, document: &str, plan: &Plan) -> Result<Vec<String>> {
        let part = run.part("execute");
        let outputs = execute::execute(self, &part, document, plan).await;
        run.include(part);
        outputs
    }

    /// The prompt that asks for a plan.
    pub(super) fn opening(&self, question: &str) -> Result<Vec<llmkit_core::Message>> {
        self.prompts.plan.render(json!({
            "actions": self.actions.to_string().trim_end(),
            "demonstrations": self.demonstrations.iter().map(|demonstration| {
                json!({ "question": demonstration.question, "plan": demonstration.plan.trim_end() })
            }).collect::<Vec<_>>(),
            "question": question,
        }))
    }

    async fn is_direct(&self, run: &Run<'_>, question: &str) -> Result<bool> {
        let messages = self.prompts.route.render(json!({ "question": question }))?;
        let answer = self.limits.ask(run, "route", messages).await?;
        let word = answer.trim_start_matches(|letter: char| !letter.is_alphabetic()).to_uppercase();
        if !word.starts_with("DIRECT") && !word.starts_with("PLAN") {
            run.note("the answer is neither DIRECT nor PLAN: a plan is made");
        }
        Ok(word.starts_with("DIRECT"))
    }

    async fn plain(
        &self,
        run: &Run<'_>,
        document: &str,
        question: &str,
        why: PlainReason,
    ) -> Result<PearlAnswer> {
        let text = execute::plain(self, run, document, question).await?;
        Ok(PearlAnswer { text, outcome: PearlOutcome::Plain { why } })
    }
}

impl fmt::Debug for Pearl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pearl")
            .field("actions", &self.actions.len())
            .field("demonstrations", &self.demonstrations.len())
            .field("context_tokens", &self.limits.context_tokens)
            .field("attempts", &self.attempts)
            .field("routing", &self.routing)
            .finish_non_exhaustive()
    }
}
