use serde::{Deserialize, Serialize};

/// How the learning rate goes down after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Not at all.
    Constant,
    /// In a straight line to zero.
    Linear,
    /// Along half a cosine to zero (Loshchilov and Hutter 2017).
    #[default]
    Cosine,
}

/// The learning rate of each optimizer step: up from zero in a straight line over `warmup_steps`, then down by `decay`. The same
/// numbers as transformers' `get_*_schedule_with_warmup`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The rate at the end of the warm-up.
    pub learning_rate: f64,
    /// Steps of warm-up.
    pub warmup_steps: usize,
    /// Steps in all.
    pub total_steps: usize,
    /// What follows the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of the step that follows `done` finished ones.
    pub fn at(&self, done: usize) -> f64 {
        let Self { learning_rate, warmup_steps, total_steps, decay } = *self;
        if done < warmup_steps {
            return learning_rate * done as f64 / warmup_steps as f64;
        }
        let progress = (done - warmup_steps) as f64 / total_steps.saturating_sub(warmup_steps).max(1) as f64;
        let factor = match decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        learning_rate * factor.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_goes_down() {
        let cosine = Schedule { learning_rate: 1.0, warmup_steps: 2, total_steps: 10, decay: Decay::Cosine };
        assert_eq!(cosine.at(0), 0.0);
        assert_eq!(cosine.at(1), 0.5);
        assert_eq!(cosine.at(2), 1.0);
        assert!((cosine.at(6) - 0.5).abs() < 1e-12);
        assert!(cosine.at(10).abs() < 1e-12);
        let linear = Schedule { decay: Decay::Linear, ..cosine };
        assert!((linear.at(4) - 0.75).abs() < 1e-12);
        let constant = Schedule { decay: Decay::Constant, warmup_steps: 0, ..cosine };
        assert_eq!((constant.at(0), constant.at(9)), (1.0, 1.0));
    }
}
