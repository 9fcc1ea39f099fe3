use std::collections::HashMap;

use async_trait::async_trait;
use llmkit_core::{LanguageModel, Message};
use serde::{Deserialize, Serialize};
use serde_json::json;
use unicode_segmentation::UnicodeSegmentation;

use super::{Demonstration, Pearl, Plan, Planning, planner};
use crate::{ChatPrompt, Result, Run, Traced, builtin};

/// A question about a document, with its answer.
///
/// ```
/// use llmkit_prompt::pearl::LabelledQuestion;
///
/// let example: LabelledQuestion =
///     serde_json::from_str(r#"{"document": "It rained.", "question": "Was it dry?", "answer": "No."}"#).unwrap();
/// assert_eq!(example.answer, "No.");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledQuestion {
    /// The document.
    pub document: String,
    /// The question.
    pub question: String,
    /// What it should be answered.
    pub answer: String,
}

/// Says how good an answer is.
///
/// ```
/// use async_trait::async_trait;
/// use llmkit_prompt::pearl::{Judge, LabelledQuestion};
/// use llmkit_prompt::{Result, Run};
///
/// struct SameLetter;
///
/// #[async_trait]
/// impl Judge for SameLetter {
///     async fn score(&self, _: &Run<'_>, example: &LabelledQuestion, answer: &str) -> Result<f64> {
///         Ok(if answer.trim().starts_with(&example.answer) { 1.0 } else { 0.0 })
///     }
/// }
/// ```
#[async_trait]
pub trait Judge: Send + Sync {
    /// From 0, wrong, to 1, right. A model may be asked through `run`.
    ///
    /// # Errors
    /// Where the judge asks a model and that fails.
    async fn score(&self, run: &Run<'_>, example: &LabelledQuestion, answer: &str) -> Result<f64>;
}

/// How much of the words of the right answer and of the given one are the same: F1 over words without regard to case, as in SQuAD.
///
/// ```
/// use llmkit_prompt::pearl::WordOverlap;
///
/// assert_eq!(WordOverlap::f1("the red barn", "A red barn!"), 2.0 * 2.0 / 6.0);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct WordOverlap;

impl WordOverlap {
    /// The score.
    pub fn f1(expected: &str, answer: &str) -> f64 {
        let words = |text: &str| text.unicode_words().map(str::to_lowercase).collect::<Vec<_>>();
        let (expected, answer) = (words(expected), words(answer));
        let mut left: HashMap<&str, usize> = HashMap::new();
        expected.iter().for_each(|word| *left.entry(word).or_default() += 1);
        let same = answer.iter().filter(|word| {
            left.get_mut(word.as_str()).is_some_and(|count| {
                let there = *count > 0;
                *count = count.saturating_sub(1);
                there
            })
        });
        let same = same.count();
        if same == 0 { 0.0 } else { 2.0 * same as f64 / (expected.len() + answer.len()) as f64 }
    }
}

#[async_trait]
impl Judge for WordOverlap {
    async fn score(&self, _: &Run<'_>, example: &LabelledQuestion, answer: &str) -> Result<f64> {
        Ok(Self::f1(&example.answer, answer))
    }
}

/// Makes demonstrations: replays plans on questions with known answers, shows the model where its plan led, and keeps the best one of each
/// question, if it is good enough.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, LabelledQuestion, Pearl, Refiner, WordOverlap};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new([
///     "1. a = SUMMARIZE(CTX) : what happens", // the plan
///     "A barn burns.",                        // leads to this,
///     "1. a = FIND_CAUSE(CTX, \"the fire\")", // so there is another one,
///     "lightning",                            // which leads to the answer.
/// ]);
/// let example = LabelledQuestion {
///     document: "Lightning struck. The barn burned.".into(),
///     question: "What started the fire?".into(),
///     answer: "Lightning".into(),
/// };
/// let refiner = Refiner::new(Pearl::new(Actions::builtin()), WordOverlap);
/// let refined = refiner.run(&model, &[example]).await?.value;
/// assert_eq!(refined.replays[0].scores, [Some(0.0), Some(1.0)]);
/// assert!(refined.demonstrations[0].plan.contains("FIND_CAUSE"));
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Refiner<J> {
    pearl: Pearl,
    judge: J,
    tries: usize,
    accept: f64,
    prompt: ChatPrompt,
}

/// What came of refining.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Pearl, Refined};
///
/// fn use_them(refined: Refined) -> Pearl {
///     Pearl::new(Actions::builtin()).with_demonstrations(refined.demonstrations)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Refined {
    /// The best plan of each question for which one was good enough, in order.
    pub demonstrations: Vec<Demonstration>,
    /// What happened with each question.
    pub replays: Vec<Replay>,
}

