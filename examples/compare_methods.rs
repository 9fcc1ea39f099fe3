//! Compares fine-tuning methods on a real model and real data: SmolLM2 learns to write definitions, MiniLM to tell what kind of thing is
//! defined. Each method trains for the same steps on the same batches, in a process of its own, so that its peak memory is its own.
//!
//! ```text
//! cargo run --release --example compare_methods
//! cargo run --release --example compare_methods -- --task classification --methods lora,full --classification-steps 150
//! ```
//!
//! It prints one Markdown table for each task: `docs/src/methods.md` has what it printed.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::{Pretrained, SequenceClassifier, load_encoder};
use llmkit_core::{Device, NoAdapter, Tokenizer};
use llmkit_peft::PeftModule;
use llmkit_peft::data::{Encoder, LabelEncoder, label_names, read_alpaca, read_labelled};
use llmkit_peft::train::{Objective, Observer, Recompute, StepReport, TrainConfig, Trainer, evaluate};
use serde_json::{Value, json};

#[path = "support/methods.rs"]
mod methods;
#[path = "support/model.rs"]
mod model;
#[path = "support/peak.rs"]
mod peak;

use methods::{METHODS, Task, Work, chosen, with_method};

/// Compare fine-tuning methods: quality, trained parameters, file size, peak memory and speed of each.
#[derive(Parser)]
struct Args {
    /// What to train for [default: both]
    #[arg(long)]
    task: Option<Task>,
    /// Methods by name, with commas between them [default: all]
    #[arg(long, value_delimiter = ',')]
    methods: Vec<String>,
    /// Steps of 8 definitions.
    #[arg(long, default_value_t = 40)]
    generation_steps: usize,
    /// Steps of 16 texts.
    #[arg(long, default_value_t = 150)]
    classification_steps: usize,
    /// The language model: a Hugging Face folder or a .gguf file [default: SmolLM2-135M-Instruct]
    #[arg(long)]
    model: Option<PathBuf>,
    /// The encoder: a Hugging Face folder [default: all-MiniLM-L6-v2]
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// The folder that has wordnet-definitions and wordnet-categories.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data"))]
    data: PathBuf,
    /// Recompute each block in the backward pass.
    #[arg(long)]
    recompute: bool,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Run this method of the task here, and print a line of JSON: how the others are run.
    #[arg(long, requires = "task", hide = true)]
    only: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let (Some(name), Some(task)) = (&args.only, args.task) {
        println!("{}", run(&args, task, name)?);
        return Ok(());
    }
    let tasks = args.task.map_or(vec![Task::Generation, Task::Classification], |task| vec![task]);
    for task in tasks {
        let names = chosen(task, &args.methods)?;
        println!("{}", header(task, &args));
        for name in names {
            println!("{}", row(name, &measure(&args, task, name)?));
        }
        println!();
    }
    Ok(())
}

/// Runs one method in a process of its own.
fn measure(args: &Args, task: Task, name: &str) -> Result<Value> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--task", task.name(), "--only", name]);
    child.args(["--generation-steps", &args.generation_steps.to_string()]);
    child.args(["--classification-steps", &args.classification_steps.to_string()]);
    child.arg("--data").arg(&args.data).args(["--device", &args.device.to_string()]);
    for (option, path) in [("--model", &args.model), ("--encoder", &args.encoder)] {
        if let Some(path) = path {
            child.arg(option).arg(path);
        }
    }
    if args.recompute {
        child.arg("--recompute");
    }
    let output = child.output()?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let line = String::from_utf8(output.stdout)?;
    serde_json::from_str(line.trim()).with_context(|| format!("{name} printed {line:?}"))
}

