//! What a model will take of the memory, planned from its configuration and headers; and what it then takes.
//!
//! ```text
//! cargo run --release --example memory -- --model MODEL
//! ```

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use clap::{Parser, ValueEnum};
use llmkit::Device;
use llmkit::NoAdapter;
use llmkit::checkpoint::Checkpoint;
use llmkit::generate::{NextToken, PREFILL_CHUNK};
use llmkit::models::{CachedModel, MemoryPlan, load_causal_lm};
use llmkit::peft::data::{Batch, Example};
use llmkit::peft::train::{
    AdamW, AdamWConfig, Recompute, StepOptions, TrainConfig, loss_and_gradients, memory_plan,
};
use llmkit::peft::{Lora, LoraConfig, Targets};

/// Print what a model will take of the memory, planned before it is loaded, beside what it takes: each row is measured in a process of its
/// own. Works on Linux, on the CPU.
#[derive(Parser)]
struct Args {
    /// The model: a Hugging Face folder or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// The length of the sequences in tokens.
    #[arg(long, default_value_t = 576)]
    tokens: usize,
    /// How many sequences a training step has.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Measure this one alone, and print the planned and the measured peak in MiB.
    #[arg(long)]
    only: Option<Work>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Work {
    /// Load the model, read a prompt, and write 64 tokens.
    Generation,
    /// Two training steps of a LoRA on all linear layers.
    Training,
    /// The same, recomputing one block at a time.
    Recomputing,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(work) = args.only {
        let plan = run(&args, work)?;
        println!("{plan}");
        println!("{:16} {:>10.1} MiB", "measured", peak_memory()?);
        return Ok(());
    }
    for work in Work::value_variants() {
        let value = work.to_possible_value().context("every kind of work has a name")?;
        let name = value.get_name();
        let mut child = Command::new(std::env::current_exe()?);
        child.arg("--model").arg(&args.model).args(["--only", name]);
        child.args(["--tokens", &args.tokens.to_string(), "--batch", &args.batch.to_string()]);
        let output = child.output()?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        println!("{name}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// Does the work, and gives what was planned for it.
fn run(args: &Args, work: Work) -> Result<MemoryPlan> {
    let device = Device::Cpu.resolve()?;
    let checkpoint = Checkpoint::open(&args.model)?;
    let recompute = match work {
        Work::Generation => {
            let plan = MemoryPlan::generation(&checkpoint, 1, args.tokens)?;
            let model = load_causal_lm(&checkpoint, &device)?;
            let (mut next, mut logits) = (CachedModel::new(model.as_ref(), &NoAdapter), Vec::new());
            let ids = ids(args.tokens, model.vocab_size());
            let (prompt, answer) = ids.split_at(args.tokens.saturating_sub(64));
            for chunk in prompt.chunks(PREFILL_CHUNK).chain(answer.chunks(1)) {
                next.feed(chunk, &mut logits)?;
            }
            return Ok(plan);
        }
        Work::Training => Recompute::Off,
        Work::Recomputing => Recompute::Blocks,
    };
    let model = load_causal_lm(&checkpoint, &device)?;
    let mut lora = Lora::new(model.as_ref(), LoraConfig::new(Targets::AllLinear), 0)?.train();
    let config = TrainConfig { batch_size: args.batch, recompute, ..TrainConfig::default() };
    let plan = memory_plan(&checkpoint, &config, args.tokens, lora.num_params() as u64)?;
    let options = StepOptions { recompute, loss_chunk: config.loss_chunk };
    let example = Example { ids: ids(args.tokens, model.vocab_size()), prompt_len: 1 };
    let batch = Batch::new(&vec![&example; args.batch], &device);
    let mut optimizer = AdamW::new(AdamWConfig::default());
    for _ in 0..2 {
        let output = loss_and_gradients(model.as_ref(), &lora, &batch, options);
        lora = optimizer.step(lora, &output.gradients, 1e-4);
    }
    Ok(plan)
}

fn ids(len: usize, vocab: usize) -> Vec<u32> {
    (0..len).map(|index| (index * 7919 % vocab) as u32).collect()
}

/// The highest resident memory of this process, in MiB.
fn peak_memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("the peak is known on Linux only")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes =
        line.and_then(|line| line.trim().strip_suffix("kB")).context("the system tells no peak")?;
    Ok(kibibytes.trim().parse::<f64>()? / 1024.0)
}
