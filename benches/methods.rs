//! One training step of every method, beside `methods_peft.py`: the same model, ids, batch, settings and optimizer, in turns.
//!
//! ```text
//! cargo bench --bench methods -- --model MODEL.gguf --encoder MINILM --python PYTHON
//! ```
//!
//! Each run is a process of its own. Without `--python`, PEFT's columns stay empty.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use llmkit::models::{Pretrained, SaveOptions, SequenceClassifier, load_causal_lm, load_encoder, save_model};
use llmkit::peft::PeftModule;
use llmkit::peft::data::{Example, Label, Labelled};
use llmkit::peft::train::{AdamW, AdamWConfig, Objective, Recompute, StepOptions};
use llmkit::{Device, checkpoint::Checkpoint};
use serde_json::{Value, json};

use methods::{Task, Work, chosen, with_method};
use support::{peak_rss_mib, random_ids};

#[path = "../examples/support/methods.rs"]
mod methods;
mod support;

/// Times the methods on random tokens: 4 sequences of 128, all of them learned; 16 texts of 32 in eight classes.
#[derive(Parser)]
struct Arguments {
    /// The language model: a folder or a GGUF file.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The encoder: a folder.
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// Methods by name, with commas between them [default: all]
    #[arg(long, value_delimiter = ',')]
    methods: Vec<String>,
    /// Measured steps; the median counts.
    #[arg(long, default_value_t = 4)]
    steps: usize,
    /// A Python that has PEFT.
    #[arg(long)]
    python: Option<PathBuf>,
    /// PEFT's threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Recompute each block in the backward pass.
    #[arg(long)]
    recompute: bool,
    /// Where to run.
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Run this method here: how the others are run.
    #[arg(long, requires = "task", hide = true)]
    only: Option<String>,
    #[arg(long, hide = true)]
    task: Option<Task>,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (Some(name), Some(task)) = (&arguments.only, arguments.task) {
        println!("{}", run(&arguments, task, name)?);
        return Ok(());
    }
    let work = tempfile::tempdir()?;
    if let Some(model) = &arguments.model {
        // PEFT reads a folder; that of a GGUF file is written here, so that both have the same weights.
        let folder = if model.is_dir() { model.clone() } else { work.path().join("model") };
        if !model.is_dir() {
            let base = Pretrained::load(model, &arguments.device.resolve()?)?;
            save_model(base.model.as_ref(), &folder, SaveOptions::default())?;
        }
        compare(&arguments, Task::Generation, &folder, work.path())?;
    }
    if let Some(encoder) = &arguments.encoder {
        compare(&arguments, Task::Classification, encoder, work.path())?;
    }
    ensure!(arguments.model.is_some() || arguments.encoder.is_some(), "pass --model, --encoder, or both");
    Ok(())
}

fn compare(arguments: &Arguments, task: Task, folder: &Path, work: &Path) -> Result<()> {
    let batch = work.join(format!("{}.json", task.name()));
    fs::write(&batch, batch_of(task, folder)?.to_string())?;
    println!("{}\n", task.name());
    println!(
        "| method | step | PEFT's | time, ours / PEFT's | peak | PEFT's | memory, ours / PEFT's | trained | PEFT's |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for name in chosen(task, &arguments.methods)? {
        let ours = ours(arguments, task, name)?;
        let theirs = match &arguments.python {
            Some(python) => peft(arguments, python, task, name, folder, &batch)?,
            None => Value::Null,
        };
        println!("{}", row(name, &ours, &theirs));
    }
    println!();
    Ok(())
}

fn ours(arguments: &Arguments, task: Task, name: &str) -> Result<Value> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--task", task.name(), "--only", name, "--steps", &arguments.steps.to_string()]);
    child.args(["--device", &arguments.device.to_string()]);
    for (option, path) in [("--model", &arguments.model), ("--encoder", &arguments.encoder)] {
        if let Some(path) = path {
            child.arg(option).arg(path);
        }
    }
    if arguments.recompute {
        child.arg("--recompute");
    }
    last_line(name, child)
}

fn peft(
    arguments: &Arguments,
    python: &Path,
    task: Task,
    name: &str,
    folder: &Path,
    batch: &Path,
) -> Result<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/methods_peft.py");
    let mut child = Command::new(python);
    child.arg(script).args(["--task", task.name(), "--method", name]);
    child.arg("--model").arg(folder).arg("--batch").arg(batch);
    child.args(["--steps", &arguments.steps.to_string(), "--threads", &arguments.threads.to_string()]);
    last_line(name, child)
}

fn last_line(name: &str, mut child: Command) -> Result<Value> {
    let output = child.output().with_context(|| format!("cannot run {child:?}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().next_back().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{name} printed {line:?}"))
}

