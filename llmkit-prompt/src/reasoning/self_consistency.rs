use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream;
use tracing::Instrument as _;

use super::sampled::Sampled;
use super::{EarlyStop, Evidence, Reasoned, Reasoner, Vote, normalise};
use crate::run::spans;
use crate::{Error, Result, Run};

/// Self-consistency: another method is tried several times with different seeds, and the answer that comes up most often wins.
///
/// Wang et al. 2022, "Self-Consistency Improves Chain of Thought Reasoning in Language Models". Samples run side by side and count in the
/// order of their seeds, so that the outcome does not depend on which is done first. A tie goes to the answer that came first. A
/// sample that fails is counted and noted; only where all fail is that an error. The winner's [`Reasoned`] has the rationale of its first
/// sample and the [`Vote`].
///
/// Answers are the same where [`normalise`] makes them so; [`with_normaliser`](Self::with_normaliser) and
/// [`with_equivalence`](Self::with_equivalence) change that.
///
/// ```
/// use llmkit_prompt::reasoning::{EarlyStop, Extract, Reasoner, SelfConsistency, ZeroShotCot};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let method = SelfConsistency::new(ZeroShotCot::new().with_extract(Extract::Number), 5)
///     .with_concurrency(1)
///     .with_early_stop(EarlyStop::Decided);
/// let model = ScriptedModel::new(["Answer: 8", "Answer: 9", "Answer: 8", "Answer: 8.0"]);
/// let found = pollster::block_on(method.run(&model, "What is 3 + 5?"))?;
/// assert_eq!(found.value.answer, "8");
/// assert_eq!(found.value.vote().expect("it votes").to_string(), "8: 3, 9: 1 (1 samples spared)");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Clone)]
pub struct SelfConsistency<R> {
    reasoner: R,
    samples: usize,
    temperature: f32,
    seed: u64,
    concurrency: usize,
    same: Arc<Same>,
    early_stop: Option<EarlyStop>,
}

/// Whether two answers are one.
type Same = dyn Fn(&str, &str) -> bool + Send + Sync;

impl<R: Reasoner> SelfConsistency<R> {
    /// Takes `samples` samples of `reasoner` (the paper: 40; five to ten bring most of the gain), four at a time, at temperature 0.7 with
    /// the seeds from 0 on.
    pub fn new(reasoner: R, samples: usize) -> Self {
        Self {
            reasoner,
            samples,
            temperature: 0.7,
            seed: 0,
            concurrency: 4,
            same: Arc::new(|left, right| normalise(left) == normalise(right)),
            early_stop: None,
        }
    }

    /// The temperature of calls for which `reasoner` sets none, above 0; at 0 all samples would be the same. 0.7 unless set.
    pub fn with_temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// The first sample's seed; the others have those that follow. 0 unless set.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many samples run side by side, at least 1; 4 unless set.
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Compares answers by what `normaliser` makes of them.
    pub fn with_normaliser(self, normaliser: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.with_equivalence(move |left, right| normaliser(left) == normaliser(right))
    }

    /// Compares answers with `same`; an answer joins the first candidate that it is the same as.
    pub fn with_equivalence(mut self, same: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        self.same = Arc::new(same);
        self
    }

    /// Stops before all samples are taken; asked after each group of samples that ran side by side. Never, unless set.
    pub fn with_early_stop(mut self, early_stop: EarlyStop) -> Self {
        self.early_stop = Some(early_stop);
        self
    }

    fn validate(&self) -> Result<()> {
        let wrong = |setting, expected, found: String| Err(Error::Setting { setting, expected, found });
        if self.samples == 0 {
            return wrong("samples", "at least 1", "0".to_owned());
        }
        if self.concurrency == 0 {
            return wrong("concurrency", "at least 1", "0".to_owned());
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) && self.samples > 1 {
            return wrong(
                "temperature",
                "above 0, or all samples are the same",
                self.temperature.to_string(),
            );
        }
        match self.early_stop {
            Some(EarlyStop::Confident(probability)) if !(0.5..=1.0).contains(&probability) => {
                wrong("early_stop", "a probability from 0.5 to 1", probability.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Takes the samples of these numbers and includes them in `run`, in order.
    async fn take(&self, run: &Run<'_>, samples: Range<usize>, question: &str) -> Vec<Result<Reasoned>> {
        let model = |sample: usize| Sampled {
            model: run.model(),
            temperature: self.temperature,
            seed: self.seed.wrapping_add(sample as u64),
        };
        let models: Vec<Sampled<'_>> = samples.clone().map(model).collect();
        let mut parts: Vec<Run<'_>> = Vec::with_capacity(models.len());
        for (sample, model) in samples.zip(&models) {
            let part = run.part_on(format!("sample {}", sample + 1), model);
            part.note(model.describe());
            parts.push(part);
        }
        let attempts: Vec<_> = parts
            .iter()
            .map(|part| self.reasoner.run_in(part, question).instrument(part.span().clone()))
            .collect();
        let outcomes: Vec<Result<Reasoned>> =
            stream::iter(attempts).buffered(self.concurrency).collect().await;
        for (part, outcome) in parts.into_iter().zip(&outcomes) {
            if let Err(error) = outcome {
                spans::failed(part.span(), &spans::kind(error));
            }
            run.include(part);
        }
        outcomes
    }
}

impl<R: Reasoner> fmt::Debug for SelfConsistency<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfConsistency")
            .field("reasoner", &self.reasoner.name())
            .field("samples", &self.samples)
            .field("temperature", &self.temperature)
            .field("seed", &self.seed)
            .field("concurrency", &self.concurrency)
            .field("early_stop", &self.early_stop)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<R: Reasoner> Reasoner for SelfConsistency<R> {
    fn name(&self) -> &str {
        "self-consistency"
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        self.validate()?;
        let group = if self.early_stop.is_some() { self.concurrency } else { self.samples };
        let mut vote = Vote::default();
        let mut found: Vec<Option<Reasoned>> = Vec::new();
        let mut errors: Vec<Error> = Vec::new();
        while vote.samples < self.samples {
            let end = vote.samples.saturating_add(group).min(self.samples);
            for outcome in self.take(run, vote.samples..end, question).await {
                let reasoned = outcome
                    .map_err(|error| {
                        run.note(format!("sample {} gave no answer: {error}", vote.samples + 1));
                        errors.push(error);
                    })
                    .ok();
                vote.add(reasoned.as_ref().map(|reasoned| reasoned.answer.clone()), &*self.same);
                found.push(reasoned);
            }
            let remaining = self.samples - vote.samples;
            let (first, second) = vote.leaders();
            if self.early_stop.is_some_and(|stop| stop.is_reached(first, second, remaining)) {
                vote.spared = remaining;
                break;
            }
        }
        let Some(winner) = vote.candidates.first() else {
            return Err(Error::AllSamplesFailed {
                method: self.name().to_owned(),
                reasons: errors.iter().map(ToString::to_string).collect(),
                source: Box::new(errors.swap_remove(0)),
            });
        };
        if vote.is_tie() {
            run.note(format!("the vote is a tie; {} came first", winner.answer));
        }
        run.note(format!("votes: {vote}"));
        let winner = found.swap_remove(winner.first).expect("a candidate comes from a sample that answered");
        Ok(winner.with_evidence(Evidence::Vote(vote)))
    }
}
