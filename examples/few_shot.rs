//! Measures what examples in a prompt are worth, and how they are chosen: a small chat model sorts definitions of words into categories, without
//! examples, and with some that are chosen by lot, by common words, by meaning, and by meaning and variety.
//!
//! ```text
//! cargo run --release --example few_shot
//! cargo run --release --example few_shot -- --limit 320 --shots 4 --token-budget 120
//! cargo run --release --example few_shot -- --pool mine.jsonl --heldout other.jsonl --instruction "Sort the text."
//! ```
//!
//! Every method sees the same questions, the same instruction and the same model, which answers greedily; the answer counts as the
//! category that it names first. A question is never among its own examples.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use llmkit_core::embed::SentenceEncoder;
use llmkit_core::engine::{Engine, EngineConfig};
use llmkit_core::models::Pretrained;
use llmkit_core::{ChatRequest, ChatResponse, Device, LanguageModel};
use llmkit_prompt::few_shot::{
    Example, Examples, FewShot, KnnSelector, MmrSelector, NgramSelector, RandomSelector,
};
use llmkit_prompt::{ChatPrompt, Role};
use serde_json::json;

#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;

/// Measure what examples in a prompt are worth.
#[derive(Parser)]
struct Args {
    /// The chat model: a Hugging Face folder, a .gguf file, or a repository on the hub [default: SmolLM2-135M-Instruct]
    #[arg(long)]
    model: Option<PathBuf>,
    /// The model that compares texts: a folder of sentence-transformers, or a repository on the hub [default: all-MiniLM-L6-v2]
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// The examples to choose from: JSONL with `text` and `label`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/wordnet-categories/train.jsonl"))]
    pool: PathBuf,
    /// The questions, in the same format.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/wordnet-categories/heldout.jsonl"))]
    heldout: PathBuf,
    /// What the model is told to do; the categories are listed after it.
    #[arg(long, default_value = "Sort the definition into one of these categories:")]
    instruction: String,
    /// How many of the questions are asked, from the first.
    #[arg(long, default_value_t = 96)]
    limit: usize,
    /// How many examples a prompt has.
    #[arg(long, default_value_t = 8)]
    shots: usize,
    /// The most tokens that they may take.
    #[arg(long, default_value_t = 600)]
    token_budget: usize,
    /// For maximal marginal relevance: the weight of being like the question against being unlike each other, from 0 to 1.
    #[arg(long, default_value_t = 0.5)]
    lambda: f64,
    /// Fixes the draw of the random examples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The longest answer, in tokens.
    #[arg(long, default_value_t = 24)]
    max_new_tokens: usize,
    /// Where to compute: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
}

/// The conversation into which the examples go, before its last turn.
const SYSTEM: &str = "{{ instruction }} {{ labels | join(', ') }}. Answer with the category only.";
const QUESTION: &str = "Definition: {{ text }}";
const ANSWER: &str = "{{ label }}";

fn main() -> Result<()> {
    let args = Args::parse();
    let pool = Examples::from_jsonl(&args.pool)?;
    let heldout = Examples::from_jsonl(&args.heldout)?;
    let labels = labels(&pool)?;
    let rows = questions(&heldout, &labels, args.limit)?;

    let device = device::choose(args.device.clone())?;
    let encoder = SentenceEncoder::load(model::find_or(args.encoder.as_deref(), &model::MINILM)?, &device)?;
    let pretrained = Pretrained::load(model::find(args.model.as_deref())?, &device)?;
    let few_shot = FewShot::new(pool, QUESTION, ANSWER)?
        .with_counter(pretrained.tokenizer.clone())
        .with_token_budget(args.token_budget);
    let prompt = ChatPrompt::new(
        "sort",
        [(Role::System, SYSTEM), (Role::User, QUESTION)],
        ["instruction", "labels", "text"],
    )?;
    let engine = Engine::start(pretrained, EngineConfig::new("few-shot"))?;

    let methods = [
        ("zero-shot", None),
        ("random", Some(few_shot.clone().with_selector(RandomSelector::new(args.seed), args.shots))),
        ("n-gram overlap", Some(few_shot.clone().with_selector(NgramSelector::new(), args.shots))),
        (
            "nearest (kNN)",
            Some(few_shot.clone().with_selector(KnnSelector::new(encoder.clone()), args.shots)),
        ),
        (
            "near and varied (MMR)",
            Some(few_shot.with_selector(MmrSelector::new(encoder).with_lambda(args.lambda)?, args.shots)),
        ),
    ];
    println!(
        "{} questions, {} categories, {} examples a prompt out of {}",
        rows.len(),
        labels.len(),
        args.shots,
        args.pool.display()
    );
    println!(
        "{:<22} {:>8}  {:<14} {:>7} {:>9} {:>9} {:>10}",
        "", "right", "95 % interval", "none", "tokens", "seconds", "p"
    );
    let mut zero: Option<Outcome> = None;
    let mut last = None;
    for (name, few_shot) in &methods {
        let task = Task { model: &engine, prompt: &prompt, labels: &labels, args: &args };
        let outcome = task.run(few_shot.as_ref(), &rows)?;
        outcome.print(name, zero.as_ref());
        last = few_shot.as_ref();
        zero.get_or_insert(outcome);
    }
    println!(
        "right: of all questions; none: answers that name no category; tokens: read for a question; p: how likely it is that as many \
         questions or more\nchange between wrong and right beside zero-shot by chance (McNemar's test, exact, two-sided)"
    );
    if let (Some(few_shot), Some(row)) = (last, rows.first()) {
        let shots = pollster::block_on(few_shot.select(json!({ "text": row.text })))?;
        println!("\nFor `{}`, the last method has\n{shots}", row.text);
    }
    Ok(())
}

