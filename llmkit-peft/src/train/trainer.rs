use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use llmkit_core::Adapter;
use llmkit_core::models::CausalLm;

use super::checkpoint::{self, Position};
use super::{AdamW, Evaluation, Gradients, Objective, Score, StepOptions, TrainConfig};
use crate::data::batch_order;
use crate::dropout::derive;
use crate::{Error, PeftModule, Progress, Result};

/// Trains an adapter on a frozen model, for the [`Objective`] that the model is: a language model predicts the next token, a
/// [`SequenceClassifier`](llmkit_core::models::SequenceClassifier) its labels.
///
/// One seed fixes everything: on the CPU the same run gives the same bits, and a run that was interrupted and resumed gives the bits of
/// one that was not.
#[derive(Debug)]
pub struct Trainer<A, O: ?Sized = dyn CausalLm> {
    model: Arc<O>,
    /// Gone only while the optimizer holds it.
    adapter: Option<A>,
    optimizer: AdamW,
    config: TrainConfig,
    checkpoints: Option<PathBuf>,
    position: Position,
    resumed_from: Option<PathBuf>,
    stop: Arc<AtomicBool>,
    /// Whether every parameter was seen to get a gradient.
    checked: bool,
}

/// Why there is an adapter.
const BETWEEN_STEPS: &str = "the adapter is away only during an optimizer step";

/// What one optimizer step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The step, from 1.
    pub step: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// The mean loss: of tokens and classes the negative log-likelihood, in nats.
    pub loss: f64,
    /// The global norm of the gradients, before clipping.
    pub grad_norm: f64,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// Tokens read, padding included.
    pub tokens: usize,
    /// Tokens or labels learned.
    pub targets: usize,
    /// How long the step took, in seconds.
    pub seconds: f64,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Optimizer steps made, those before a resume included.
    pub steps: usize,
    /// The mean loss over the steps of this run.
    pub mean_loss: f64,
    /// The mean loss on the held-out data at the end, if there is any.
    pub heldout_loss: Option<f64>,
    /// The share of the held-out labels told right at the end, where the objective decides between some.
    pub heldout_accuracy: Option<f64>,
    /// The last checkpoint written.
    pub checkpoint: Option<PathBuf>,
    /// Whether the run was stopped before its last step.
    pub interrupted: bool,
}

/// Watches a run. Every method has a default that does nothing.
pub trait Observer {
    /// A step is done; breaking stops the run as [`Trainer::stop_flag`] does.
    fn step(&mut self, _report: &StepReport) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// The held-out data was scored after `step` steps.
    fn evaluated(&mut self, _step: usize, _evaluation: &Evaluation) {}

