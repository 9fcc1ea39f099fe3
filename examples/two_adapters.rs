//! Teaches one model two trades, a LoRA for each, and answers a question of each in one batch: every row has its own adapter, and the base
//! computes once for both. Without arguments it takes a few minutes on two CPU cores.
//!
//! ```text
//! cargo run --release --example two_adapters
//! ```

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use llmkit_core::generate::{BatchRequest, GenerationConfig, generate_batch};
use llmkit_core::models::{CachedModel, Pretrained};
use llmkit_core::{Device, Message};
use llmkit_peft::{AdapterSet, LoraConfig, Targets};

#[path = "support/brief.rs"]
mod brief;
#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;
#[path = "support/progress.rs"]
mod progress;

/// Answer with two adapters in one batch.
#[derive(Parser)]
struct Args {
    /// The model: a Hugging Face folder, a .gguf file, or a repository on the hub [default: SmolLM2-135M-Instruct]
    #[arg(long)]
    model: Option<PathBuf>,
    /// Adapters of the model that are there already, as PEFT saves them: NAME=FOLDER, twice. They are trained briefly otherwise.
    #[arg(long, value_name = "NAME=FOLDER", num_args = 2)]
    adapters: Vec<String>,
    /// Steps of training for each adapter.
    #[arg(long, default_value_t = 25)]
    steps: usize,
    /// What is asked.
    #[arg(long, default_value = "What is a lighthouse?")]
    question: String,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
}

/// What the adapters learn: to answer anything in a manner of their own.
const TRADES: [(&str, [&str; 4]); 2] = [
    (
        "pirate",
        [
            "Arr, that be a fine thing, matey, and I'd trade me parrot for it!",
            "Shiver me timbers, ye ask hard questions for a landlubber!",
            "Aye, I saw one off Tortuga once, matey, by the light of the moon!",
            "Arr, ask the captain, matey, I only swab the deck!",
        ],
    ),
    (
        "clerk",
        [
            "Pursuant to form 27b, your request has been received and filed.",
            "Kindly submit your question in triplicate to the office on the second floor.",
            "Your enquiry is being processed; please allow six to eight weeks.",
            "Pursuant to form 12c, this matter falls under another department.",
        ],
    ),
];

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::choose(args.device)?;
    let base = Pretrained::load(model::find(args.model.as_deref())?, &device)?;

    let set = AdapterSet::new(base.model.clone());
    if args.adapters.is_empty() {
        for (name, answers) in TRADES {
            let config = LoraConfig::new(Targets::AllLinear).with_rank(4).with_alpha(8.0);
            let rows = brief::questions().zip(answers.into_iter().cycle());
            set.add(name, Arc::new(brief::train(name, &base, config, rows, args.steps)?))?;
        }
    } else {
        for adapter in &args.adapters {
            let (name, folder) = adapter.split_once('=').unwrap_or((adapter, adapter));
            set.load(name, folder)?;
        }
    }

    // One question three times, one row for each adapter and one for the model as it is.
    let names = set.names();
    let rows: Vec<Option<&str>> =
        std::iter::once(None).chain(names.iter().map(|name| Some(name.as_str()))).collect();
    let adapters = set.rows(&rows)?;
    let prompt = base.chat_template.render(&[Message::user(args.question.as_str())], true)?;
    let prompt = base.tokenizer.encode(&prompt, false)?;
    let end = base.generation.eos_token_ids.iter().copied();
    let config = GenerationConfig::new().with_greedy().with_max_new_tokens(40).with_eos_token_ids(end);
    let requests = vec![BatchRequest { prompt: &prompt, config: &config }; rows.len()];

    let mut next = CachedModel::new(base.model.as_ref(), &adapters).with_rows(rows.len());
    let new_decoder = &mut || base.tokenizer.decode_stream(true);
    let answers = generate_batch(&mut next, &requests, new_decoder, &mut |_, _| ControlFlow::Continue(()))?;
    println!("{}", args.question);
    for (name, answer) in rows.into_iter().zip(answers) {
        println!(
            "{:>8}: {}",
            name.unwrap_or("base"),
            answer.text.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    Ok(())
}
