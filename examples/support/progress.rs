//! Shows how training goes: a bar in a terminal, a line now and then in a log.

use std::ops::ControlFlow;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use llmkit_peft::train::{Evaluation, Observer, StepReport};

#[path = "peak.rs"]
mod peak;

pub(crate) use peak::peak_memory_mb;

/// Lines in a log for a whole run.
const LINES: usize = 20;

pub(crate) struct TrainingBar {
    bar: ProgressBar,
    steps: usize,
    tokens: usize,
    seconds: f64,
    /// The loss over the last steps, older ones counting less: that of a single batch jumps too much to be read.
    loss: Option<f64>,
}

impl TrainingBar {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}")?);
        Ok(Self { bar, steps: 0, tokens: 0, seconds: 0.0, loss: None })
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }
}

impl Observer for TrainingBar {
    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.steps += 1;
        self.tokens += report.tokens;
        self.seconds += report.seconds;
        let loss = self.loss.map_or(report.loss, |before| 0.9 * before + 0.1 * report.loss);
        self.loss = Some(loss);
        let speed = self.tokens as f64 / self.seconds;
        let memory = peak_memory_mb().map_or(String::new(), |mb| format!(", {mb} MB"));
        // The bar's own estimate would count the steps before a resume.
        let left = self.seconds / self.steps as f64 * (report.total_steps - report.step) as f64;
        let message = format!("loss {loss:.3}, {speed:.0} tokens/s, {left:.0} s left{memory}");

        self.bar.set_length(report.total_steps as u64);
        self.bar.set_message(message.clone());
        self.bar.set_position(report.step as u64);
        let every = report.total_steps.div_ceil(LINES);
        if self.bar.is_hidden() && (report.step.is_multiple_of(every) || report.step == report.total_steps) {
            eprintln!("step {}/{}: {message}", report.step, report.total_steps);
        }
        ControlFlow::Continue(())
    }

    fn evaluated(&mut self, step: usize, evaluation: &Evaluation) {
        let accuracy =
            evaluation.accuracy.map_or(String::new(), |share| format!(", {:.1} % right", 100.0 * share));
        self.say(&format!("step {step}: held-out loss {:.3}{accuracy}", evaluation.loss));
    }

    fn saved(&mut self, folder: &Path) {
        self.say(&format!("checkpoint in {}", folder.display()));
    }
}