fn run(args: &Args, task: Task, name: &str) -> Result<Value> {
    let method = METHODS.iter().find(|method| method.name == name).context("an unknown method")?;
    let learning_rate = method.learning_rate(task).context("the method does not apply")?;
    let (batch_size, steps) = match task {
        Task::Generation => (8, args.generation_steps),
        Task::Classification => (16, args.classification_steps),
    };
    let recompute = if args.recompute { Recompute::Blocks } else { Recompute::Off };
    let config = TrainConfig {
        // As many as the steps need; the data is small.
        epochs: steps,
        max_steps: Some(steps),
        batch_size,
        learning_rate,
        warmup_ratio: 0.1,
        recompute,
        ..TrainConfig::default()
    };
    let device = args.device.resolve()?;
    match task {
        Task::Generation => {
            let base = Pretrained::load(model::find(args.model.as_deref())?, &device)?;
            let load = |file: &str| {
                let path = args.data.join("wordnet-definitions").join(file);
                let encoder = Encoder::new(&base.tokenizer, &base.chat_template).with_max_length(128);
                Ok::<_, anyhow::Error>(encoder.encode(&read_alpaca(&path)?, &path)?.examples)
            };
            let (train, heldout) = (load("train.jsonl")?, load("heldout.jsonl")?);
            let task = Train { model: base.model.clone(), train, heldout, config };
            with_method(name, Task::Generation, base.model.as_ref(), steps, task)
        }
        Task::Classification => {
            let folder = model::find_or(args.encoder.as_deref(), &model::MINILM)?;
            let encoder = load_encoder(&Checkpoint::open(&folder)?, &device)?;
            let tokenizer = Tokenizer::from_folder(&folder)?;
            let read = |file: &str| {
                let path = args.data.join("wordnet-categories").join(file);
                Ok::<_, anyhow::Error>((read_labelled(&path)?, path))
            };
            let ((train, train_path), (heldout, heldout_path)) =
                (read("train.jsonl")?, read("heldout.jsonl")?);
            let labels = label_names(&train);
            let model = Arc::new(SequenceClassifier::fresh(encoder, &labels, 0)?);
            let encoder = LabelEncoder::new(&tokenizer, &labels, 64)?;
            let train = encoder.encode(&train, &train_path)?.examples;
            let heldout = encoder.encode(&heldout, &heldout_path)?.examples;
            let task = Train { model: model.clone(), train, heldout, config };
            with_method(name, Task::Classification, model.as_ref(), steps, task)
        }
    }
}

/// Training, and what is measured of it.
struct Train<O: Objective + ?Sized> {
    model: Arc<O>,
    train: Vec<O::Example>,
    heldout: Vec<O::Example>,
    config: TrainConfig,
}

impl<O: Objective + ?Sized> Work for Train<O> {
    fn run<A: PeftModule>(self, adapter: A) -> Result<Value> {
        let Self { model, train, heldout, config } = self;
        let before = evaluate(model.as_ref(), &NoAdapter, &heldout, config.batch_size, config.loss_chunk)?;
        let parameters = adapter.num_params();
        let mut trainer = Trainer::new(model, adapter, config)?;
        let mut speed = Speed::default();
        let report = trainer.fit(&train, &heldout, &mut speed)?;
        let peak = peak::peak_memory_mb();
        let folder = tempfile::tempdir()?;
        trainer.into_adapter().save(folder.path())?;
        Ok(json!({
            "parameters": parameters,
            "file_bytes": weights_bytes(folder.path())?,
            "peak_mb": peak,
            "tokens_per_s": speed.tokens_per_second(),
            "loss_before": before.loss,
            "loss": report.heldout_loss,
            "accuracy": report.heldout_accuracy,
        }))
    }
}

/// The tokens and the time of every step but the first, which warms up.
#[derive(Default)]
struct Speed {
    steps: usize,
    tokens: usize,
    seconds: f64,
}

impl Speed {
    fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

impl Observer for Speed {
    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.steps += 1;
        if self.steps > 1 {
            self.tokens += report.tokens;
            self.seconds += report.seconds;
        }
        ControlFlow::Continue(())
    }
}

fn weights_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn header(task: Task, args: &Args) -> String {
    let (quality, steps) = match task {
        Task::Generation => ("held-out loss", args.generation_steps),
        Task::Classification => ("held-out accuracy", args.classification_steps),
    };
    format!(
        "{} ({steps} steps)\n\n| method | {quality} | trained | file | peak memory | tokens/s |\n|---|---:|---:|---:|---:|---:|",
        task.name()
    )
}

fn row(name: &str, measured: &Value) -> String {
    let number = |field: &str| measured[field].as_f64().unwrap_or(f64::NAN);
    let quality = match measured["accuracy"].as_f64() {
        Some(share) => format!("{:.1} %", 100.0 * share),
        None => format!("{:.3}", number("loss")),
    };
    format!(
        "| {name} | {quality} | {} | {:.2} MB | {} MB | {:.0} |",
        measured["parameters"],
        number("file_bytes") / 1e6,
        measured["peak_mb"],
        number("tokens_per_s"),
    )
}