/// A definition and its category.
struct Row {
    text: String,
    label: String,
}

/// The categories, sorted.
fn labels(pool: &Examples) -> Result<Vec<String>> {
    let label = |example: &Example| example.text("label").context("the examples have no field `label`");
    let mut labels: Vec<String> = pool.as_slice().iter().map(label).collect::<Result<_>>()?;
    labels.sort_unstable();
    labels.dedup();
    Ok(labels)
}

fn questions(heldout: &Examples, labels: &[String], limit: usize) -> Result<Vec<Row>> {
    ensure!(limit > 0, "--limit 0 asks nothing");
    let row = |example: &Example| {
        let text = example.text("text").context("the questions have no field `text`")?;
        let label = example.text("label").context("the questions have no field `label`")?;
        ensure!(labels.contains(&label), "no example shows the category `{label}`, which a question has");
        Ok(Row { text, label })
    };
    heldout.as_slice().iter().take(limit).map(row).collect()
}

/// What one method is measured with.
struct Task<'a> {
    model: &'a dyn LanguageModel,
    prompt: &'a ChatPrompt,
    labels: &'a [String],
    args: &'a Args,
}

impl Task<'_> {
    fn run(&self, few_shot: Option<&FewShot>, rows: &[Row]) -> Result<Outcome> {
        let (begin, mut outcome) = (Instant::now(), Outcome::default());
        for row in rows {
            let answer = pollster::block_on(self.ask(few_shot, row))?;
            outcome.tokens += answer.usage.prompt_tokens;
            let named = first_named(&answer.message.content, self.labels);
            outcome.nothing += usize::from(named.is_none());
            outcome.right.push(named == Some(row.label.as_str()));
        }
        outcome.seconds = begin.elapsed().as_secs_f64();
        Ok(outcome)
    }

    async fn ask(&self, few_shot: Option<&FewShot>, row: &Row) -> Result<ChatResponse> {
        let values = json!({ "instruction": self.args.instruction, "labels": self.labels, "text": row.text });
        let mut messages = self.prompt.render(&values)?;
        if let Some(few_shot) = few_shot {
            messages = few_shot.select(&values).await?.insert_into(messages);
        }
        let request = ChatRequest {
            max_tokens: Some(self.args.max_new_tokens),
            temperature: Some(0.0),
            ..ChatRequest::new(messages)
        };
        Ok(self.model.chat(request).await?)
    }
}

/// The label that stands first in the text; of two at the same place, the longer.
fn first_named<'a>(text: &str, labels: &'a [String]) -> Option<&'a str> {
    let text = text.to_lowercase();
    let place = |label: &&String| text.find(&label.to_lowercase());
    let named = labels.iter().filter(|label| place(label).is_some());
    named.min_by_key(|label| (place(label), Reverse(label.len()))).map(String::as_str)
}

/// How a method did.
#[derive(Default)]
struct Outcome {
    /// Question by question.
    right: Vec<bool>,
    /// Answers that name no label.
    nothing: usize,
    tokens: usize,
    seconds: f64,
}

impl Outcome {
    fn print(&self, name: &str, baseline: Option<&Self>) {
        let (count, right) = (self.right.len(), self.right.iter().filter(|right| **right).count());
        let (low, high) = wilson(right, count);
        let chance = baseline.map_or("-".to_owned(), |baseline| {
            let changed = |from: bool| {
                baseline.right.iter().zip(&self.right).filter(|(a, b)| **a == from && **b != from).count()
            };
            format!("{:.1e}", mcnemar(changed(false), changed(true)))
        });
        println!(
            "{name:<22} {:>6.1} %  {:<14} {:>7} {:>9.0} {:>9.0} {chance:>10}",
            100.0 * right as f64 / count as f64,
            format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high),
            self.nothing,
            self.tokens as f64 / count as f64,
            self.seconds,
        );
    }
}

/// The 95 % interval of a share (Wilson 1927).
fn wilson(right: usize, count: usize) -> (f64, f64) {
    let (z, n, share) = (1.959_964, count as f64, right as f64 / count as f64);
    let middle = share + z * z / (2.0 * n);
    let reach = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((middle - reach) / scale).max(0.0), ((middle + reach) / scale).min(1.0))
}

/// How likely it is by chance that `won` questions changed to right and `lost` to wrong, or a more uneven number of them: McNemar's test, exact
/// and two-sided.
fn mcnemar(won: usize, lost: usize) -> f64 {
    let changed = won + lost;
    // The terms of the binomial distribution, each from the one before.
    let mut term = 0.5_f64.powi(changed as i32);
    let mut tail = term;
    for k in 0..won.min(lost) {
        term *= (changed - k) as f64 / (k + 1) as f64;
        tail += term;
    }
    (2.0 * tail).min(1.0)
}
