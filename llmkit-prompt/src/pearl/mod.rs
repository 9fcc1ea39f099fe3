//! Questions about long documents, answered by plan: PEARL ([Sun et al. 2023](https://arxiv.org/abs/2305.14564)).
//!
//! A model that does not see the document writes a plan in a small language of actions; the plan is checked line by line and written again
//! until nothing is wrong with it; then each step is carried out on the document, independent steps side by side.
//!
//! ```
//! use llmkit_prompt::pearl::{Actions, Pearl, PearlOutcome};
//! use llmkit_prompt::testing::ScriptedModel;
//!
//! # pollster::block_on(async {
//! let model = ScriptedModel::from_fn(|request| {
//!     let prompt = &request.messages[1].content;
//!     if prompt.starts_with("These are the actions") {
//!         "1. early = FIND_PASSAGES(CTX, \"Anna in chapter 1\") : how she begins\n\
//!          2. late = FIND_PASSAGES(CTX, \"Anna in chapter 9\") : how she ends\n\
//!          3. change = COMPARE(CTX, early, late) : the answer"
//!     } else if prompt.contains("chapter 1\n") { "She trusts everybody." }
//!     else if prompt.contains("chapter 9\n") { "She trusts nobody." }
//!     else { "She has learned to doubt." }
//! });
//! let pearl = Pearl::new(Actions::builtin());
//! let answer = pearl.run(&model, "A long novel about Anna.", "How does Anna change?").await?;
//!
//! assert_eq!(answer.value.text, "She has learned to doubt.");
//! let PearlOutcome::Planned { plan, .. } = answer.value.outcome else { panic!("no plan") };
//! assert_eq!(plan.levels(), [vec![0, 1], vec![2]]);
//! # Ok::<(), llmkit_prompt::Error>(())
//! # }).unwrap();
//! ```
//!
//! The stages, each usable by itself:
//!
//! 1. [`Miner`]: finds actions in questions of your own, and tidies the list ([`Actions`]).
//! 2. [`Pearl::plan`]: writes a [`Plan`]; all that is wrong with it ([`PlanProblem`]) goes back to the model, at most 8 times.
//! 3. [`Pearl::execute`]: carries it out. A document that is longer than what the model reads at once is gone through part by part in each
//!    step, and what the parts gave is made one.
//! 4. [`Refiner`]: replays plans on questions with known answers, and keeps those that lead there as demonstrations.
//!
//! On GPT-4 and the questions of QuALITY that need much of the text, planning raised the answers from 57.9 to 63.8; on the others it
//! lowered them from 79.1 to 76.7 (so the paper). [`Pearl::with_routing`] lets the model say which is which.

mod action;
mod answer;
mod demonstration;
mod execute;
mod line;
mod mine;
mod parse;
mod pipeline;
mod plan;
mod planner;
mod refine;

pub use action::{Action, Actions, CONCAT, DOCUMENT};
pub use answer::{PearlAnswer, PearlOutcome, PlainReason, PlanAttempt, Planning};
pub use demonstration::Demonstration;
pub use mine::Miner;
pub use pipeline::Pearl;
pub use plan::{Argument, Plan, PlanFault, PlanProblem, Step};
pub use refine::{Judge, LabelledQuestion, Refined, Refiner, Replay, WordOverlap};
