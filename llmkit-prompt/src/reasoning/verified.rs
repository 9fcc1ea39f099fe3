use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::Instrument as _;

use super::chain::reason;
use super::{Evidence, Extract, Reasoned, Reasoner, Revision};
use crate::run::spans;
use crate::{ChatPrompt, Error, Result, Run, builtin};

/// Says whether an answer holds, by something that the answer's model does not control: a test that runs, a schema, a lookup, a proof
/// checker, a passage that must entail it.
///
/// Any function of the question and the answer is one (see [`VerifiedReasoner`]); implement the trait where the check is asynchronous or
/// itself asks a model.
///
/// ```
/// use async_trait::async_trait;
/// use llmkit_prompt::reasoning::{Reasoned, Reasoner, Verdict, VerifiedReasoner, Verifier, ZeroShotCot};
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::{Result, Run};
///
/// struct Atlas(&'static [&'static str]);
///
/// #[async_trait]
/// impl Verifier for Atlas {
///     async fn verify(&self, _: &Run<'_>, _: &str, found: &Reasoned) -> Result<Verdict> {
///         Ok(match self.0.contains(&found.answer.as_str()) {
///             true => Verdict::pass(),
///             false => Verdict::fail(format!("the atlas knows no river called {}", found.answer)),
///         })
///     }
/// }
///
/// let method = VerifiedReasoner::new(ZeroShotCot::new(), Atlas(&["Loire", "Seine"]));
/// let model = ScriptedModel::new(["Answer: Danube", "Answer: Seine"]);
/// let found = pollster::block_on(method.run(&model, "Which river flows through Paris?"))?;
/// assert_eq!(found.value.answer, "Seine");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[async_trait]
pub trait Verifier: Send + Sync {
    /// Judges what was found for `question`. Calls of a model go through `run`, so that they are counted.
    ///
    /// # Errors
    /// Where nothing can be said; the reasoning fails with it.
    async fn verify(&self, run: &Run<'_>, question: &str, found: &Reasoned) -> Result<Verdict>;
}

#[async_trait]
impl<F: Fn(&str, &Reasoned) -> Verdict + Send + Sync> Verifier for F {
    async fn verify(&self, _: &Run<'_>, question: &str, found: &Reasoned) -> Result<Verdict> {
        Ok(self(question, found))
    }
}

/// What a [`Verifier`] says.
///
/// ```
/// use llmkit_prompt::reasoning::Verdict;
///
/// let one = Verdict::fail("2 of 3 tests fail").with_score(1.0 / 3.0);
/// let two = Verdict::fail("1 of 3 tests fails").with_score(2.0 / 3.0);
/// assert!(two.improves_on(&one));
/// assert!(Verdict::pass().improves_on(&two));
/// assert!(!Verdict::fail("something else").improves_on(&Verdict::fail("something")));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether the answer holds.
    pub accepted: bool,
    /// How good it is, where that can be told; higher is better, on the verifier's own scale. 1 for [`pass`](Self::pass) and 0 for
    /// [`fail`](Self::fail) unless set.
    pub score: f64,
    /// What is wrong with it, for the model to read.
    pub feedback: String,
}

impl Verdict {
    /// The answer holds.
    pub fn pass() -> Self {
        Self { accepted: true, score: 1.0, feedback: String::new() }
    }

    /// The answer does not hold, for the reason that the model is told.
    pub fn fail(feedback: impl Into<String>) -> Self {
        Self { accepted: false, score: 0.0, feedback: feedback.into() }
    }

    /// The same with a score.
    pub fn with_score(mut self, score: f64) -> Self {
        self.score = score;
        self
    }

    /// Whether this is strictly better: accepted where the other is not, else of a higher score. A score that is not a number is never
    /// better.
    pub fn improves_on(&self, other: &Self) -> bool {
        match (self.accepted, other.accepted) {
            (true, false) => true,
            (false, true) => false,
            _ => self.score > other.score,
        }
    }
}

