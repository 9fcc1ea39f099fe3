//! Fine-tunes a language model with LoRA, start to end: gets a small model, teaches it to write dictionary entries, shows what changed,
//! and saves an adapter that PEFT loads too. Without arguments it takes a few minutes on two CPU cores.
//!
//! ```text
//! cargo run --release --example finetune
//! ```

use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use llmkit_core::models::{Pretrained, SaveOptions, save_model};
use llmkit_core::{Device, NoAdapter};
use llmkit_peft::train::{Recompute, TrainConfig, Trainer, evaluate};
use llmkit_peft::{Lora, LoraConfig, Method, Targets, merge, trainable_parameters};

#[path = "support/answers.rs"]
mod answers;
#[path = "support/data.rs"]
mod data;
#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;
#[path = "support/progress.rs"]
mod progress;

/// What a shell reports of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Fine-tune a language model with LoRA. Ctrl-C stops after the step under way, with a checkpoint to go on from.
#[derive(Parser)]
struct Args {
    /// The model: a Hugging Face folder, a .gguf file, or a repository on the hub [default: SmolLM2-135M-Instruct]
    #[arg(long)]
    model: Option<PathBuf>,
    /// What to learn: JSONL with `instruction`, `input` (may be empty) and `output`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/wordnet-definitions/train.jsonl"))]
    train: PathBuf,
    /// What to measure with, in the same format.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/wordnet-definitions/heldout.jsonl"))]
    heldout: PathBuf,
    /// Where the adapter and the checkpoints go.
    #[arg(long, default_value = "target/finetune")]
    out: PathBuf,
    /// Also save the model with the adapter merged into it, as a Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    merged: Option<PathBuf>,

    /// The rank of the update.
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// The update counts alpha / rank times.
    #[arg(long, default_value_t = 16.0)]
    alpha: f64,
    /// The probability that an input of the update is dropped while training.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// The layers to act on: their names with commas between them, or all-linear.
    #[arg(long, value_delimiter = ',', default_value = "all-linear")]
    target_modules: Vec<String>,

    /// The learning rate after the warm-up.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Passes over the data.
    #[arg(long, default_value_t = 1)]
    epochs: usize,
    /// The most steps, if that is less; 0 for as many as the passes have.
    #[arg(long, default_value_t = 60)]
    max_steps: usize,
    /// Examples that are computed at once.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Batches that make a step together.
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// The longest example, in tokens; what exceeds it is cut off and counted.
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Compute each block again in the backward pass: less memory, more time.
    #[arg(long)]
    recompute: bool,
    /// Steps between checkpoints; 0 for none but that of Ctrl-C.
    #[arg(long, default_value_t = 0)]
    checkpoint_every: usize,
    /// Go on from a checkpoint, with the settings that it was made with.
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// Fixes the adapter's start, the order of the data, and dropout.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
}

fn main() -> Result<ExitCode> {
    let begin = Instant::now();
    let args = Args::parse();
    let device = device::choose(args.device)?;
    let base = Pretrained::load(model::find(args.model.as_deref())?, &device)?;
    let (_, train) = data::load(&args.train, &base, args.max_length)?;
    let (rows, heldout) = data::load(&args.heldout, &base, args.max_length)?;

    let lora = match &args.resume {
        Some(checkpoint) => Lora::load(base.model.as_ref(), checkpoint)?,
        None => Lora::new(base.model.as_ref(), lora_config(&args), args.seed)?,
    };
    println!("{}", trainable_parameters(base.model.as_ref(), &lora));

    let config = train_config(&args);
    let loss_before =
        evaluate(base.model.as_ref(), &NoAdapter, &heldout, config.batch_size, config.loss_chunk)?.loss;
    println!("held-out loss before: {loss_before:.3}");
    let answers_before = answers::give(&base, &NoAdapter, &rows)?;

    let mut trainer =
        Trainer::new(base.model.clone(), lora, config)?.with_checkpoints(args.out.join("checkpoints"));
    if let Some(checkpoint) = &args.resume {
        trainer = trainer.resume(checkpoint)?;
    }
    stop_on_ctrl_c(&trainer)?;
    let mut bar = progress::TrainingBar::new()?;
    let report = trainer.fit(&train, &heldout, &mut bar)?;
    bar.finish();
    if report.interrupted {
        if let Some(checkpoint) = &report.checkpoint {
            println!("Stopped after step {}. To go on:\n  {}", report.steps, resume_command(checkpoint));
        }
        return Ok(ExitCode::from(INTERRUPTED));
    }

    let lora = trainer.into_adapter();
    let adapter = args.out.join("adapter");
    lora.save(&adapter)?;
    let answers_after = answers::give(&base, &lora, &rows)?;
    answers::compare(&rows, &answers_before, &answers_after);
    if let Some(loss_after) = report.heldout_loss {
        println!("held-out loss: {loss_before:.3} before, {loss_after:.3} after");
    }
    if let Some(folder) = &args.merged {
        save_model(merge(base.model.as_ref(), &lora)?.as_ref(), folder, SaveOptions::default())?;
        base.save_tokenizer(folder)?;
        println!("merged model in {}", folder.display());
    }
    let memory =
        progress::peak_memory_mb().map_or(String::new(), |mb| format!(", at most {mb} MB of memory"));
    println!(
        "{:.0} s{memory}; the adapter is in {}. To talk to it:",
        begin.elapsed().as_secs_f64(),
        adapter.display()
    );
    println!("  {}", chat_command(&args, &adapter));
    Ok(ExitCode::SUCCESS)
}

fn lora_config(args: &Args) -> LoraConfig {
    let targets = match args.target_modules.as_slice() {
        [all] if all == "all-linear" => Targets::AllLinear,
        names => Targets::names(names),
    };
    let mut config =
        LoraConfig::new(targets).with_rank(args.rank).with_alpha(args.alpha).with_dropout(args.dropout);
    config.scope.base_model_name_or_path = Some(
        args.model.as_ref().map_or_else(|| model::DEFAULT.to_owned(), |model| model.display().to_string()),
    );
    config
}

fn train_config(args: &Args) -> TrainConfig {
    TrainConfig {
        epochs: args.epochs,
        max_steps: Some(args.max_steps).filter(|steps| *steps > 0),
        batch_size: args.batch_size,
        accumulate: args.accumulate,
        learning_rate: args.learning_rate,
        recompute: if args.recompute { Recompute::Blocks } else { Recompute::Off },
        checkpoint_every: args.checkpoint_every,
        seed: args.seed,
        ..TrainConfig::default()
    }
}

fn stop_on_ctrl_c(trainer: &Trainer<Lora>) -> Result<()> {
    let stop = trainer.stop_flag();
    ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::SeqCst) {
            process::exit(INTERRUPTED.into());
        }
        eprintln!("stopping after this step (once more stops at once, without a checkpoint)");
    })?;
    Ok(())
}

/// This program's own command, but from `checkpoint`.
fn resume_command(checkpoint: &Path) -> String {
    let mut words = vec!["cargo run --release --example finetune --".to_owned()];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--resume" {
            arguments.next();
        } else if !argument.starts_with("--resume=") {
            words.push(quoted(&argument));
        }
    }
    words.push(format!("--resume {}", quoted(&checkpoint.to_string_lossy())));
    words.join(" ")
}

fn chat_command(args: &Args, adapter: &Path) -> String {
    let model = args.model.as_ref().map(|model| format!("--model {} ", quoted(&model.to_string_lossy())));
    let adapter = quoted(&adapter.to_string_lossy());
    format!("cargo run --release --example chat -- {}--adapter {adapter}", model.unwrap_or_default())
}

/// For a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
