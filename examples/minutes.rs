//! Takes the minutes of a meeting from its transcript, each entry with the words that show it; or answers a question about it by plan.
//!
//! ```text
//! cargo run --release --example minutes
//! cargo run --release --example minutes -- --transcript examples/data/meetings/release-zh.txt
//! cargo run --release --example minutes -- --transcript call.vtt --date 2026-11-24 --json
//! cargo run --release --example minutes -- --question "What is done about the ticket machines, and why?"
//! cargo run --release --example minutes -- --url http://localhost:11434/v1 --model qwen3:8b --context 16000
//! ```
//!
//! What the model writes down and the transcript does not show is listed apart at the end: with a small model that is most of it.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use llmkit_core::ChatRequest;
use llmkit_prompt::WithDefaults;
use llmkit_prompt::minutes::{MinutesTaker, Transcript};
use llmkit_prompt::pearl::{Actions, Pearl, PearlOutcome, PlainReason};

#[path = "support/chat_model.rs"]
mod chat_model;
#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;

/// Take the minutes of a meeting.
#[derive(Parser)]
struct Args {
    /// The transcript: lines such as `[00:01:02] Name: text`, WebVTT or SubRip.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/meetings/harbor-line.txt"))]
    transcript: PathBuf,
    /// The day of the meeting, from which "next Friday" counts.
    #[arg(long, default_value = "2026-11-24")]
    date: chrono::NaiveDate,
    /// Answer this question about the transcript instead, by a plan.
    #[arg(long)]
    question: Option<String>,
    #[command(flatten)]
    model: chat_model::ChatModel,
    /// The tokens that the model reads and writes at a time; longer transcripts are read in parts.
    #[arg(long, default_value_t = 2_500)]
    context: usize,
    /// The longest answer, in tokens.
    #[arg(long, default_value_t = 600)]
    answer: usize,
    /// Print the minutes as JSON.
    #[arg(long)]
    json: bool,
    /// Print every prompt and every answer as well.
    #[arg(long)]
    trace: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let text = fs::read_to_string(&args.transcript)
        .with_context(|| format!("cannot read {}", args.transcript.display()))?;
    let transcript = Transcript::parse(text)?;
    let model = args.model.open()?;
    let settings = ChatRequest { temperature: Some(0.0), ..ChatRequest::default() };
    let model = WithDefaults::new(model.as_ref(), settings);
    let began = Instant::now();

    if let Some(question) = &args.question {
        let pearl = Pearl::new(Actions::builtin())
            .with_context_tokens(args.context)
            .with_step_tokens(args.answer)
            .with_concurrency(1);
        let answer = pollster::block_on(pearl.run(&model, transcript.text(), question))?;
        if args.trace {
            println!("{}", answer.trace);
        }
        match &answer.value.outcome {
            PearlOutcome::Planned { plan, .. } => println!("By this plan:\n{plan}"),
            PearlOutcome::Plain { why: PlainReason::NoValidPlan { attempts } } => {
                println!("Without a plan: none of {} could be carried out. The last:", attempts.len());
                for problem in attempts.iter().flat_map(|attempt| &attempt.problems).take(3) {
                    println!("  {problem}");
                }
            }
            _ => println!("Without a plan."),
        }
        println!("\n{}\n", answer.value.text);
        println!("{} calls in {:.1} s", answer.trace.calls().count(), began.elapsed().as_secs_f64());
        return Ok(());
    }

    let taker = MinutesTaker::new()
        .with_date(args.date)
        .with_context_tokens(args.context)
        .with_answer_tokens(args.answer)
        .with_concurrency(1);
    let minutes = pollster::block_on(taker.run(&model, &transcript))?;
    if args.trace {
        println!("{}", minutes.trace);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&minutes.value)?);
    } else {
        println!("{}", minutes.value.to_markdown());
    }
    let usage = minutes.trace.usage();
    eprintln!(
        "{} turns, {} calls, {} tokens read and {} written in {:.1} s",
        transcript.turns().len(),
        minutes.trace.calls().count(),
        usage.prompt_tokens,
        usage.completion_tokens,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
