//! Loading, reading a prompt, and generating, beside `inference_peer.py`.
//!
//! `cargo bench --bench inference -- --model MODEL.gguf` prints one JSON line.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use llmkit::checkpoint::Checkpoint;
use llmkit::generate::{NextToken, PREFILL_CHUNK};
use llmkit::models::{CachedModel, MemoryPlan, load_causal_lm};
use llmkit::{Device, NoAdapter};
use serde_json::json;

use support::{peak_rss_mib, random_ids};

mod support;

/// Times a prompt of random tokens and greedy generation after it.
#[derive(Parser)]
struct Arguments {
    /// A model folder or a GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens generated after it.
    #[arg(long, default_value_t = 64)]
    new: usize,
    /// Measured runs; the first of all is not counted.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where to run.
    #[arg(long, default_value = "auto")]
    device: Device,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let device = arguments.device.resolve()?;
    let begin = Instant::now();
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let plan = MemoryPlan::generation(&checkpoint, 1, arguments.prompt + arguments.new)?;
    let model = load_causal_lm(&checkpoint, &device)?;
    drop(checkpoint);
    device.sync()?;
    let load = begin.elapsed().as_secs_f64();
    let after_load = peak_rss_mib();

    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let prompt = random_ids(arguments.prompt, model.vocab_size(), &mut 1);
    let mut logits = Vec::new();
    for run in 0..=arguments.runs {
        let mut next = CachedModel::new(model.as_ref(), &NoAdapter);
        let begin = Instant::now();
        for chunk in prompt.chunks(PREFILL_CHUNK) {
            next.feed(chunk, &mut logits)?;
        }
        let read = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        for _ in 0..arguments.new {
            let likeliest = (0..).zip(&logits).max_by(|a: &(u32, _), b| f32::total_cmp(a.1, b.1));
            let id = likeliest.expect("a model scores at least one token").0;
            next.feed(&[id], &mut logits)?;
        }
        if run > 0 {
            prefill.push(arguments.prompt as f64 / read);
            decode.push(arguments.new as f64 / begin.elapsed().as_secs_f64());
        }
    }
    let report = json!({
        "load_s": load,
        "prefill_tokens_per_s": median(&mut prefill),
        "decode_tokens_per_s": median(&mut decode),
        "peak_rss_mb_after_load": after_load,
        "peak_rss_mb": peak_rss_mib(),
        "planned_peak_mb": plan.peak() >> 20,
        "prompt": arguments.prompt,
        "new": arguments.new,
        "device": arguments.device.to_string(),
    });
    println!("{report}");
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
