//! Writes a model's scores for a sequence of token ids, to be compared with those of other programs.
//!
//! ```text
//! cargo run --release --example logits -- --model MODEL --ids 1,2,3 --out logits.safetensors
//! ```

use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::tensor::{Tensor, TensorData};
use clap::Parser;
use llmkit_core::checkpoint::{self, Checkpoint};
use llmkit_core::models::load_causal_lm;
use llmkit_core::{Adapter, Device, NoAdapter};
use llmkit_peft::load_adapter;

#[path = "support/device.rs"]
mod device;

/// Write a model's logits for a sequence of token ids as the tensor `logits` [1, tokens, vocabulary], f32, in a safetensors file.
#[derive(Parser)]
struct Args {
    /// The model: a Hugging Face folder or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// An adapter on top of it, of any method: a folder as PEFT or AdapterHub saves it.
    #[arg(long)]
    adapter: Option<PathBuf>,
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

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::choose(args.device)?;
    let model = load_causal_lm(&Checkpoint::open(&args.model)?, &device)?;
    let loaded = args.adapter.map(|folder| load_adapter(model.as_ref(), folder)).transpose()?;
    let adapter: &dyn Adapter = match &loaded {
        Some(method) => method.as_ref(),
        None => &NoAdapter,
    };

    let vocabulary = model.vocab_size();
    ensure!(
        args.ids.iter().all(|id| (*id as usize) < vocabulary),
        "the model knows the ids below {vocabulary} only"
    );
    let shape = [1, args.ids.len()];
    let ids = args.ids.into_iter().map(|id| id as i32).collect::<Vec<_>>();
    let logits = model.forward(Tensor::from_data(TensorData::new(ids, shape), &device), adapter);

    let shape = logits.dims();
    let values = logits.into_data_as::<f32>().try_to_vec::<f32>()?;
    let tensor = checkpoint::TensorData::f32(shape, values);
    checkpoint::save_safetensors(&args.out, [("logits".to_owned(), tensor)], None)?;
    Ok(())
}