/// Revises an answer only where a check from outside rejects it, and keeps a revision only where the check finds it better.
///
/// A model that is merely asked to reconsider more often spoils a right answer than mends a wrong one: Huang et al. 2023, "Large
/// Language Models Cannot Self-Correct Reasoning Yet", saw GPT-4 fall from 95.5 % to 91.5 % and 89.0 % on GSM8K in two rounds. So there
/// is no revision here without a [`Verifier`].
///
/// An answer that is still rejected after the last revision is given back as the best there was; its last kept
/// [`Revision`] has the verdict, and the trace says so. [`strict`](Self::strict) makes it an error.
///
/// Prompt: `reasoning/revise`.
///
/// ```
/// use llmkit_prompt::reasoning::{Extract, Reasoned, Reasoner, Verdict, VerifiedReasoner, ZeroShotCot};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// // A root is checked by putting it in.
/// let root = |_: &str, found: &Reasoned| {
///     let x: f64 = found.answer.parse().unwrap_or(f64::NAN);
///     let value = x * x - 5.0 * x + 6.0;
///     if value == 0.0 { Verdict::pass() } else { Verdict::fail(format!("there the left side is {value}, not 0")) }
/// };
/// let method =
///     VerifiedReasoner::new(ZeroShotCot::new().with_extract(Extract::Number), root).with_extract(Extract::Number);
/// let model = ScriptedModel::new(["Answer: 1", "Answer: 2"]);
/// let found = pollster::block_on(method.run(&model, "Give a root of x^2 - 5x + 6 = 0."))?;
/// assert_eq!(found.value.answer, "2");
/// assert!(model.requests()[1].messages[0].content.contains("there the left side is 2, not 0"));
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Clone)]
pub struct VerifiedReasoner<R, V> {
    reasoner: R,
    verifier: V,
    prompt: ChatPrompt,
    extract: Extract,
    revisions: usize,
    strict: bool,
}

const SUPPLIED: [&str; 7] = ["question", "rationale", "answer", "feedback", "rejected", "kind", "detail"];

impl<R: Reasoner, V: Verifier> VerifiedReasoner<R, V> {
    /// Has `verifier` check what `reasoner` finds, with at most two revisions.
    pub fn new(reasoner: R, verifier: V) -> Self {
        Self {
            reasoner,
            verifier,
            prompt: builtin::prompt("reasoning/revise"),
            extract: Extract::Text,
            revisions: 2,
            strict: false,
        }
    }

    /// How the answer is found in a revision; [`Extract::Text`] unless set. Give it what `reasoner` has.
    pub fn with_extract(mut self, extract: Extract) -> Self {
        self.extract = extract;
        self
    }

    /// The most revisions; 2 unless set. With 0 the answer is only checked.
    pub fn with_revisions(mut self, revisions: usize) -> Self {
        self.revisions = revisions;
        self
    }

    /// Makes an answer that the verifier never accepted an [`Error::NotVerified`].
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Another prompt for revisions; it may use `question`, `rationale`, `answer`, `feedback`, `rejected` (other answers that failed), `kind`
    /// and `detail`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] where it wants something else.
    pub fn with_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompt = prompt.supplied_by(&SUPPLIED)?;
        Ok(self)
    }
}

impl<R: Reasoner, V> fmt::Debug for VerifiedReasoner<R, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedReasoner")
            .field("reasoner", &self.reasoner.name())
            .field("extract", &self.extract)
            .field("revisions", &self.revisions)
            .field("strict", &self.strict)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<R: Reasoner, V: Verifier> Reasoner for VerifiedReasoner<R, V> {
    fn name(&self) -> &str {
        "verified"
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        let part = run.part(self.reasoner.name());
        let first = self.reasoner.run_in(&part, question).instrument(part.span().clone()).await;
        let first = spans::ended(part.span(), first);
        run.include(part);
        let mut best = first?;
        let mut verdict = self.verifier.verify(run, question, &best).await?;
        let mut history =
            vec![Revision { answer: best.answer.clone(), verdict: verdict.clone(), kept: true }];
        // Without these a model that always takes the likeliest token would write the same revision again.
        let mut rejected: Vec<String> = Vec::new();
        for _ in 0..self.revisions {
            if verdict.accepted {
                break;
            }
            let messages = self.prompt.render(json!({
                "question": question,
                "rationale": best.rationale,
                "answer": best.answer,
                "feedback": verdict.feedback,
                "rejected": rejected,
                "kind": self.extract.kind(),
                "detail": self.extract.detail(),
            }))?;
            let revised = match reason(run, self.name(), messages, &self.extract, None).await {
                Ok(revised) => revised,
                Err(error @ Error::NoAnswer { .. }) => {
                    run.note(format!("the revision is passed over: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let judged = self.verifier.verify(run, question, &revised).await?;
            let kept = judged.improves_on(&verdict);
            history.push(Revision { answer: revised.answer.clone(), verdict: judged.clone(), kept });
            if kept {
                rejected.push(std::mem::replace(&mut best, revised).answer);
                verdict = judged;
            } else {
                run.note(format!(
                    "the revision {} is no better by the verifier and is dropped",
                    revised.answer
                ));
                rejected.push(revised.answer);
            }
        }
        if !verdict.accepted {
            if self.strict {
                return Err(Error::NotVerified { answer: best.answer, feedback: verdict.feedback });
            }
            run.note(format!("the verifier did not accept any answer; {} is the best", best.answer));
        }
        Ok(best.with_evidence(Evidence::Revisions(history)))
    }
}