fn row(name: &str, ours: &Value, theirs: &Value) -> String {
    let cell = |value: &Value, field: &str, digits: usize, unit: &str| match value[field].as_f64() {
        Some(number) => format!("{number:.digits$}{unit}"),
        None => "-".into(),
    };
    let ratio = |field: &str| match (ours[field].as_f64(), theirs[field].as_f64()) {
        (Some(ours), Some(theirs)) => format!("{:.2}", ours / theirs),
        _ => "-".into(),
    };
    let [seconds, memory, trained] = ["step_seconds_median", "peak_rss_mb", "trained_parameters"];
    let cells = [
        name.to_owned(),
        cell(ours, seconds, 3, " s"),
        cell(theirs, seconds, 3, " s"),
        ratio(seconds),
        cell(ours, memory, 0, " MB"),
        cell(theirs, memory, 0, " MB"),
        ratio(memory),
        cell(ours, trained, 0, ""),
        cell(theirs, trained, 0, ""),
    ];
    format!("| {} |", cells.join(" | "))
}

const LABELS: usize = 8;

/// The batch as `methods_peft.py` reads it.
fn batch_of(task: Task, folder: &Path) -> Result<Value> {
    let config: Value = serde_json::from_slice(&fs::read(folder.join("config.json"))?)?;
    let vocab = config["vocab_size"].as_u64().context("config.json names no vocab_size")? as usize;
    Ok(match task {
        Task::Generation => {
            let rows: Vec<Vec<u32>> = next_tokens(vocab).into_iter().map(|example| example.ids).collect();
            json!({ "input_ids": rows, "labels": rows })
        }
        Task::Classification => {
            let (ids, labels): (Vec<_>, Vec<_>) = texts(vocab).into_iter().unzip();
            json!({ "input_ids": ids, "labels": labels })
        }
    })
}

fn next_tokens(vocab: usize) -> Vec<Example> {
    let mut random = 1;
    (0..4).map(|_| Example { ids: random_ids(128, vocab, &mut random), prompt_len: 1 }).collect()
}

fn texts(vocab: usize) -> Vec<(Vec<u32>, usize)> {
    let mut random = 1;
    (0..16).map(|row| (random_ids(32, vocab, &mut random), row % LABELS)).collect()
}

fn run(arguments: &Arguments, task: Task, name: &str) -> Result<Value> {
    let device = arguments.device.resolve()?;
    let recompute = if arguments.recompute { Recompute::Blocks } else { Recompute::Off };
    let total_steps = arguments.steps + WARMUP;
    match task {
        Task::Generation => {
            let path = arguments.model.as_ref().context("--model is missing")?;
            let model = load_causal_lm(&Checkpoint::open(path)?, &device)?;
            let examples = next_tokens(model.vocab_size());
            let work = Steps { model: model.clone(), examples, recompute, steps: arguments.steps, device };
            with_method(name, task, model.as_ref(), total_steps, work)
        }
        Task::Classification => {
            let path = arguments.encoder.as_ref().context("--encoder is missing")?;
            let encoder = load_encoder(&Checkpoint::open(path)?, &device)?;
            let labels: Vec<String> = (0..LABELS).map(|label| format!("LABEL_{label}")).collect();
            let examples = texts(encoder.vocab_size()).into_iter().map(|(ids, label)| Labelled {
                type_ids: vec![0; ids.len()],
                ids,
                label: Label::Class(label),
            });
            let examples = examples.collect();
            let model = Arc::new(SequenceClassifier::fresh(encoder, &labels, 0)?);
            let work = Steps { model: model.clone(), examples, recompute, steps: arguments.steps, device };
            with_method(name, task, model.as_ref(), total_steps, work)
        }
    }
}

const WARMUP: usize = 1;

/// Training steps on one batch.
struct Steps<O: Objective + ?Sized> {
    model: Arc<O>,
    examples: Vec<O::Example>,
    recompute: Recompute,
    steps: usize,
    device: burn::tensor::Device,
}

impl<O: Objective + ?Sized> Work for Steps<O> {
    fn run<A: PeftModule>(self, adapter: A) -> Result<Value> {
        let trained = adapter.num_params();
        let mut adapter = adapter.train();
        let mut optimizer = AdamW::new(AdamWConfig::default());
        let options = StepOptions { recompute: self.recompute, ..StepOptions::default() };
        let (mut seconds, mut losses) = (Vec::new(), Vec::new());
        for step in 0..WARMUP + self.steps {
            let begin = Instant::now();
            let batch = self.model.batch(&self.examples.iter().collect::<Vec<_>>());
            let mut output = self.model.loss_and_gradients(&adapter, &batch, options);
            output.gradients.scale(1.0 / output.targets as f64);
            if let Some(penalty) = adapter.penalty() {
                output.gradients.accumulate(&adapter, penalty.backward());
            }
            output.gradients.clip_global_norm(1.0);
            adapter = optimizer.step(adapter, &output.gradients, 1e-4);
            let total_steps = WARMUP + self.steps;
            let progress =
                llmkit::peft::Progress { step: step + 1, total_steps, gradients: &output.gradients };
            adapter = adapter.after_step(&progress);
            self.device.sync()?;
            losses.push(output.loss_sum / output.targets as f64);
            if step >= WARMUP {
                seconds.push(begin.elapsed().as_secs_f64());
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(json!({
            "step_seconds_median": seconds[seconds.len() / 2],
            "step_seconds": seconds,
            "peak_rss_mb": peak_rss_mib(),
            "trained_parameters": trained,
            "losses": losses,
        }))
    }
}
