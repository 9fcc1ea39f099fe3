//! Talks with a model, and with an adapter that was trained for it.
//!
//! ```text
//! cargo run --release --example chat
//! cargo run --release --example chat -- --adapter target/finetune/adapter
//! echo 'Define the word "harbor".' | cargo run --release --example chat
//! ```

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use llmkit_core::engine::{Engine, EngineConfig};
use llmkit_core::models::Pretrained;
use llmkit_core::{ChatRequest, Device, Message};
use llmkit_peft::{Method, load_adapter};

#[path = "support/device.rs"]
mod device;
#[path = "support/interrupt.rs"]
mod interrupt;
#[path = "support/model.rs"]
mod model;

/// The adapter's name for the engine.
const ADAPTER: &str = "adapter";

/// Talk with a model. Each line of the input is a message; /reset forgets the conversation, /quit or Ctrl-D leaves, and Ctrl-C stops an
/// answer.
#[derive(Parser)]
struct Args {
    /// The model: a Hugging Face folder, a .gguf file, or a repository on the hub [default: SmolLM2-135M-Instruct]
    #[arg(long)]
    model: Option<PathBuf>,
    /// A LoRA on top of it: a folder as PEFT saves it.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Instructions that hold for the whole conversation.
    #[arg(long)]
    system: Option<String>,
    /// How freely to choose: 0 always takes the likeliest token [default: what the model's own file says, else 0]
    #[arg(long)]
    temperature: Option<f32>,
    /// Choose among the likeliest tokens with this much probability together, above 0 and up to 1.
    #[arg(long)]
    top_p: Option<f32>,
    /// Fixes the choices.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The longest answer, in tokens.
    #[arg(long, default_value_t = 512)]
    max_new_tokens: usize,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::choose(args.device)?;
    let pretrained = Pretrained::load(model::find(args.model.as_deref())?, &device)?;
    let mut config = EngineConfig::new("chat");
    if let Some(folder) = &args.adapter {
        let adapter = load_adapter(pretrained.model.as_ref(), folder)?;
        config = config.with_adapter(ADAPTER, Arc::from(adapter) as Arc<dyn Method>);
    }
    let settings = ChatRequest {
        max_tokens: Some(args.max_new_tokens),
        temperature: args.temperature,
        top_p: args.top_p,
        seed: Some(args.seed),
        adapter: args.adapter.map(|_| ADAPTER.to_owned()),
        ..ChatRequest::default()
    };
    pretrained.generation.for_request(&settings).validate()?;
    // It remembers the conversation, so that each turn reads only what is new.
    let engine = Engine::start(pretrained, config)?;

    let answering = interrupt::Answering::install()?;
    let beginning: Vec<Message> = args.system.map(Message::system).into_iter().collect();
    let mut conversation = beginning.clone();
    while let Some(line) = read_line()? {
        match line.as_str() {
            "" => continue,
            "/quit" => break,
            "/reset" => {
                conversation.clone_from(&beginning);
                continue;
            }
            _ => conversation.push(Message::user(line)),
        }
        let running = answering.begin();
        let (begin, mut tokens) = (Instant::now(), 0);
        let request = ChatRequest { messages: conversation.clone(), ..settings.clone() };
        let answer = engine.chat_blocking_with(request, &mut |text| {
            tokens += 1;
            if show(text).is_err() || running.interrupted() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        drop(running);
        show("\n")?;
        match answer {
            Ok(answer) => {
                let usage = answer.usage;
                // A cancelled answer has no usage; its pieces are about as many as its tokens.
                let tokens = usage.completion_tokens.max(tokens);
                let read = usage.prompt_tokens - usage.cached_tokens;
                let seconds = begin.elapsed().as_secs_f64();
                eprintln!("[{read} tokens read, {tokens} written, {:.1} tokens/s]", tokens as f64 / seconds);
                conversation.push(answer.message);
            }
            Err(error) => {
                // Most likely the conversation has outgrown the context.
                eprintln!("{error}\n(/reset starts anew)");
                conversation.pop();
            }
        }
    }
    Ok(())
}

fn read_line() -> Result<Option<String>> {
    if io::stdin().is_terminal() {
        show("> ")?;
    }
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}

fn show(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}
