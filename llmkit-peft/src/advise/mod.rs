//! Which method to take, from what it needs and what is known of it.

mod choice;
mod shapes;

use std::fmt;

use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::MemoryPlan;

pub use choice::{Choice, MethodCost};
pub use shapes::LayerShapes;

use crate::Result;
use crate::train::{Recompute, TrainConfig, method_memory_plan};

/// What training may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most memory while training, in bytes.
    pub memory: u64,
    /// The largest file of the result, in bytes, if that matters.
    pub file: Option<u64>,
}

impl Limits {
    /// So many bytes of memory, and a file of any size.
    pub fn new(memory: u64) -> Self {
        Self { memory, file: None }
    }

    /// Limits the file, too.
    pub fn with_file(self, bytes: u64) -> Self {
        Self { file: Some(bytes), ..self }
    }
}

/// A method that was weighed.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The method and its setting.
    pub choice: Choice,
    /// Whether blocks are computed again, which it takes only where it would not fit otherwise.
    pub recompute: Recompute,
    /// What it takes of the memory.
    pub memory: MemoryPlan,
    /// What trains.
    pub parameters: u64,
    /// The size of its file in bytes, in `f32`.
    pub file_bytes: u64,
    /// Why it is out, if it is.
    pub refused: Option<String>,
}

/// What to take, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// The method to take, unless none fits.
    pub choice: Option<Candidate>,
    /// All that were weighed, the best first.
    pub candidates: Vec<Candidate>,
    /// The reasons, one sentence each.
    pub reasons: Vec<String>,
}

/// Says which method to train the model in `checkpoint` with, on sequences of at most `tokens` tokens.
///
/// Of the methods that fit into the limits it takes the one that did best in PEFT's own comparison (Llama-3.2-3B trained on MetaMathQA,
/// scored on GSM8K), at the highest rank that fits, and recomputes blocks only if nothing else makes room. One comparison on one task is
/// what is known, not a law: where it matters, try two ([`rank_sweep`](crate::train::rank_sweep) helps).
///
/// # Errors
/// [`Error::Core`](crate::Error::Core) if the model's configuration is unusable, [`Error::Setting`](crate::Error::Setting) for a setting
/// out of range.
pub fn advise(
    checkpoint: &Checkpoint,
    config: &TrainConfig,
    tokens: usize,
    limits: Limits,
) -> Result<Advice> {
    config.validate()?;
    let shapes = LayerShapes::read(checkpoint)?;
    let mut all = Choice::all();
    // Stable: within a method, larger settings come first.
    all.sort_by(|a, b| b.published().total_cmp(&a.published()));
    let candidates: Vec<Candidate> = all
        .into_iter()
        .map(|choice| weigh(checkpoint, config, tokens, limits, choice, choice.cost(&shapes)))
        .collect::<Result<_>>()?;
    let choice = candidates.iter().find(|candidate| candidate.refused.is_none()).cloned();
    let reasons = reasons(&candidates, choice.as_ref(), limits);
    Ok(Advice { choice, candidates, reasons })
}

fn weigh(
    checkpoint: &Checkpoint,
    config: &TrainConfig,
    tokens: usize,
    limits: Limits,
    choice: Choice,
    cost: MethodCost,
) -> Result<Candidate> {
    let plan = |recompute| {
        let config = TrainConfig { recompute, ..*config };
        method_memory_plan(checkpoint, &config, tokens, &cost)
    };
    let (mut recompute, mut memory) = (config.recompute, plan(config.recompute)?);
    if memory.peak() > limits.memory && recompute == Recompute::Off {
        (recompute, memory) = (Recompute::Blocks, plan(Recompute::Blocks)?);
    }
    let file_bytes = cost.saved.saturating_mul(4);
    let refused = if memory.peak() > limits.memory {
        Some(format!("takes {} even with recomputation", size(memory.peak())))
    } else {
        let large = limits.file.is_some_and(|most| file_bytes > most);
        large.then(|| format!("its file takes {}", size(file_bytes)))
    };
    Ok(Candidate { choice, recompute, memory, parameters: cost.parameters, file_bytes, refused })
}

fn reasons(candidates: &[Candidate], choice: Option<&Candidate>, limits: Limits) -> Vec<String> {
    let mut reasons = Vec::new();
    let before = |candidate: &&Candidate| choice.is_none_or(|choice| candidate.choice != choice.choice);
    for better in candidates.iter().take_while(before) {
        let why = better.refused.as_deref().unwrap_or("does not fit");
        reasons.push(format!("{} would score {:.3}, but {why}.", better.choice, better.choice.published()));
    }
    let Some(choice) = choice else {
        let file =
            limits.file.map_or(String::new(), |most| format!(" with a file of at most {}", size(most)));
        reasons.push(format!(
            "No method fits into {}{file}: take a smaller batch, shorter sequences, or a smaller model.",
            size(limits.memory)
        ));
        return reasons;
    };
    reasons.push(format!(
        "{} scores {:.3} in PEFT's comparison, the most of what fits; it trains {} numbers, takes {} of {}, and its file {}.",
        choice.choice,
        choice.choice.published(),
        choice.parameters,
        size(choice.memory.peak()),
        size(limits.memory),
        size(choice.file_bytes),
    ));
    match choice.choice.published_setting() {
        Some(scored) if scored == choice.choice => {}
        Some(scored) => {
            reasons.push(format!("That score is of {scored}; at this setting nothing is published."));
        }
        None => reasons.push("That score may be of another size of this method.".into()),
    }
    if choice.recompute == Recompute::Blocks {
        reasons.push(
            "Recompute the blocks (`Recompute::Blocks`): without it the activations don't fit. A step takes about half again the time."
                .into(),
        );
    }
    let full = candidates.iter().find(|candidate| candidate.choice == Choice::Full);
    if let Some(full) = full.filter(|_| choice.choice != Choice::Full) {
        reasons.push(format!(
            "Full fine-tuning scores {:.3} and would take {}.",
            full.choice.published(),
            size(full.memory.peak())
        ));
    }
    reasons
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:28} {:>9} {:>12} {:>10} {:>10}", "method", "score", "trained", "memory", "file")?;
        for candidate in &self.candidates {
            let Candidate { choice, recompute, memory, parameters, file_bytes, refused } = candidate;
            let mark = match refused {
                Some(why) => format!("  {why}"),
                None if *recompute == Recompute::Blocks => "  with recomputation".into(),
                None => String::new(),
            };
            writeln!(
                f,
                "{:28} {:>9.3} {parameters:>12} {:>10} {:>10}{mark}",
                choice.to_string(),
                choice.published(),
                size(memory.peak()),
                size(*file_bytes),
            )?;
        }
        for reason in &self.reasons {
            writeln!(f, "- {reason}")?;
        }
        Ok(())
    }
}

fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.1} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}
