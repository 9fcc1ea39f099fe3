//! Works an adapter into a model: trains one briefly (or loads one), merges it, checks that the merged model gives the same, and saves it as a
//! Hugging Face folder and as a GGUF file. Without arguments it takes a minute or two on two CPU cores.
//!
//! ```text
//! cargo run --release --example merge
//! ```

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use llmkit_core::checkpoint::gguf::GgufType;
use llmkit_core::models::{Pretrained, SaveOptions};
use llmkit_core::{Device, Message};
use llmkit_peft::{
    LoraConfig, Method, Spectrum, Targets, load_adapter, merge, rounding_report, save_merged_gguf,
    verify_merge,
};

#[path = "support/brief.rs"]
mod brief;
#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;
#[path = "support/progress.rs"]
mod progress;

/// Merge an adapter into a model, verify it, and save the result.
#[derive(Parser)]
struct Args {
    /// The model: a Hugging Face folder, a .gguf file, or a repository on the hub [default: SmolLM2-135M-Instruct]
    #[arg(long)]
    model: Option<PathBuf>,
    /// An adapter of any method that merges: a folder. One is trained briefly otherwise.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Steps of that training.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Where the folder `model`, the file `model.gguf` and the adapter's spectrum (`.txt`, `.svg`) go.
    #[arg(long, default_value = "target/merge")]
    out: PathBuf,
    /// How the GGUF file stores weights.
    #[arg(long, value_enum, default_value_t = Weights::Q8_0)]
    weights: Weights,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
}

#[derive(Clone, Copy, ValueEnum)]
#[allow(non_camel_case_types)]
enum Weights {
    F32,
    F16,
    Q8_0,
    Q4_0,
}

/// The largest difference that rounding in single precision explains, as a share of the largest output.
const TOLERANCE: f32 = 1e-4;

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::choose(args.device)?;
    let base = Pretrained::load(model::find(args.model.as_deref())?, &device)?;
    let adapter: Box<dyn Method> = match &args.adapter {
        Some(folder) => load_adapter(base.model.as_ref(), folder)?,
        None => {
            let config = LoraConfig::new(Targets::AllLinear).with_rank(8).with_alpha(16.0);
            let answers = ["Elementary, my dear Watson.", "The game is afoot, Watson!"];
            let rows = brief::questions().zip(answers.into_iter().cycle());
            Box::new(brief::train("detective", &base, config, rows, args.steps)?)
        }
    };

    let merged = merge(base.model.as_ref(), adapter.as_ref())?;
    let samples = brief::questions()
        .take(4)
        .map(|question| {
            let prompt = base.chat_template.render(&[Message::user(question)], true)?;
            base.tokenizer.encode(&prompt, false)
        })
        .collect::<llmkit_core::Result<Vec<_>>>()?;
    let report = verify_merge(base.model.as_ref(), merged.as_ref(), adapter.as_ref(), &samples)?;
    println!("{report}");
    ensure!(
        report.largest.size() <= TOLERANCE * report.largest_output,
        "the merged model computes something else"
    );

    std::fs::create_dir_all(&args.out)?;
    let spectrum = Spectrum::between(base.model.as_ref(), merged.as_ref(), 16)?;
    let table = spectrum.to_string();
    println!("{}", table.lines().last().unwrap_or_default());
    std::fs::write(args.out.join("spectrum.txt"), table)?;
    std::fs::write(args.out.join("spectrum.svg"), spectrum.to_svg())?;

    let merged = Pretrained { model: merged, ..base.clone() };
    merged.save(args.out.join("model"), SaveOptions::default())?;
    // The base comes out of a 4-bit file: in 4 bits again, a small update would be rounded away.
    for weights in [GgufType::Q4_0, GgufType::Q8_0] {
        let report = rounding_report(base.model.as_ref(), merged.model.as_ref(), weights)?;
        println!("as {weights:?}, {:.1} % of the update would be left", 100.0 * report.kept());
    }
    let weights = match args.weights {
        Weights::F32 => GgufType::F32,
        Weights::F16 => GgufType::F16,
        Weights::Q8_0 => GgufType::Q8_0,
        Weights::Q4_0 => GgufType::Q4_0,
    };
    save_merged_gguf(base.model.as_ref(), &merged, args.out.join("model.gguf"), weights)?;
    println!("the folder model, model.gguf, spectrum.txt and spectrum.svg are in {}", args.out.display());
    Ok(())
}