    /// A checkpoint was written.
    fn saved(&mut self, _folder: &std::path::Path) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

impl<A: PeftModule, O: Objective + ?Sized> Trainer<A, O> {
    /// Prepares to train `adapter` on `model`.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range.
    pub fn new(model: Arc<O>, adapter: A, config: TrainConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            model,
            adapter: Some(adapter.train()),
            optimizer: AdamW::new(config.adamw),
            config,
            checkpoints: None,
            position: Position::default(),
            resumed_from: None,
            stop: Arc::default(),
            checked: false,
        })
    }

    /// Writes checkpoints into `folder`, as `checkpoint-STEP`.
    pub fn with_checkpoints(self, folder: impl Into<PathBuf>) -> Self {
        Self { checkpoints: Some(folder.into()), ..self }
    }

    /// Goes on from a checkpoint: `adapter` must be the one that was loaded from the same folder.
    ///
    /// # Errors
    /// [`Error::Resume`] if the checkpoint was written with other settings or another adapter; [`Error::Core`] if a file is missing or
    /// malformed.
    pub fn resume(self, folder: impl AsRef<std::path::Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let adapter = self.current().valid().load_training_state(folder)?.train();
        let (optimizer, position) = checkpoint::load(folder, &adapter, &self.config)?;
        Ok(Self {
            adapter: Some(adapter),
            optimizer,
            position,
            resumed_from: Some(folder.to_path_buf()),
            ..self
        })
    }

    /// Setting this, from another thread or a signal handler, ends the run after the step under way, with a checkpoint where there is a
    /// folder for it.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// The adapter as it is now, ready for inference.
    pub fn adapter(&self) -> A {
        self.current().valid()
    }

    /// Ends training.
    pub fn into_adapter(self) -> A {
        self.adapter.expect(BETWEEN_STEPS).valid()
    }

    fn current(&self) -> &A {
        self.adapter.as_ref().expect(BETWEEN_STEPS)
    }

    /// Names the trainable parameters that a batch of `examples` gives no gradient.
    ///
    /// # Errors
    /// [`Error::NoGradient`] if there are any: training would silently leave them as they are.
    pub fn preflight(&self, examples: &[&O::Example]) -> Result<()> {
        let batch = self.model.batch(examples);
        let output = self.model.loss_and_gradients(self.current(), &batch, self.options());
        self.check_gradients(&output.gradients)
    }

    fn check_gradients(&self, gradients: &Gradients) -> Result<()> {
        let names = self.current().parameter_names().into_iter();
        let names: Vec<_> =
            names.filter(|(id, _)| gradients.get(*id).is_none()).map(|(_, name)| name).collect();
        if names.is_empty() { Ok(()) } else { Err(Error::NoGradient { names }) }
    }

    /// Scores `examples`, without dropout.
    ///
    /// # Errors
    /// [`Error::NoData`] if nothing of them is learned, [`Error::Example`] if the model can't read one.
    pub fn evaluate(&self, examples: &[O::Example]) -> Result<Evaluation> {
        let TrainConfig { batch_size, loss_chunk, .. } = self.config;
        evaluate(self.model.as_ref(), &self.current().valid(), examples, batch_size, loss_chunk)
    }

    /// Trains on `train` until the last step, or until it is stopped, and scores `heldout` (which may be empty) as the configuration
    /// says.
    ///
    /// # Errors
    /// [`Error::NoData`] if nothing is learned, [`Error::Example`] if the model can't read an example, [`Error::NoGradient`] before the first step, [`Error::NotFinite`] when training
    /// diverges (the adapter stays as it was before that step), [`Error::Resume`] if the data is not that of the resumed checkpoint,
    /// [`Error::Core`] when a checkpoint can't be written.
    pub fn fit(
        &mut self,
        train: &[O::Example],
        heldout: &[O::Example],
        observer: &mut dyn Observer,
    ) -> Result<Report> {
        if train.iter().all(|example| self.model.targets(example) == 0) {
            return Err(Error::NoData { reason: "no example has a token or label to learn".into() });
        }
        check(self.model.as_ref(), self.current(), train)?;
        check(self.model.as_ref(), self.current(), heldout)?;
        let data = self.fingerprint(train);
        if self.optimizer.steps() > 0 && self.position.data != data {
            return Err(Error::Resume {
                path: self.resumed_from.clone().unwrap_or_default(),
                reason: "the training data is not what it was when the checkpoint was written".into(),
            });
        }
        self.position.data = data;
        let total_steps = self.config.total_steps(train.len());
        let schedule = self.config.schedule(total_steps);
        let lengths: Vec<usize> = train.iter().map(|example| self.model.tokens(example)).collect();
        let mut report = Report {
            steps: self.optimizer.steps(),
            mean_loss: 0.0,
            heldout_loss: None,
            heldout_accuracy: None,
            checkpoint: None,
            interrupted: false,
        };
        let mut losses = Vec::new();

        'run: while report.steps < total_steps {
            let order = batch_order(&lengths, self.config.batch_size, self.config.seed, self.position.epoch);
            let step_batches: Vec<_> = order.chunks(self.config.accumulate).collect();
            while let Some(batches) = step_batches.get(self.position.step_in_epoch) {
                if report.steps == total_steps {
                    break 'run;
                }
                let step =
                    self.step(train, batches, schedule.at(report.steps), report.steps + 1, total_steps)?;
                self.position.step_in_epoch += 1;
                report.steps += 1;
                if step.targets > 0 {
                    losses.push(step.loss);
                }
                let stop = observer.step(&step).is_break() || self.stop.load(Ordering::Relaxed);

                let due = |every: usize| every > 0 && report.steps.is_multiple_of(every);
                let last = report.steps == total_steps;
                if due(self.config.eval_every) && !last && !heldout.is_empty() {
                    observer.evaluated(report.steps, &self.evaluate(heldout)?);
                }
                if due(self.config.checkpoint_every) || (stop && !last) {
                    report.checkpoint = self.save_checkpoint(report.steps, observer)?;
                }
                if stop && !last {
                    report.interrupted = true;
                    break 'run;
                }
            }
            self.position = Position { epoch: self.position.epoch + 1, step_in_epoch: 0, data };
        }

        report.mean_loss = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        if !report.interrupted && !heldout.is_empty() {
            let evaluation = self.evaluate(heldout)?;
            observer.evaluated(report.steps, &evaluation);
            report.heldout_loss = Some(evaluation.loss);
            report.heldout_accuracy = evaluation.accuracy;
        }
        Ok(report)
    }

    fn step(
        &mut self,
        train: &[O::Example],
        batches: &[Vec<usize>],
        learning_rate: f64,
        step: usize,
        total_steps: usize,
    ) -> Result<StepReport> {
        let begin = Instant::now();
        let mut gradients = Gradients::new();
        let (mut loss_sum, mut targets, mut tokens) = (0.0, 0, 0);
        for (index, batch) in batches.iter().enumerate() {
            let examples: Vec<_> = batch.iter().map(|example| &train[*example]).collect();
            let batch = self.model.batch(&examples);
            let dropout_seed = derive(derive(self.config.seed, step as u64), index as u64);
            let adapter = self.current().clone().with_dropout_seed(Some(dropout_seed));
            let output = self.model.loss_and_gradients(&adapter, &batch, self.options());
            gradients.merge(output.gradients);
            loss_sum += output.loss_sum;
            targets += output.targets;
            tokens += output.tokens;
        }
        if targets == 0 {
            // Nothing to learn: everything stays as it is, but the step counts, so that the schedule keeps its length.
            self.optimizer.skip();
            let seconds = begin.elapsed().as_secs_f64();
            let (loss, grad_norm) = (0.0, 0.0);
            return Ok(StepReport {
                step,
                total_steps,
                loss,
                grad_norm,
                learning_rate,
                tokens,
                targets,
                seconds,
            });
        }
        let per_target = 1.0 / targets as f64;
        let loss = loss_sum * per_target;
        finite(step, "loss", loss)?;
        if !self.checked {
            self.check_gradients(&gradients)?;
            self.checked = true;
        }
        gradients.scale(per_target);
        if let Some(penalty) = self.current().penalty() {
            gradients.accumulate(self.current(), penalty.backward());
        }
        let grad_norm = if self.config.max_grad_norm > 0.0 {
            gradients.clip_global_norm(self.config.max_grad_norm)
        } else {
            gradients.global_norm()
        };
        finite(step, "gradient norm", grad_norm)?;
        let factors = self.current().learning_rate_factors();
        // Moved, not cloned: each parameter's old values are freed as it moves, which counts where the whole model trains.
        let adapter = self.adapter.take().expect(BETWEEN_STEPS);
        let adapter = self.optimizer.step_at(adapter, &gradients, learning_rate, &factors);
        let progress = Progress { step, total_steps, gradients: &gradients };
        self.adapter = Some(adapter.after_step(&progress));
        let seconds = begin.elapsed().as_secs_f64();
        Ok(StepReport { step, total_steps, loss, grad_norm, learning_rate, tokens, targets, seconds })
    }

    /// Equal for equal data in equal order, and otherwise almost never.
    fn fingerprint(&self, examples: &[O::Example]) -> u64 {
        let start = examples.len() as u64;
        examples.iter().fold(start, |hash, example| self.model.fingerprint(example, hash))
    }

    fn options(&self) -> StepOptions {
        StepOptions { recompute: self.config.recompute, loss_chunk: self.config.loss_chunk }
    }

    fn save_checkpoint(&self, step: usize, observer: &mut dyn Observer) -> Result<Option<PathBuf>> {
        let Some(folder) = &self.checkpoints else { return Ok(None) };
        let position = self.position;
        let written =
            checkpoint::save(folder, step, &self.current().valid(), &self.optimizer, position, &self.config)?;
        observer.saved(&written);
        checkpoint::prune(folder, step, self.config.keep_checkpoints)?;
        Ok(Some(written))
    }
}

