use serde::Serialize;

use super::{Plan, PlanProblem};

/// What PEARL answers, and on which way it got there.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Pearl, PearlOutcome, PlainReason};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// // A model that cannot plan: the answer is a plain one, and says so.
/// let model = ScriptedModel::new(["Dear me.", "In 1912."]);
/// let pearl = Pearl::new(Actions::builtin()).with_attempts(1);
/// let answer = pearl.run(&model, "A report of 1912.", "When was it written?").await?.value;
///
/// assert_eq!(answer.text, "In 1912.");
/// let PearlOutcome::Plain { why: PlainReason::NoValidPlan { attempts } } = answer.outcome else { panic!() };
/// assert_eq!(attempts[0].text, "Dear me.");
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PearlAnswer {
    /// The answer: what came out of the plan and no step used, or the plain answer.
    pub text: String,
    /// How it came about.
    pub outcome: PearlOutcome,
}

/// How an answer came about.
///
/// ```
/// use llmkit_prompt::pearl::{PearlOutcome, PlainReason};
///
/// let outcome = PearlOutcome::Plain { why: PlainReason::Routed };
/// assert!(!outcome.is_planned());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PearlOutcome {
    /// By a plan.
    Planned {
        /// The plan.
        plan: Plan,
        /// What came out of each step, in order.
        outputs: Vec<String>,
    },
    /// By asking the question over the document, without a plan.
    Plain {
        /// Why there was none.
        why: PlainReason,
    },
}

impl PearlOutcome {
    /// Whether there was a plan.
    pub fn is_planned(&self) -> bool {
        matches!(self, Self::Planned { .. })
    }
}

/// Why a question was answered without a plan.
///
/// ```
/// use llmkit_prompt::pearl::PlainReason;
///
/// assert_eq!(serde_json::to_string(&PlainReason::Routed).unwrap(), "\"routed\"");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlainReason {
    /// The model wrote no plan that can be carried out.
    NoValidPlan {
        /// What it wrote.
        attempts: Vec<PlanAttempt>,
    },
    /// The question needs none: see [`Pearl::with_routing`](super::Pearl::with_routing).
    Routed,
}

/// A plan that cannot be carried out.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Pearl, Planning};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["1. a = SING(CTX)"]);
/// let pearl = Pearl::new(Actions::builtin()).with_attempts(1);
/// let Planning::Failed { attempts } = pearl.plan(&model, "Why?").await?.value else { panic!() };
/// assert_eq!(attempts[0].problems[0].to_string(), "line 1, column 8: there is no action `SING`");
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlanAttempt {
    /// What the model wrote.
    pub text: String,
    /// All that is wrong with it.
    pub problems: Vec<PlanProblem>,
}

/// What comes of planning.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Pearl, Planning};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["1. a = SING(CTX)", "1. a = SUMMARIZE(CTX) : what it is about"]);
/// let Planning::Valid { plan, attempts } = Pearl::new(Actions::builtin()).plan(&model, "Why?").await?.value else { panic!() };
/// assert_eq!((plan.steps().len(), attempts.len()), (1, 1));
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Planning {
    /// A plan that can be carried out.
    Valid {
        /// The plan.
        plan: Plan,
        /// The attempts that failed before it.
        attempts: Vec<PlanAttempt>,
    },
    /// No such plan, in as many attempts as are allowed.
    Failed {
        /// The attempts.
        attempts: Vec<PlanAttempt>,
    },
}
