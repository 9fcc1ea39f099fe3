//! Teaches a language model to write dictionary entries by P-tuning: twenty learned vectors before the prompt, the model itself untouched.
//! The adapter takes 46 kB, and PEFT loads it. Without arguments it takes some minutes on two CPU cores.
//!
//! ```text
//! cargo run --release --example p_tuning
//! ```

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use llmkit_core::models::Pretrained;
use llmkit_core::{Device, NoAdapter};
use llmkit_peft::train::{TrainConfig, Trainer, evaluate};
use llmkit_peft::{Method, PTuning, PTuningConfig, PromptEncoderKind, trainable_parameters};

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

/// Teach a language model by P-tuning.
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
    /// Where the adapter goes.
    #[arg(long, default_value = "target/p_tuning")]
    out: PathBuf,
    /// How many vectors are learned.
    #[arg(long, default_value_t = 20)]
    virtual_tokens: usize,
    /// Let an LSTM write them instead of a perceptron.
    #[arg(long)]
    lstm: bool,
    /// The width of the network that writes them.
    #[arg(long, default_value_t = 256)]
    hidden_size: usize,
    /// The learning rate after the warm-up.
    #[arg(long, default_value_t = 3e-3)]
    learning_rate: f64,
    /// Batches of eight examples.
    #[arg(long, default_value_t = 60)]
    steps: usize,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let base = Pretrained::load(model::find(args.model.as_deref())?, &device::choose(args.device)?)?;
    let (_, train) = data::load(&args.train, &base, 512)?;
    let (rows, heldout) = data::load(&args.heldout, &base, 512)?;

    let encoder = if args.lstm { PromptEncoderKind::Lstm } else { PromptEncoderKind::Mlp };
    let config =
        PTuningConfig::new(args.virtual_tokens).with_encoder(encoder).with_hidden_size(args.hidden_size);
    let prompt = PTuning::new(base.model.as_ref(), config, 0)?;
    println!("{}", trainable_parameters(base.model.as_ref(), &prompt));

    let config = TrainConfig {
        learning_rate: args.learning_rate,
        batch_size: 8,
        // As often through the data as the steps take.
        epochs: args.steps,
        max_steps: Some(args.steps),
        ..TrainConfig::default()
    };
    let before = evaluate(base.model.as_ref(), &NoAdapter, &heldout, config.batch_size, config.loss_chunk)?;
    let answers_before = answers::give(&base, &NoAdapter, &rows)?;

    let mut trainer = Trainer::new(base.model.clone(), prompt, config)?;
    let mut bar = progress::TrainingBar::new()?;
    let report = trainer.fit(&train, &heldout, &mut bar)?;
    bar.finish();

    let prompt = trainer.into_adapter();
    prompt.save(&args.out)?;
    let answers_after = answers::give(&base, &prompt, &rows)?;
    answers::compare(&rows, &answers_before, &answers_after);
    if let Some(after) = report.heldout_loss {
        println!("held-out loss: {:.3} before, {after:.3} after", before.loss);
    }
    println!("The adapter is in {}. To talk to it:", args.out.display());
    println!("  cargo run --release --example chat -- --adapter {}", args.out.display());
    Ok(())
}