/// Refuses examples that the model can't read with this adapter.
fn check<O: Objective + ?Sized>(objective: &O, adapter: &dyn Adapter, examples: &[O::Example]) -> Result<()> {
    objective.check(examples)?;
    let learned = adapter.prefix_len() + adapter.prompt_len();
    let Some(longest) = objective.longest().filter(|_| learned > 0) else { return Ok(()) };
    match examples.iter().position(|example| objective.tokens(example) + learned > longest) {
        None => Ok(()),
        Some(index) => Err(Error::Example {
            index,
            expected: format!(
                "at most {} tokens (the adapter takes {learned} of {longest} positions)",
                longest.saturating_sub(learned)
            ),
            found: objective.tokens(&examples[index]).to_string(),
        }),
    }
}

/// How well `objective`'s model does with `adapter` on `examples`.
///
/// # Errors
/// [`Error::NoData`] if nothing of them is learned, [`Error::Example`] if the model can't read one, [`Error::Setting`] if `batch_size` or
/// `loss_chunk` is 0.
pub fn evaluate<O: Objective + ?Sized>(
    objective: &O,
    adapter: &dyn Adapter,
    examples: &[O::Example],
    batch_size: usize,
    loss_chunk: usize,
) -> Result<Evaluation> {
    for (setting, value) in [("batch_size", batch_size), ("loss_chunk", loss_chunk)] {
        if value == 0 {
            return Err(Error::Setting { setting, expected: "at least 1", found: "0".into() });
        }
    }
    if examples.iter().all(|example| objective.targets(example) == 0) {
        return Err(Error::NoData { reason: "no held-out example has a token or label to predict".into() });
    }
    check(objective, adapter, examples)?;
    let mut order: Vec<&O::Example> = examples.iter().collect();
    order.sort_by_key(|example| objective.tokens(example));
    let scores =
        order.chunks(batch_size).map(|batch| objective.score(adapter, &objective.batch(batch), loss_chunk));
    let Score { loss_sum, targets, correct } = scores.fold(Score::default(), Score::and);
    let share = |correct| correct as f64 / targets as f64;
    Ok(Evaluation { loss: loss_sum / targets as f64, accuracy: correct.map(share) })
}

fn finite(step: usize, what: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::NotFinite { step, what, value }) }
}
