//! Teaches a BERT to classify texts with a bottleneck adapter, start to end: gets a small sentence encoder, gives it a fresh head, trains the
//! adapter and the head on definitions of words, and saves both in a folder that AdapterHub's library loads too. Without arguments it takes
//! a minute or two on two CPU cores.
//!
//! ```text
//! cargo run --release --example classify
//! cargo run --release --example classify -- --method parallel --reduction-factor 8 "a heavy meal" "a small bird of prey"
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use burn::tensor::{Tensor, TensorData, activation};
use clap::{Parser, ValueEnum};
use llmkit_core::checkpoint::{self, Checkpoint, save_safetensors};
use llmkit_core::models::{SequenceClassifier, load_encoder};
use llmkit_core::{Adapter, Device, NoAdapter, Tokenizer};
use llmkit_peft::data::{LabelEncoder, Labelled, label_names, read_labelled};
use llmkit_peft::train::{TrainConfig, Trainer, evaluate};
use llmkit_peft::{Bottleneck, BottleneckConfig, Method, trainable_parameters};

#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;
#[path = "support/progress.rs"]
mod progress;

/// Train a text classifier with a bottleneck adapter.
#[derive(Parser)]
struct Args {
    /// The encoder: a Hugging Face folder, or a repository on the hub [default: all-MiniLM-L6-v2]
    #[arg(long)]
    model: Option<PathBuf>,
    /// What to learn: JSONL with `text` and `label`, or CSV with these columns.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/wordnet-categories/train.jsonl"))]
    train: PathBuf,
    /// What to measure with, in the same format.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/wordnet-categories/heldout.jsonl"))]
    heldout: PathBuf,
    /// Where the adapter goes.
    #[arg(long, default_value = "target/classify")]
    out: PathBuf,
    /// Write the scores of the held-out texts as the tensor `logits` [texts, labels], f32, to this safetensors file.
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,

    /// Where the bottlenecks are.
    #[arg(long, value_enum, default_value_t = Kind::Pfeiffer)]
    method: Kind,
    /// How many times narrower than the encoder they are.
    #[arg(long, default_value_t = 16.0)]
    reduction_factor: f64,
    /// The learning rate after the warm-up.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Passes over the data.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Texts that are computed at once.
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// The longest text, in tokens; what exceeds it is cut off and counted.
    #[arg(long, default_value_t = 128)]
    max_length: usize,
    /// Fixes the head's and the adapter's start, and the order of the data.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
    /// Texts to classify in the end.
    #[arg(default_values_t = ["a loud celebration in the street", "a small brown bird that sings at night", "hot soup with noodles"].map(str::to_owned))]
    texts: Vec<String>,
}

/// The forms that have names of their own.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// After the attention and the feed-forward network of each block.
    Houlsby,
    /// After the feed-forward network of each block.
    Pfeiffer,
    /// Beside the feed-forward network of each block.
    Parallel,
}

fn main() -> Result<()> {
    let begin = Instant::now();
    let args = Args::parse();
    let device = device::choose(args.device)?;
    let folder = model::find_or(args.model.as_deref(), &model::MINILM)?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let encoder = load_encoder(&Checkpoint::open(&folder)?, &device)?;

    let rows = read_labelled(&args.train)?;
    let labels = label_names(&rows);
    let model = Arc::new(SequenceClassifier::fresh(encoder.clone(), &labels, args.seed)?);
    let texts = LabelEncoder::new(&tokenizer, &labels, args.max_length)?;
    let train = examples(&texts, &args.train)?;
    let heldout = examples(&texts, &args.heldout)?;

    let config = match args.method {
        Kind::Houlsby => BottleneckConfig::houlsby(),
        Kind::Pfeiffer => BottleneckConfig::pfeiffer(),
        Kind::Parallel => BottleneckConfig::parallel(),
    };
    let config = config.with_reduction_factor(args.reduction_factor).with_head(true);
    let adapter = Bottleneck::new(model.as_ref(), config, args.seed)?
        .with_name("wordnet-categories")?
        .with_model_name(args.model.as_deref().map_or(model::MINILM.repo.into(), Path::to_string_lossy));
    println!("{}", trainable_parameters(model.as_ref(), &adapter));

    let config = TrainConfig {
        epochs: args.epochs,
        batch_size: args.batch_size,
        learning_rate: args.learning_rate,
        seed: args.seed,
        ..TrainConfig::default()
    };
    let before = evaluate(model.as_ref(), &NoAdapter, &heldout, config.batch_size, config.loss_chunk)?;
    let mut trainer = Trainer::new(model.clone(), adapter, config)?;
    let mut bar = progress::TrainingBar::new()?;
    trainer.fit(&train, &[], &mut bar)?;
    bar.finish();
    trainer.into_adapter().save(&args.out)?;

    // From here on as another program would: the encoder with another fresh head, which the folder's replaces.
    let model = SequenceClassifier::fresh(encoder, &Bottleneck::head_labels(&args.out)?, args.seed + 1)?;
    let adapter = Bottleneck::load(&model, &args.out)?;
    let after = evaluate(&model, &adapter, &heldout, config.batch_size, config.loss_chunk)?;
    for (when, result) in [("before", before), ("after", after)] {
        let right = 100.0 * result.accuracy.unwrap_or_default();
        println!("held-out {when}: {right:.1} % of {} right, loss {:.3}", heldout.len(), result.loss);
    }
    for text in &args.texts {
        let ids = tokenizer.encode_texts(&[text])?.remove(0).ids;
        let probabilities =
            activation::softmax(scores(&model, &adapter, &ids), 1).try_into_vec_as::<f32>()?;
        let likeliest = probabilities.into_iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (label, probability) = likeliest.expect("a classifier has a label");
        println!("{text}: {} ({:.0} %)", model.labels()[label], 100.0 * probability);
    }
    if let Some(path) = &args.scores {
        let rows = heldout.iter().map(|text| scores(&model, &adapter, &text.ids));
        let tensor = checkpoint::TensorData::from_tensor(Tensor::cat(rows.collect(), 0));
        save_safetensors(path, [("logits".to_owned(), tensor)], None)?;
    }
    let memory =
        progress::peak_memory_mb().map_or(String::new(), |mb| format!(", at most {mb} MB of memory"));
    println!("{:.0} s{memory}; the adapter is in {}", begin.elapsed().as_secs_f64(), args.out.display());
    Ok(())
}

fn examples(encoder: &LabelEncoder, path: &Path) -> Result<Vec<Labelled>> {
    let dataset = encoder.encode(&read_labelled(path)?, path)?;
    println!("{}: {} texts, {} of them cut off", path.display(), dataset.examples.len(), dataset.truncated);
    Ok(dataset.examples)
}

/// The labels' scores for one text, `[1, labels]`.
fn scores(model: &SequenceClassifier, adapter: &dyn Adapter, ids: &[u32]) -> Tensor<2> {
    let (length, device) = (ids.len(), model.encoder().device());
    let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [1, length]), &device);
    model.forward(ids, &[length], None, adapter)
}
