//! One LoRA training step, beside `peft_peer.py`: the same model, adapter, optimizer and batch.
//!
//! `cargo bench --bench train_step -- --model MODEL.gguf [--recompute]` prints one JSON line.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use burn::module::Module;
use clap::Parser;
use llmkit::Device;
use llmkit::checkpoint::Checkpoint;
use llmkit::models::load_causal_lm;
use llmkit::peft::data::{Batch, Example};
use llmkit::peft::train::{
    AdamW, AdamWConfig, Recompute, StepOptions, TrainConfig, loss_and_gradients, memory_plan,
};
use llmkit::peft::{Lora, LoraConfig, Targets};
use serde_json::json;

use support::{peak_rss_mib, random_ids};

mod support;

/// Times LoRA (rank 8, all seven projections, AdamW) on random tokens, all of them learned.
#[derive(Parser)]
struct Arguments {
    /// A model folder or a GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// Sequences a step.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Tokens a sequence.
    #[arg(long, default_value_t = 256)]
    tokens: usize,
    /// Measured steps.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Steps before measuring.
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Recompute each block in the backward pass.
    #[arg(long)]
    recompute: bool,
    /// Tokens scored over the vocabulary at a time.
    #[arg(long, default_value_t = 256)]
    loss_chunk: usize,
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
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let model = load_causal_lm(&checkpoint, &device)?;
    let mut lora = Lora::new(model.as_ref(), LoraConfig::new(Targets::AllLinear), 0)?.train();
    let mut optimizer = AdamW::new(AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() });
    let options = StepOptions {
        recompute: if arguments.recompute { Recompute::Blocks } else { Recompute::Off },
        loss_chunk: arguments.loss_chunk,
    };

    let config = TrainConfig {
        batch_size: arguments.batch,
        recompute: options.recompute,
        loss_chunk: options.loss_chunk,
        ..TrainConfig::default()
    };
    let parameters = lora.num_params() as u64;
    let plan = memory_plan(&checkpoint, &config, arguments.tokens, parameters)?;
    drop(checkpoint);

    let mut seconds = Vec::new();
    let mut random = 1_u64;
    for step in 0..arguments.warmup + arguments.steps {
        let examples: Vec<Example> = (0..arguments.batch)
            .map(|_| Example {
                ids: random_ids(arguments.tokens, model.vocab_size(), &mut random),
                prompt_len: 1,
            })
            .collect();
        let begin = Instant::now();
        let batch = Batch::new(&examples.iter().collect::<Vec<_>>(), &device);
        let mut output = loss_and_gradients(model.as_ref(), &lora, &batch, options);
        output.gradients.scale(1.0 / output.targets as f64);
        lora = optimizer.step(lora, &output.gradients, 1e-4);
        device.sync()?;
        if step >= arguments.warmup {
            seconds.push(begin.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let report = json!({
        "tokens_per_s": (arguments.batch * arguments.tokens) as f64 / median,
        "step_seconds_median": median,
        "step_seconds": seconds,
        "peak_rss_mb": peak_rss_mib(),
        "planned_peak_mb": plan.peak() >> 20,
        "recompute": arguments.recompute,
        "batch": arguments.batch,
        "tokens": arguments.tokens,
        "device": arguments.device.to_string(),
    });
    println!("{report}");
    Ok(())
}