/// What happened with one question.
///
/// ```
/// use llmkit_prompt::pearl::Replay;
///
/// fn was_improved(replay: &Replay) -> bool {
///     replay.kept.is_some_and(|kept| kept > 0)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Replay {
    /// The question.
    pub question: String,
    /// How good the answer was, try by try; none where there was no plan that can be carried out.
    pub scores: Vec<Option<f64>>,
    /// The try whose plan was kept, from 0.
    pub kept: Option<usize>,
}

impl<J: Judge> Refiner<J> {
    /// Refines plans of `pearl`, judged by `judge`.
    pub fn new(pearl: Pearl, judge: J) -> Self {
        Self { pearl, judge, tries: 4, accept: 0.5, prompt: builtin::prompt("pearl/refine") }
    }

    /// How many plans are tried for a question; default 4.
    pub fn with_tries(mut self, tries: usize) -> Self {
        self.tries = tries;
        self
    }

    /// The score from which a plan is good enough; default 0.5.
    pub fn with_accept(mut self, score: f64) -> Self {
        self.accept = score;
        self
    }

    /// Takes another prompt in place of `prompts/pearl/refine.md`; it follows the plan.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `answer`, `expected` and `feedback`.
    pub fn with_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompt = prompt.supplied_by(&["answer", "expected", "feedback"])?;
        Ok(self)
    }

    /// Replays `examples`.
    ///
    /// # Errors
    /// As [`Pearl::run`], and what the judge reports.
    pub async fn run(
        &self,
        model: &dyn LanguageModel,
        examples: &[LabelledQuestion],
    ) -> Result<Traced<Refined>> {
        let run = Run::new("pearl refine", model);
        let refined = self.run_in(&run, examples).await?;
        Ok(run.finish(refined))
    }

    /// As [`run`](Self::run), within another piece.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_in(&self, run: &Run<'_>, examples: &[LabelledQuestion]) -> Result<Refined> {
        let mut refined = Refined { demonstrations: Vec::new(), replays: Vec::new() };
        for (index, example) in examples.iter().enumerate() {
            let part = run.part(format!("question {}", index + 1));
            let replayed = self.replay(&part, example).await;
            run.include(part);
            let (replay, plan) = replayed?;
            refined.demonstrations.extend(
                plan.map(|plan| Demonstration { question: example.question.clone(), plan: plan.to_string() }),
            );
            refined.replays.push(replay);
        }
        Ok(refined)
    }

    async fn replay(&self, run: &Run<'_>, example: &LabelledQuestion) -> Result<(Replay, Option<Plan>)> {
        let opening = self.pearl.opening(&example.question)?;
        let mut best: Option<(f64, usize, Plan)> = None;
        let mut scores = Vec::new();
        // What the next plan is told about the last one.
        let mut feedback: Vec<Message> = Vec::new();
        for attempt in 0..self.tries {
            let messages = opening.iter().chain(&feedback).cloned().collect();
            let Planning::Valid { plan, .. } = planner::plan(&self.pearl, run, messages).await? else {
                run.note(format!("try {}: no plan that can be carried out", attempt + 1));
                scores.push(None);
                continue;
            };
            let outputs = self.pearl.execute_in(run, &example.document, &plan).await?;
            let answers: Vec<&str> =
                plan.answers().into_iter().map(|index| outputs[index].as_str()).collect();
            let answer = answers.join("\n\n");
            let score = self.judge.score(run, example, &answer).await?;
            run.note(format!("try {}: score {score:.3}", attempt + 1));
            scores.push(Some(score));
            feedback = vec![Message::assistant(plan.to_string())];
            feedback.extend(self.prompt.render(json!({
                "answer": answer, "expected": example.answer,
                "feedback": format!("It was judged {score:.2}, where 1 is right and 0 is wrong.")
            }))?);
            // The first of those that are equally good.
            if best.as_ref().is_none_or(|(best, _, _)| score > *best) {
                best = Some((score, attempt, plan));
            }
            if score >= self.accept {
                break;
            }
        }
        let kept = best.filter(|(score, _, _)| *score >= self.accept);
        let replay = Replay {
            question: example.question.clone(),
            scores,
            kept: kept.as_ref().map(|(_, attempt, _)| *attempt),
        };
        Ok((replay, kept.map(|(_, _, plan)| plan)))
    }
}
