//! Writes a model's scores for a sequence of token ids, to be compared with those of other programs.
//!
//! ```text
//! cargo run --release --example logits -- --model MODEL --ids 1,2,3 --out logits.safetensors
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use burn::tensor::{Int, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use llmkit_core::checkpoint::{self, Checkpoint};
use llmkit_core::models::{
    CausalLm, Encoder, MaskedLm, Model, SequenceClassifier, TokenClassifier, load_causal_lm, load_encoder,
    load_masked_lm, load_sequence_classifier, load_token_classifier,
};
use llmkit_core::{Adapter, Device, NoAdapter};
use llmkit_peft::load_adapter;

#[path = "support/device.rs"]
mod device;

/// Write a model's outputs for a sequence of token ids as the tensor `logits` [1, positions, outputs] (a sequence classifier's: [1, labels]), f32, in
/// a safetensors file. Positions of an adapter's prompt come first.
#[derive(Parser)]
struct Args {
    /// The model: a Hugging Face folder or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// What the model is to give; by default what its configuration's `architectures` says.
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// An adapter on top of it, of any method: a folder as PEFT or AdapterHub's `adapters` saves it.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Write the adapter to this folder again.
    #[arg(long, value_name = "FOLDER", requires = "adapter")]
    save_adapter: Option<PathBuf>,
    /// The token ids, with commas between them.
    #[arg(long, value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Task {
    /// The scores of the vocabulary for what follows each token.
    CausalLm,
    /// An encoder's vector for each token.
    Encoder,
    /// The scores of the vocabulary for each token itself.
    MaskedLm,
    /// The scores of labels for the sequence.
    Sequence,
    /// The scores of labels for each token.
    Token,
}

/// A model that gives something for each task.
enum Loaded {
    CausalLm(Arc<dyn CausalLm>),
    Encoder(Arc<dyn Encoder>),
    MaskedLm(MaskedLm),
    Sequence(SequenceClassifier),
    Token(TokenClassifier),
}

impl Loaded {
    fn open(args: &Args, device: &burn::tensor::Device) -> Result<Self> {
        let checkpoint = Checkpoint::open(&args.model)?;
        Ok(match args.task.unwrap_or_else(|| task(&checkpoint)) {
            Task::CausalLm => Self::CausalLm(load_causal_lm(&checkpoint, device)?),
            Task::Encoder => Self::Encoder(load_encoder(&checkpoint, device)?),
            Task::MaskedLm => Self::MaskedLm(load_masked_lm(&checkpoint, device)?),
            Task::Sequence => Self::Sequence(load_sequence_classifier(&checkpoint, device)?),
            Task::Token => Self::Token(load_token_classifier(&checkpoint, device)?),
        })
    }

    fn model(&self) -> &dyn Model {
        match self {
            Self::CausalLm(model) => model.as_ref(),
            Self::Encoder(model) => model.as_ref(),
            Self::MaskedLm(model) => model,
            Self::Sequence(model) => model,
            Self::Token(model) => model,
        }
    }

    fn vocabulary(&self) -> usize {
        match self {
            Self::CausalLm(model) => model.vocab_size(),
            Self::Encoder(model) => model.vocab_size(),
            Self::MaskedLm(model) => model.encoder().vocab_size(),
            Self::Sequence(model) => model.encoder().vocab_size(),
            Self::Token(model) => model.encoder().vocab_size(),
        }
    }

    /// Values and their shape.
    fn outputs(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Result<(Vec<f32>, Vec<usize>)> {
        let lengths = [ids.dims()[1]];
        match self {
            Self::CausalLm(model) => values(model.forward(ids, adapter)),
            Self::Encoder(model) => values(model.forward(ids, &lengths, None, adapter)),
            Self::MaskedLm(model) => values(model.forward(ids, &lengths, None, adapter)),
            Self::Sequence(model) => values(model.forward(ids, &lengths, None, adapter)),
            Self::Token(model) => values(model.forward(ids, &lengths, None, adapter)),
        }
    }
}

/// What the model was saved as.
fn task(checkpoint: &Checkpoint) -> Task {
    match checkpoint.config()["architectures"][0].as_str().unwrap_or_default() {
        name if name.ends_with("ForSequenceClassification") => Task::Sequence,
        name if name.ends_with("ForTokenClassification") => Task::Token,
        name if name.ends_with("ForMaskedLM") => Task::MaskedLm,
        name if name.ends_with("Model") => Task::Encoder,
        _ => Task::CausalLm,
    }
}

fn values<const D: usize>(outputs: Tensor<D>) -> Result<(Vec<f32>, Vec<usize>)> {
    let shape = outputs.dims().to_vec();
    Ok((outputs.into_data_as::<f32>().try_to_vec::<f32>()?, shape))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::choose(args.device)?;
    let loaded = Loaded::open(&args, &device)?;
    let method = args.adapter.as_ref().map(|folder| load_adapter(loaded.model(), folder)).transpose()?;
    let adapter: &dyn Adapter = match &method {
        Some(method) => method.as_ref(),
        None => &NoAdapter,
    };

    let vocabulary = loaded.vocabulary();
    if args.ids.is_empty() {
        bail!("at least one token id is needed");
    }
    ensure!(
        args.ids.iter().all(|id| (*id as usize) < vocabulary),
        "the model knows the ids below {vocabulary} only"
    );
    let shape = [1, args.ids.len()];
    let ids = args.ids.into_iter().map(|id| id as i32).collect::<Vec<_>>();
    let (values, shape) = loaded.outputs(Tensor::from_data(TensorData::new(ids, shape), &device), adapter)?;
    let tensor = checkpoint::TensorData::f32(shape, values);
    checkpoint::save_safetensors(&args.out, [("logits".to_owned(), tensor)], None)?;
    if let Some((method, folder)) = method.zip(args.save_adapter) {
        method.save(&folder)?;
    }
    Ok(())
}
