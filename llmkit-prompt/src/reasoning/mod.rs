//! Ways of reasoning: one question, several calls of a model, one answer with its reasons.
//!
//! Every method is a [`Reasoner`], so they compose: [`SelfConsistency`] votes over samples of any other, [`VerifiedReasoner`] has any other
//! checked. Each tells in its [`Trace`](crate::Trace) which calls it made, and its prompts are files that you can read
//! ([`builtin::prompt`](crate::builtin::prompt)) and replace (`with_prompt`).
//!
//! ```
//! use llmkit_prompt::reasoning::{Extract, Reasoner, SelfConsistency, ZeroShotCot};
//! use llmkit_prompt::testing::ScriptedModel;
//!
//! # fn main() -> llmkit_prompt::Result<()> {
//! let model = ScriptedModel::new([
//!     "3 boxes of 4 eggs are 12 eggs.\nAnswer: 12",
//!     "3 + 4 = 7 eggs.\nAnswer: 7",
//!     "4 and 4 and 4 make 12.\nAnswer: 12",
//! ]);
//! let method = SelfConsistency::new(ZeroShotCot::new().with_extract(Extract::Number), 3);
//! let found = pollster::block_on(method.run(&model, "How many eggs are in 3 boxes of 4?"))?;
//!
//! assert_eq!(found.value.answer, "12");
//! assert_eq!(found.value.rationale, "3 boxes of 4 eggs are 12 eggs.\nAnswer: 12");
//! assert_eq!(found.trace.calls().count(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Which one
//!
//! | Method | Calls | What it does |
//! |---|---|---|
//! | [`ZeroShotCot`] | 1 or 2 | thinks aloud, then answers |
//! | [`FewShotCot`] | 1 | imitates worked examples |
//! | [`PlanAndSolve`] | 1 or 2 | plans first, careful with quantities |
//! | [`StepBack`] | 3 | first asks for the principle behind the question |
//! | [`LeastToMost`] | 2 + parts | solves easier questions first |
//! | [`SelfConsistency`] | samples × inner | takes the majority of several attempts |
//! | [`TreeOfThoughts`] | many | searches among partial solutions |
//! | [`VerifiedReasoner`] | inner + revisions | revises only what a check from outside rejects |
//!
//! Reasoning with tools (ReAct) is an agent's: see [`agent`](crate::agent).
//!
//! Models below a few billion parameters seldom gain from any of this, and may lose; measure on your own questions
//! (`examples/reason.rs` is a start).

mod answer;
mod chain;
mod few_shot;
mod least_to_most;
mod list;
mod number;
mod outcome;
mod plan_and_solve;
mod sampled;
mod self_consistency;
mod step_back;
mod thoughts;
mod verified;
mod vote;
mod zero_shot;

use async_trait::async_trait;
use llmkit_core::LanguageModel;
use tracing::Instrument as _;

use crate::run::spans;
use crate::{Result, Run, Traced};

pub use answer::{Extract, normalise};
pub use few_shot::{FewShotCot, WorkedExample};
pub use least_to_most::LeastToMost;
pub use outcome::{Evidence, Reasoned, Revision, Step};
pub use plan_and_solve::PlanAndSolve;
pub use self_consistency::SelfConsistency;
pub use step_back::StepBack;
pub use thoughts::{Evaluate, Generate, Search, Thought, ThoughtState, ThoughtTree, TreeOfThoughts};
pub use verified::{Verdict, VerifiedReasoner, Verifier};
pub use vote::{Candidate, EarlyStop, Vote};
pub use zero_shot::ZeroShotCot;

/// A way to answer a question by reasoning.
///
/// Write your own by implementing [`name`](Self::name) and [`run_in`](Self::run_in); it composes with the others.
///
/// ```
/// use async_trait::async_trait;
/// use llmkit_core::{ChatRequest, Message};
/// use llmkit_prompt::reasoning::{Reasoned, Reasoner, SelfConsistency};
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::{Result, Run};
///
/// struct Blunt;
///
/// #[async_trait]
/// impl Reasoner for Blunt {
///     fn name(&self) -> &str {
///         "blunt"
///     }
///
///     async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
///         let reply = run.chat("answer", ChatRequest::new(vec![Message::user(question)])).await?;
///         Ok(Reasoned::new(reply.message.content, ""))
///     }
/// }
///
/// let model = ScriptedModel::new(["Yes", "No", "yes."]);
/// let found = pollster::block_on(SelfConsistency::new(Blunt, 3).run(&model, "Is water wet?"))?;
/// assert_eq!(found.value.answer, "Yes");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[async_trait]
pub trait Reasoner: Send + Sync {
    /// What the method is called in traces and errors.
    fn name(&self) -> &str;

    /// Answers `question` as a part of `run`.
    ///
    /// # Errors
    /// What the model reports, and [`Error::NoAnswer`](crate::Error::NoAnswer) where it gives no answer of the expected form.
    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned>;

    /// Answers `question` with `model`.
    ///
    /// # Errors
    /// As [`run_in`](Self::run_in).
    async fn run(&self, model: &dyn LanguageModel, question: &str) -> Result<Traced<Reasoned>> {
        let run = Run::new(self.name(), model);
        let outcome = self.run_in(&run, question).instrument(run.span().clone()).await;
        let reasoned = spans::ended(run.span(), outcome)?;
        Ok(run.finish(reasoned))
    }
}

#[async_trait]
impl<R: Reasoner + ?Sized> Reasoner for Box<R> {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        (**self).run_in(run, question).await
    }
}

#[async_trait]
impl<R: Reasoner + ?Sized> Reasoner for std::sync::Arc<R> {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        (**self).run_in(run, question).await
    }
}

#[async_trait]
impl<R: Reasoner + ?Sized> Reasoner for &R {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        (**self).run_in(run, question).await
    }
}
