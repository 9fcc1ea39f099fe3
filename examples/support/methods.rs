//! The methods that are compared, each with the settings of `benches/methods_peft.py`.
// The comparison and the bench use different parts of it.
#![allow(dead_code)]

use anyhow::{Result, bail};
use clap::ValueEnum;
use llmkit_core::models::Model;
use llmkit_peft::{FullFineTune, Lora, LoraConfig, PeftModule, Targets};

/// What a model is trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// The next token: SmolLM2 on definitions.
    Generation,
    /// A label: MiniLM on the kinds of things that are defined.
    Classification,
}

impl Task {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Classification => "classification",
        }
    }
}

/// A method by its name, and the learning rate with which it did best in a few tries, for generation and for classification.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// None where the method does not apply.
    generation: Option<f64>,
    classification: Option<f64>,
}

const fn entry(name: &'static str, generation: Option<f64>, classification: Option<f64>) -> Entry {
    Entry { name, generation, classification }
}

/// All that there is to compare.
pub(crate) const METHODS: [Entry; 2] =
    [entry("lora", Some(1e-3), Some(2e-3)), entry("full", Some(1e-4), Some(2e-4))];

impl Entry {
    pub(crate) fn learning_rate(&self, task: Task) -> Option<f64> {
        match task {
            Task::Generation => self.generation,
            Task::Classification => self.classification,
        }
    }
}

/// The names of the methods for `task`: those asked for, or all.
pub(crate) fn chosen(task: Task, asked: &[String]) -> Result<Vec<&'static str>> {
    let all = METHODS.iter().filter(|method| method.learning_rate(task).is_some());
    let names: Vec<&str> = all.map(|method| method.name).collect();
    if let Some(unknown) = asked.iter().find(|name| METHODS.iter().all(|method| method.name != *name)) {
        bail!("there is no method {unknown:?}; there are {}", names.join(", "));
    }
    Ok(names.into_iter().filter(|name| asked.is_empty() || asked.iter().any(|asked| asked == name)).collect())
}

/// What is done with a method, whichever it is.
pub(crate) trait Work {
    fn run<A: PeftModule>(self, adapter: A) -> Result<serde_json::Value>;
}

/// Makes the method called `name` for `model` and does the work with it. `total_steps` is for methods that plan ahead.
pub(crate) fn with_method(
    name: &str,
    task: Task,
    model: &dyn Model,
    _total_steps: usize,
    work: impl Work,
) -> Result<serde_json::Value> {
    const SEED: u64 = 7;
    let linear = || Targets::AllLinear;
    let lora = || LoraConfig::new(linear()).with_rank(8).with_alpha(16.0);
    match name {
        "lora" => work.run(Lora::new(model, lora(), SEED)?),
        "full" => work.run(FullFineTune::new(model)),
        _ => bail!("there is no method {name:?} for {}", task.name()),
    }
}
