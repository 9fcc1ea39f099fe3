//! Gives a small model a task and tools: a calculator, a clock, a folder of notes to search and read, and one that writes a note, about which you
//! are asked first.
//!
//! ```text
//! cargo run --release --example agent -- "What is 17 * 23 + 4?"
//! cargo run --release --example agent -- --model Qwen/Qwen3-0.6B "Which dish serves the most, and what do six of them cost?"
//! cargo run --release --example agent -- --url http://localhost:8080/v1 --model qwen3 "Note down what the tureen costs."
//! ```
//!
//! A model whose template has tool calls makes those; any other writes its steps as text (ReAct). Either way the run ends by an answer or at a
//! limit, and its whole trace is printed. The default model has 135 million parameters: it shows the machinery, not what agents can do.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use llmkit_core::ChatRequest;
use llmkit_prompt::WithDefaults;
use llmkit_prompt::agent::{
    Agent, AgentEvent, Decision, FnTool, Limits, NoArguments, Protocol, Question, ToolError, Toolbox,
    calculator, current_time, sync_tool,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[path = "support/chat_model.rs"]
mod chat_model;
#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;

use chat_model::ChatModel;

/// Give a model a task and tools.
#[derive(Parser)]
struct Args {
    /// What is to be done.
    #[arg(default_value = "What is 17 * 23 + 4?")]
    task: String,
    #[command(flatten)]
    model: ChatModel,
    /// How the model calls tools.
    #[arg(long, value_enum, default_value_t = Calls::Auto)]
    calls: Calls,
    /// The notes: a folder of .md files.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/notes"))]
    notes: PathBuf,
    /// The model's most turns.
    #[arg(long, default_value_t = 8)]
    steps: usize,
    /// The longest that it may take, in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// The longest turn, in tokens.
    #[arg(long, default_value_t = 200)]
    max_new_tokens: usize,
    /// How freely to choose: 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Calls {
    /// As the model is able to.
    Auto,
    /// By its own tool calls.
    Native,
    /// As text.
    React,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.notes.is_dir(), "{} is no folder", args.notes.display());
    let agent = Agent::new(tools(&args.notes)?)
        .with_system("You answer questions about a kitchen. Use the tools to look things up and to reckon.")
        .with_protocol(match args.calls {
            Calls::Auto => Protocol::Auto,
            Calls::Native => Protocol::Native,
            Calls::React => Protocol::ReAct,
        })
        .with_limits(Limits::default().with_steps(args.steps).with_time(Duration::from_secs(args.seconds)))
        .with_last_answer()
        .with_approval(ask_at_the_terminal)
        .on_event(show);

    let settings = ChatRequest {
        max_tokens: Some(args.max_new_tokens),
        temperature: Some(args.temperature),
        seed: Some(0),
        ..ChatRequest::default()
    };
    let model = WithDefaults::new(args.model.open()?, settings);
    let run = pollster::block_on(agent.run(&model, args.task))?;

    println!("\n=== the trace ===\n{}", run.trace);
    let run = run.value;
    println!("{} turns, {} calls of tools, {}", run.steps, run.tool_calls, run.outcome);
    match (run.answer(), &run.text) {
        (Some(answer), _) => println!("answer: {answer}"),
        (None, Some(text)) => println!("no answer; the best there is of one: {text}"),
        (None, None) => println!("no answer"),
    }
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
struct Search {
    /// One or two words that the note should contain.
    words: String,
}

#[derive(Deserialize, JsonSchema)]
struct Read {
    /// The note's name, as the search gives it.
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct Note {
    /// The new note's name: letters, digits and hyphens.
    name: String,
    /// What it says.
    text: String,
}

#[derive(Serialize)]
struct Found {
    name: String,
    line: String,
}

fn tools(folder: &Path) -> Result<Toolbox> {
    let (search, read, write, list) =
        (folder.to_owned(), folder.to_owned(), folder.to_owned(), folder.to_owned());
    let list: FnTool =
        sync_tool("list_notes", "Lists the names of all notes.", move |_: NoArguments| names(&list))
            .read_only();
    let search =
        sync_tool("search_notes", "Finds the notes that contain some words.", move |args: Search| {
            find(&search, &args.words)
        })
        .read_only()
        .with_untrusted_output();
    let read = sync_tool("read_note", "Reads a note.", move |args: Read| {
        // A name out of the list, so that no path leads out of the folder.
        if !names(&read)?.contains(&args.name) {
            return Err(ToolError::new(format!("there is no note `{}`", args.name)));
        }
        Ok(fs::read_to_string(read.join(args.name + ".md"))?)
    })
    .read_only()
    .with_untrusted_output()
    .with_output_limit(4_000);
    let write = sync_tool("write_note", "Writes a new note.", move |args: Note| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if args.name.is_empty() || args.name.len() > 60 || !args.name.chars().all(is_plain) {
            return Err(ToolError::new("a note's name is of at most 60 letters, digits and hyphens"));
        }
        if names(&write)?.contains(&args.name) {
            return Err(ToolError::new(format!("there is a note `{}` already", args.name)));
        }
        fs::write(write.join(format!("{}.md", args.name)), args.text)?;
        Ok("written")
    })
    .with_approval();
    Ok(Toolbox::new([calculator(), current_time(), list, search, read, write])?)
}

fn names(folder: &Path) -> Result<Vec<String>, ToolError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "md") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// The lines that have all of the words, at most ten.
fn find(folder: &Path, words: &str) -> Result<Vec<Found>, ToolError> {
    let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    if words.is_empty() {
        return Err(ToolError::new("there are no words to look for"));
    }
    let mut found = Vec::new();
    for name in names(folder)? {
        let text = fs::read_to_string(folder.join(format!("{name}.md")))?;
        for line in text.lines() {
            let lower = line.to_lowercase();
            if words.iter().all(|word| lower.contains(word)) && found.len() < 10 {
                found.push(Found { name: name.clone(), line: line.to_owned() });
            }
        }
    }
    Ok(found)
}

fn ask_at_the_terminal(question: &Question<'_>) -> Decision {
    eprint!("\nThe model wants {} {}\n[y]es, [n]o, or [s]top? ", question.call.name, question.call.arguments);
    let mut line = String::new();
    let read = io::stderr().flush().and_then(|()| io::stdin().lock().read_line(&mut line));
    match (read, line.trim()) {
        (Ok(_), "y" | "yes") => Decision::Allow,
        (Ok(_), "s" | "stop") => Decision::Stop,
        // Nobody there is no.
        _ => Decision::deny("the user said no"),
    }
}

fn show(event: AgentEvent) {
    match event {
        AgentEvent::Step { step } => print!("\n--- turn {step} ---\n"),
        AgentEvent::Text(text) | AgentEvent::Reasoning(text) => print!("{text}"),
        AgentEvent::Unreadable { reason } => print!("\n[not readable: {reason}]"),
        AgentEvent::ToolStarted(call) => print!("\n[{} {}]", call.name, call.arguments),
        AgentEvent::ToolFinished(run) => println!("\n[-> {}]", run.result),
        AgentEvent::Finished(outcome) => println!("\n--- {outcome} ---"),
        _ => {}
    }
    // A terminal that is gone is no reason to stop.
    let _ = io::stdout().flush();
}
