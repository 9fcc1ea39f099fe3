use serde::Serialize;

use super::thoughts::ThoughtTree;
use super::verified::Verdict;
use super::vote::Vote;

/// What a [`Reasoner`](super::Reasoner) found.
///
/// ```
/// use llmkit_prompt::reasoning::Reasoned;
///
/// let found = Reasoned::new("7", "3 and 4 make 7.");
/// assert_eq!(found.answer, "7");
/// assert!(found.vote().is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reasoned {
    /// The answer alone, as the method's [`Extract`](super::Extract) found it.
    pub answer: String,
    /// The text that led to it, as the model wrote it, thoughts first.
    pub rationale: String,
    /// What else the method has to show for it.
    pub evidence: Evidence,
}

/// What a method has to show besides its answer.
///
/// ```
/// use llmkit_prompt::reasoning::{Evidence, LeastToMost, Reasoner};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let model = ScriptedModel::new(["1. How many are in a box?", "4.", "3 * 4\nAnswer: 12"]);
/// let found = pollster::block_on(LeastToMost::new().run(&model, "How many are in 3 boxes of 4?"))?;
/// let Evidence::Steps(steps) = &found.value.evidence else { panic!() };
/// assert_eq!(steps[0].answer, "4.");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Evidence {
    /// Nothing.
    None,
    /// How the samples voted ([`SelfConsistency`](super::SelfConsistency)).
    Vote(Vote),
    /// The questions that were answered on the way ([`LeastToMost`](super::LeastToMost), [`StepBack`](super::StepBack)).
    Steps(Vec<Step>),
    /// The partial solutions that were looked at ([`TreeOfThoughts`](super::TreeOfThoughts)).
    Tree(ThoughtTree),
    /// What was checked, the first answer included ([`VerifiedReasoner`](super::VerifiedReasoner)).
    Revisions(Vec<Revision>),
}

/// A question that was answered on the way, and its answer.
///
/// ```
/// use llmkit_prompt::reasoning::{Reasoner, StepBack};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let model = ScriptedModel::new([
///     "How does pressure depend on temperature?",
///     "At fixed volume it is proportional to it.",
///     "It doubles too.\nAnswer: it doubles",
/// ]);
/// let found = pollster::block_on(StepBack::new().run(&model, "The temperature of a gas doubles; its pressure?"))?;
/// assert_eq!(found.value.steps()[0].question, "How does pressure depend on temperature?");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// The question.
    pub question: String,
    /// The model's answer.
    pub answer: String,
}

/// An answer and what the verifier said about it.
///
/// ```
/// use llmkit_prompt::reasoning::{Extract, Reasoned, Reasoner, Verdict, VerifiedReasoner, ZeroShotCot};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let even = |_: &str, found: &Reasoned| match found.answer.parse::<i64>() {
///     Ok(number) if number % 2 == 0 => Verdict::pass(),
///     _ => Verdict::fail("the answer must be an even number"),
/// };
/// let method = VerifiedReasoner::new(ZeroShotCot::new().with_extract(Extract::Number), even);
/// let model = ScriptedModel::new(["Answer: 3", "Answer: 4"]);
/// let found = pollster::block_on(method.run(&model, "Name an even number."))?;
/// assert_eq!(found.value.answer, "4");
/// assert_eq!(found.value.revisions()[0].verdict.feedback, "the answer must be an even number");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Revision {
    /// The answer.
    pub answer: String,
    /// What the verifier said.
    pub verdict: Verdict,
    /// Whether this answer was kept in favour of those before.
    pub kept: bool,
}

impl Reasoned {
    /// An answer and the text that led to it.
    pub fn new(answer: impl Into<String>, rationale: impl Into<String>) -> Self {
        Self { answer: answer.into(), rationale: rationale.into(), evidence: Evidence::None }
    }

    /// The same with something to show for it.
    pub fn with_evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// How the samples voted, if they did.
    pub fn vote(&self) -> Option<&Vote> {
        match &self.evidence {
            Evidence::Vote(vote) => Some(vote),
            _ => None,
        }
    }

    /// The questions that were answered on the way; empty where there were none.
    pub fn steps(&self) -> &[Step] {
        match &self.evidence {
            Evidence::Steps(steps) => steps,
            _ => &[],
        }
    }

    /// The partial solutions that were looked at, if the method searched.
    pub fn tree(&self) -> Option<&ThoughtTree> {
        match &self.evidence {
            Evidence::Tree(tree) => Some(tree),
            _ => None,
        }
    }

    /// What was checked; empty where nothing was.
    pub fn revisions(&self) -> &[Revision] {
        match &self.evidence {
            Evidence::Revisions(revisions) => revisions,
            _ => &[],
        }
    }
}
