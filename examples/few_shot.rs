//! Measures what examples in a prompt are worth, and how they are chosen: a small chat model sorts definitions of words into categories, without
//! examples, and with some that are chosen by lot, by common words, by meaning, and by meaning and variety.
//!
//! ```text
//! cargo run --release --example few_shot
//! cargo run --release --example few_shot -- --limit 320 --shots 4 --token-budget 120
//! cargo run --release --example few_shot -- --pool mine.jsonl --heldout other.jsonl --instruction "Sort the text."
//! ```
//!
//! Every method sees the same questions, the same instruction and the same model, which answers greedily, twice: freely, where the answer
//! counts as the category that it names first, and held to the categories by a grammar, where it cannot help naming one. The first is what an
//! application sees; the second shows what examples teach beside the form of an answer. A question is never among its own examples.

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use llmkit_core::embed::SentenceEncoder;
use llmkit_core::generate::{
    GenerationConfig, Grammar, GrammarCompiler, NextToken, generate, generate_constrained,
};
use llmkit_core::models::{CachedModel, Pretrained};
use llmkit_core::{Device, NoAdapter};
use llmkit_prompt::few_shot::{
    Example, ExampleSelector, Examples, FewShot, KnnSelector, MmrSelector, NgramSelector, RandomSelector,
};
use llmkit_prompt::{ChatPrompt, Message, Role};
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
    /// Which ways of choosing are set beside zero-shot, out of: random, ngram, knn, mmr.
    #[arg(long, value_delimiter = ',', default_value = "random,ngram,knn,mmr")]
    methods: Vec<String>,
    /// How many examples a prompt has.
    #[arg(long, default_value_t = 8)]
    shots: usize,
    /// The most tokens that they may take.
    #[arg(long, default_value_t = 600)]
    token_budget: usize,
    /// For maximal marginal relevance: the weight of being like the question against being unlike each other, from 0 to 1.
    #[arg(long, default_value_t = 0.7)]
    lambda: f64,
    /// Fixes the draw of the random examples, which are others for each question.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The longest answer, in tokens.
    #[arg(long, default_value_t = 16)]
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

    let device = device::choose(args.device)?;
    let encoder = SentenceEncoder::load(model::find_or(args.encoder.as_deref(), &model::MINILM)?, &device)?;
    let pretrained = Pretrained::load(model::find(args.model.as_deref())?, &device)?;

    let all = FewShot::new(pool, QUESTION, ANSWER)?
        .with_counter(pretrained.tokenizer.clone())
        .with_token_budget(args.token_budget);
    let by = |selector: Arc<dyn ExampleSelector>| Some(all.clone().with_selector(selector, args.shots));
    let mut methods = vec![("zero-shot", None)];
    for method in &args.methods {
        methods.push(match method.as_str() {
            "random" => ("random", by(Arc::new(RandomSelector::new(args.seed).per_query()))),
            "ngram" => ("n-gram overlap", by(Arc::new(NgramSelector::new()))),
            "knn" => ("nearest (kNN)", by(Arc::new(KnnSelector::new(encoder.clone())))),
            "mmr" => {
                let selector = MmrSelector::new(encoder.clone()).with_lambda(args.lambda)?;
                ("near and varied (MMR)", by(Arc::new(selector)))
            }
            other => bail!("--methods: expected random, ngram, knn or mmr, found `{other}`"),
        });
    }
    let task = Task::new(&pretrained, &labels, &args)?;

    println!(
        "{} questions, {} categories, {} examples a prompt out of {}\n",
        rows.len(),
        labels.len(),
        args.shots,
        args.pool.display()
    );
    println!("{:<22} {:^36}   {:^29}", "", "free answers", "held to the categories");
    println!(
        "{:<22} {:>7} {:>13} {:>5} {:>8}   {:>7} {:>13} {:>8} {:>7} {:>8}",
        "", "right", "interval", "none", "p", "right", "interval", "p", "tokens", "seconds"
    );
    let mut baseline = None;
    for (name, few_shot) in &methods {
        let outcome = task.run(few_shot.as_ref(), &rows)?;
        outcome.print(name, baseline.as_ref());
        baseline.get_or_insert(outcome);
    }
    println!(
        "\nright: in percent, with its 95 % interval (Wilson)\nnone: answers that name no category\n\
         p: beside zero-shot, by McNemar's exact test\ntokens: read for a question"
    );
    if let (Some((name, Some(few_shot))), Some(row)) = (methods.last(), rows.first()) {
        let shots = pollster::block_on(few_shot.select(json!({ "text": row.text })))?;
        println!("\nWhy these examples, for `{}`, by {name}:\n{shots}", row.text);
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

/// What every method is measured with.
struct Task<'a> {
    pretrained: &'a Pretrained,
    prompt: ChatPrompt,
    labels: &'a [String],
    args: &'a Args,
    greedy: GenerationConfig,
    compiler: GrammarCompiler,
    /// One of the labels.
    grammar: Grammar,
}

