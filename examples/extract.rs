//! Turns orders in plain words into rows of a table: each letter becomes a value of the type `Order`, whatever model answers.
//!
//! ```text
//! cargo run --release --example extract
//! cargo run --release --example extract -- --model qwen2.5 --url http://localhost:11434/v1
//! ```
//!
//! The default model runs here and is held to the type's JSON schema while it writes, so its answers always have the right form. What they say is another
//! matter: with 135 million parameters it gets names and counts wrong.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use llmkit_core::{ChatRequest, Message};
use llmkit_prompt::typed::Typed;
use llmkit_prompt::{Run, WithDefaults};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[path = "support/chat_model.rs"]
mod chat_model;
#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;

/// Turn orders in plain words into a table.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: chat_model::ChatModel,
    /// The letters, with an empty line between two.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/orders/orders.txt"))]
    letters: PathBuf,
    /// The longest answer, in tokens.
    #[arg(long, default_value_t = 200)]
    max_tokens: usize,
    /// Shows what was asked and answered.
    #[arg(long)]
    trace: bool,
}

/// An order.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Order {
    /// The customer's full name.
    customer: String,
    /// The city that the goods are sent to.
    city: String,
    /// What is ordered. The bound is part of the schema; without one, a small model fills the list for ever.
    #[schemars(length(min = 1, max = 4))]
    items: Vec<Item>,
    /// By when, in the customer's words, if they say so.
    deadline: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Item {
    /// How many.
    count: u32,
    /// What, with its color, size or material.
    #[schemars(length(max = 60))]
    what: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let text = fs::read_to_string(&args.letters)
        .with_context(|| format!("cannot read the letters from {}", args.letters.display()))?;
    let letters: Vec<&str> = text.split("\n\n").map(str::trim).filter(|letter| !letter.is_empty()).collect();
    ensure!(!letters.is_empty(), "{} holds no letters", args.letters.display());

    let defaults =
        ChatRequest { max_tokens: Some(args.max_tokens), temperature: Some(0.0), ..ChatRequest::default() };
    let model = WithDefaults::new(args.model.open()?, defaults);
    let order = Typed::<Order>::new().with_check(|order| {
        (!order.items.is_empty()).then_some(()).ok_or_else(|| "expected at least one item".to_owned())
    });

    let mut failed = 0;
    for letter in &letters {
        println!("{letter}\n");
        let run = Run::new("extract", &model);
        let messages =
            vec![Message::user(format!("Read this letter and write down the order in it.\n\n{letter}"))];
        // The answer so far, on one line that grows.
        let mut show = |value: &serde_json::Value| {
            eprint!("\r{value}");
            let _ = std::io::stderr().flush();
        };
        let answer = pollster::block_on(order.stream_in(&run, messages, &mut show));
        eprintln!();
        let answer = run.finish(answer);
        match &answer.value {
            Ok(order) => {
                println!("  customer: {}\n  city:     {}", order.customer, order.city);
                for item in &order.items {
                    println!("  item:     {} x {}", item.count, item.what);
                }
                println!("  deadline: {}\n", order.deadline.as_deref().unwrap_or("-"));
            }
            Err(error) => {
                failed += 1;
                println!("  no order: {error}\n");
            }
        }
        if args.trace {
            println!("{}", answer.trace);
        }
    }
    println!("{} of {} letters read.", letters.len() - failed, letters.len());
    Ok(())
}
