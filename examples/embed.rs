//! Finds the lines of a text that mean most nearly what a question means.
//!
//! ```text
//! cargo run --release --example embed -- --query "how much memory does training take" docs/src/*.md
//! ls -R | cargo run --release --example embed -- --query "a picture of a cat"
//! ```

use std::cmp::Reverse;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use llmkit_core::Device;
use llmkit_core::checkpoint::{TensorData, save_safetensors};
use llmkit_core::embed::SentenceEncoder;

#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;

/// Find the lines that mean most nearly what a question means. Reads the files given, or the standard input.
#[derive(Parser)]
struct Args {
    /// What to look for.
    #[arg(long, required_unless_present = "out")]
    query: Option<String>,
    /// How many lines to show.
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Write the lines' vectors as the tensor `embeddings` [lines, dimensions], f32, to this safetensors file.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The model: a folder of sentence-transformers, or a repository on the hub [default: all-MiniLM-L6-v2]
    #[arg(long)]
    model: Option<PathBuf>,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
    /// Files of text, one passage a line.
    files: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::choose(args.device)?;
    let encoder = SentenceEncoder::load(model::find_or(args.model.as_deref(), &model::MINILM)?, &device)?;

    let text = read(&args.files)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(!lines.is_empty(), "there is no text to search");
    let start = Instant::now();
    let vectors = encoder.encode_documents(&lines)?;
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{} lines in {seconds:.2} s, {:.0} a second", lines.len(), lines.len() as f64 / seconds);

    if let Some(path) = &args.out {
        let shape = [lines.len(), encoder.dimensions()];
        let tensor = TensorData::f32(shape, vectors.concat());
        save_safetensors(path, [("embeddings".to_owned(), tensor)], None)?;
    }
    if let Some(query) = &args.query {
        let query = encoder.encode_queries(&[query])?.concat();
        let mut found: Vec<(f32, &str)> =
            lines.iter().zip(&vectors).map(|(line, vector)| (cosine(&query, vector), *line)).collect();
        found.sort_by_key(|(score, _)| Reverse((score * 1e6) as i64));
        for (score, line) in found.iter().take(args.top) {
            println!("{score:.3}  {}", line.trim());
        }
    }
    Ok(())
}

fn read(files: &[PathBuf]) -> Result<String> {
    let mut text = String::new();
    if files.is_empty() {
        io::stdin().read_to_string(&mut text)?;
    }
    for file in files {
        text += &fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        text.push('\n');
    }
    Ok(text)
}

/// The cosine of the angle between two vectors.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}