impl<'a> Task<'a> {
    fn new(pretrained: &'a Pretrained, labels: &'a [String], args: &'a Args) -> Result<Self> {
        let ends = &pretrained.generation.eos_token_ids;
        let any: Vec<String> = labels.iter().map(|label| regex_escape(label)).collect();
        Ok(Self {
            pretrained,
            prompt: ChatPrompt::new(
                "sort",
                [(Role::System, SYSTEM), (Role::User, QUESTION)],
                ["instruction", "labels", "text"],
            )?,
            labels,
            args,
            greedy: GenerationConfig::new()
                .with_max_new_tokens(args.max_new_tokens)
                .with_eos_token_ids(ends.iter().copied()),
            compiler: GrammarCompiler::new(&pretrained.tokenizer, ends)?,
            grammar: Grammar::regex(any.join("|")),
        })
    }

    fn run(&self, few_shot: Option<&FewShot>, rows: &[Row]) -> Result<Outcome> {
        let (begin, mut outcome) = (Instant::now(), Outcome::default());
        for row in rows {
            let values =
                json!({ "instruction": self.args.instruction, "labels": self.labels, "text": row.text });
            let mut messages = self.prompt.render(&values)?;
            if let Some(few_shot) = few_shot {
                messages = pollster::block_on(few_shot.select(&values))?.insert_into(messages);
            }
            let answers = self.ask(&messages)?;
            let right = |answer: &str| first_named(answer, self.labels) == Some(row.label.as_str());
            outcome.free.push(right(&answers.free));
            outcome.held.push(right(&answers.held));
            outcome.nothing += usize::from(first_named(&answers.free, self.labels).is_none());
            outcome.tokens += answers.tokens;
        }
        outcome.seconds = begin.elapsed().as_secs_f64();
        Ok(outcome)
    }

    /// Both answers; the prompt is read once.
    fn ask(&self, messages: &[Message]) -> Result<Answers> {
        let Pretrained { model, tokenizer, chat_template, .. } = self.pretrained;
        let prompt = tokenizer.encode(&chat_template.render(messages, true)?, false)?;
        let (last, before) = prompt.split_last().context("the chat template renders to nothing")?;
        let mut held = CachedModel::new(model.as_ref(), &NoAdapter);
        if !before.is_empty() {
            held.feed(before, &mut Vec::new())?;
        }
        let (mut free, last) = (held.clone(), [*last]);
        let decoder = || tokenizer.decode_stream(true);
        let free =
            generate(&mut free, &mut decoder(), &last, &self.greedy, &mut |_| ControlFlow::Continue(()))?;
        let held = generate_constrained(
            &mut held,
            &mut decoder(),
            &last,
            &self.greedy,
            &mut self.compiler.compile(&self.grammar)?,
            &mut |_| ControlFlow::Continue(()),
        )?;
        Ok(Answers { free: free.text, held: held.text, tokens: prompt.len() })
    }
}

/// What the model says to one question.
struct Answers {
    free: String,
    held: String,
    /// Of the prompt.
    tokens: usize,
}

/// The label as a regular expression that matches it alone.
fn regex_escape(label: &str) -> String {
    let escaped =
        label.chars().map(|c| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() });
    escaped.collect()
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
    free: Vec<bool>,
    held: Vec<bool>,
    /// Free answers that name no label.
    nothing: usize,
    tokens: usize,
    seconds: f64,
}

impl Outcome {
    fn print(&self, name: &str, baseline: Option<&Self>) {
        println!(
            "{name:<22} {} {:>5} {:>8}   {} {:>8} {:>7.0} {:>8.0}",
            share(&self.free),
            self.nothing,
            chance(&self.free, baseline.map(|baseline| &baseline.free)),
            share(&self.held),
            chance(&self.held, baseline.map(|baseline| &baseline.held)),
            self.tokens as f64 / self.free.len() as f64,
            self.seconds,
        );
    }
}

/// How many are right, with the interval.
fn share(right: &[bool]) -> String {
    let (count, all) = (right.iter().filter(|right| **right).count(), right.len());
    let (low, high) = wilson(count, all);
    let interval = format!("{:.1} - {:.1}", 100.0 * low, 100.0 * high);
    format!("{:>7.1} {interval:>13}", 100.0 * count as f64 / all as f64)
}

/// How likely the difference is to be chance.
fn chance(right: &[bool], baseline: Option<&Vec<bool>>) -> String {
    let Some(baseline) = baseline else { return "-".to_owned() };
    let changed = |to: bool| baseline.iter().zip(right).filter(|(a, b)| **a != to && **b == to).count();
    format!("{:.1e}", mcnemar(changed(true), changed(false)))
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
