use serde::{Deserialize, Serialize};

use super::{AdamWConfig, Decay, Recompute, Schedule};
use crate::{Error, Result};

/// How a [`Trainer`](super::Trainer) trains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Passes over the data; default 1. [`TrainConfig::max_steps`] can end earlier.
    pub epochs: usize,
    /// The most optimizer steps, or none for as many as the epochs have.
    pub max_steps: Option<usize>,
    /// Examples in one forward and backward pass; default 4.
    pub batch_size: usize,
    /// Batches whose gradients make one optimizer step; default 1. Each counts by its learned tokens, so that `n` batches give the same step
    /// as one batch `n` times as large.
    pub accumulate: usize,
    /// The learning rate at the end of the warm-up; default 2e-4.
    pub learning_rate: f64,
    /// The share of the steps over which the rate rises; default 0.03.
    pub warmup_ratio: f64,
    /// How the rate goes down; default along a cosine.
    pub decay: Decay,
    /// The optimizer's settings.
    pub adamw: AdamWConfig,
    /// The longest that all gradients together may be; default 1. Zero turns clipping off.
    pub max_grad_norm: f64,
    /// Whether blocks are computed again in the backward pass; default not.
    pub recompute: Recompute,
    /// How many tokens are scored over the vocabulary at a time; default 256.
    pub loss_chunk: usize,
    /// Optimizer steps between evaluations on the held-out data; zero (the default) for one at the end only.
    pub eval_every: usize,
    /// Optimizer steps between checkpoints; zero (the default) for none.
    pub checkpoint_every: usize,
    /// Checkpoints to keep, the latest; default 2.
    pub keep_checkpoints: usize,
    /// Fixes the order of the data and dropout; default 0.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: None,
            batch_size: 4,
            accumulate: 1,
            learning_rate: 2e-4,
            warmup_ratio: 0.03,
            decay: Decay::Cosine,
            adamw: AdamWConfig::default(),
            max_grad_norm: 1.0,
            recompute: Recompute::Off,
            loss_chunk: 256,
            eval_every: 0,
            checkpoint_every: 0,
            keep_checkpoints: 2,
            seed: 0,
        }
    }
}

impl TrainConfig {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        let positive = |setting, value: usize| match value {
            0 => Err(Error::Setting { setting, expected: "at least 1", found: "0".into() }),
            _ => Ok(()),
        };
        positive("epochs", self.epochs)?;
        positive("batch_size", self.batch_size)?;
        positive("accumulate", self.accumulate)?;
        positive("loss_chunk", self.loss_chunk)?;
        positive("keep_checkpoints", self.keep_checkpoints)?;
        positive("max_steps", self.max_steps.unwrap_or(1))?;
        let number = |setting, value: f64, good: bool, expected| {
            if good { Ok(()) } else { Err(Error::Setting { setting, expected, found: value.to_string() }) }
        };
        let (rate, warmup, norm) = (self.learning_rate, self.warmup_ratio, self.max_grad_norm);
        number("learning_rate", rate, rate.is_finite() && rate > 0.0, "a positive number")?;
        number("warmup_ratio", warmup, (0.0..=1.0).contains(&warmup), "a share between 0 and 1")?;
        number("max_grad_norm", norm, norm.is_finite() && norm >= 0.0, "a positive number, or 0 for no clipping")?;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.adamw;
        number("beta1", beta1, (0.0..1.0).contains(&beta1), "a number in [0, 1)")?;
        number("beta2", beta2, (0.0..1.0).contains(&beta2), "a number in [0, 1)")?;
        number("eps", eps, eps.is_finite() && eps > 0.0, "a positive number")?;
        number("weight_decay", weight_decay, weight_decay.is_finite() && weight_decay >= 0.0, "a number from 0")
    }

    /// Optimizer steps over `examples` examples.
    pub fn total_steps(&self, examples: usize) -> usize {
        let per_epoch = examples.div_ceil(self.batch_size).div_ceil(self.accumulate);
        let all = per_epoch * self.epochs;
        self.max_steps.map_or(all, |most| most.min(all))
    }

    /// The learning rates of a run of `total_steps`.
    pub fn schedule(&self, total_steps: usize) -> Schedule {
        let warmup_steps = (self.warmup_ratio * total_steps as f64).ceil() as usize;
        Schedule { learning_rate: self.learning_rate, warmup_steps, total_steps, decay: self.decay }
    }
}
