//! Sets methods of reasoning side by side: a model answers small word problems at once, thinking aloud, after worked examples, with a plan,
//! by a vote, and so on, and each method is charged with its calls, tokens and time.
//!
//! ```text
//! cargo run --release --example reason
//! cargo run --release --example reason -- --limit 30 --methods direct,few-shot,vote
//! cargo run --release --example reason -- --url http://localhost:11434/v1 --model qwen3:8b
//! cargo run --release --example reason -- --questions mine.jsonl --worked examples.jsonl
//! ```
//!
//! The default model has 135 million parameters, which is far too few to reason: expect bad numbers, and chains of thought that make
//! them worse. Pass a larger one with --model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use llmkit_core::{ChatRequest, LanguageModel};
use llmkit_prompt::reasoning::{
    EarlyStop, Extract, FewShotCot, LeastToMost, PlanAndSolve, Reasoner, Search, SelfConsistency, StepBack,
    TreeOfThoughts, WorkedExample, ZeroShotCot, normalise,
};
use llmkit_prompt::{ChatPrompt, Role, WithDefaults};
use serde::Deserialize;

#[path = "support/chat_model.rs"]
mod chat_model;
#[path = "support/device.rs"]
mod device;
#[path = "support/model.rs"]
mod model;

/// Set methods of reasoning side by side.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: chat_model::ChatModel,
    /// The questions: JSONL with `kind` ("arithmetic": a number; anything else: a text), `question` and `answer`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/reasoning/questions.jsonl"))]
    questions: PathBuf,
    /// Worked examples for few-shot: the same with `rationale`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/reasoning/worked.jsonl"))]
    worked: PathBuf,
    /// How many questions of each kind are asked, from the first.
    #[arg(long, default_value_t = 10)]
    limit: usize,
    /// The methods, out of: direct, zero-shot, two-calls, few-shot, plan, vote, least-to-most, step-back, tree [default: all]
    #[arg(long, value_delimiter = ',')]
    methods: Vec<String>,
    /// How many samples vote.
    #[arg(long, default_value_t = 5)]
    samples: usize,
    /// The longest reply, in tokens.
    #[arg(long, default_value_t = 160)]
    max_new_tokens: usize,
    /// Shows each method's trace for the first question.
    #[arg(long)]
    show: bool,
}

#[derive(Deserialize)]
struct Row {
    kind: String,
    question: String,
    #[serde(default)]
    rationale: String,
    answer: String,
}

/// No method: the model is asked for nothing but the answer.
fn direct(extract: Extract) -> Result<ZeroShotCot> {
    let turns = [(Role::User, "{{ question }}\nReply with the answer only.")];
    let prompt = ChatPrompt::new("direct", turns, ["question"])?;
    // A text needs no announcement here.
    let first_line = |text: &str| text.lines().find(|line| !line.trim().is_empty()).map(str::to_owned);
    let anything = Extract::with(move |text| extract.answer(text).or_else(|| first_line(text)));
    Ok(ZeroShotCot::new().with_prompt(prompt)?.with_extract(anything))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let questions = read(&args.questions)?;
    let worked = read(&args.worked)?;
    let mut asked: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &questions {
        let rows = asked.entry(&row.kind).or_default();
        if rows.len() < args.limit {
            rows.push(row);
        }
    }
    // Unknown names are an error before a model is loaded.
    methods(&args, "arithmetic", &worked)?;

    // Greedy, except where a method samples.
    let defaults = ChatRequest {
        max_tokens: Some(args.max_new_tokens),
        temperature: Some(0.0),
        ..ChatRequest::default()
    };
    let model = WithDefaults::new(args.model.clone().open()?, defaults);

    for (kind, rows) in asked {
        println!("{kind}: {} questions", rows.len());
        println!(
            "{:<15} {:>7}  {:<14} {:>5} {:>8} {:>8} {:>8} {:>9}",
            "", "right", "95 % interval", "none", "calls", "read", "written", "seconds"
        );
        for (name, method) in methods(&args, kind, &worked)? {
            measure(name, &*method, &model, &rows, args.show)?;
        }
        println!();
    }
    println!(
        "right: of all questions, with Wilson's interval; none: questions to which the method found no answer; calls, tokens read and\n\
         written, and seconds: for one question, those without an answer left out of calls and tokens"
    );
    Ok(())
}

/// The methods to be measured, for one kind of questions.
fn methods(args: &Args, kind: &str, worked: &[Row]) -> Result<Vec<(&'static str, Box<dyn Reasoner>)>> {
    let extract = || if kind == "arithmetic" { Extract::Number } else { Extract::Text };
    let examples = worked
        .iter()
        .filter(|row| row.kind == kind)
        .map(|row| WorkedExample::new(&row.question, &row.rationale, &row.answer));
    let few_shot = FewShotCot::new(examples)?.with_extract(extract());
    let vote = SelfConsistency::new(few_shot.clone(), args.samples).with_early_stop(EarlyStop::Decided);
    let tree = TreeOfThoughts::new(2).with_breadth(2).with_search(Search::Breadth { beam: 1 });
    let all: Vec<(&'static str, Box<dyn Reasoner>)> = vec![
        ("direct", Box::new(direct(extract())?)),
        ("zero-shot", Box::new(ZeroShotCot::new().with_extract(extract()))),
        ("two-calls", Box::new(ZeroShotCot::two_calls().with_extract(extract()))),
        ("few-shot", Box::new(few_shot)),
        ("plan", Box::new(PlanAndSolve::two_calls().with_extract(extract()))),
        ("vote", Box::new(vote)),
        ("least-to-most", Box::new(LeastToMost::new().with_limit(3).with_extract(extract()))),
        ("step-back", Box::new(StepBack::new().with_extract(extract()))),
        ("tree", Box::new(tree.with_extract(extract()))),
    ];
    if let Some(unknown) = args.methods.iter().find(|wanted| all.iter().all(|(name, _)| name != wanted)) {
        let known: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        bail!("there is no method `{unknown}`; there are {}", known.join(", "));
    }
    Ok(all
        .into_iter()
        .filter(|(name, _)| args.methods.is_empty() || args.methods.iter().any(|wanted| wanted == name))
        .collect())
}

/// Asks all questions and prints a line about it.
fn measure(
    name: &str,
    method: &dyn Reasoner,
    model: &dyn LanguageModel,
    rows: &[&Row],
    show: bool,
) -> Result<()> {
    let (mut right, mut none, mut calls, mut read, mut written) = (0, 0, 0, 0, 0);
    let begin = Instant::now();
    for (index, row) in rows.iter().enumerate() {
        let found = match pollster::block_on(method.run(model, &row.question)) {
            Ok(found) => found,
            // The model ran, but not to an answer: that is a result. A model that can't run is none.
            Err(llmkit_prompt::Error::NoAnswer { .. } | llmkit_prompt::Error::AllSamplesFailed { .. }) => {
                none += 1;
                continue;
            }
            Err(error) => return Err(error).context(row.question.clone()),
        };
        if show && index == 0 {
            println!("{}\n", found.trace);
        }
        right += usize::from(normalise(&found.value.answer) == normalise(&row.answer));
        let usage = found.trace.usage();
        calls += found.trace.calls().count();
        read += usage.prompt_tokens;
        written += usage.completion_tokens;
    }
    let seconds = begin.elapsed().as_secs_f64() / rows.len() as f64;
    let answered = (rows.len() - none).max(1) as f64;
    let (low, high) = interval(right, rows.len());
    let each = |count: usize| format!("{:.1}", count as f64 / answered);
    println!(
        "{name:<15} {right:>3}/{:<3}  {:<14} {none:>5} {:>8} {:>8} {:>8} {seconds:>9.1}",
        rows.len(),
        format!("{:.0}-{:.0} %", 100.0 * low, 100.0 * high),
        each(calls),
        each(read),
        each(written),
    );
    Ok(())
}

/// Wilson's interval for a share, at 95 %.
fn interval(right: usize, all: usize) -> (f64, f64) {
    let (n, z) = (all as f64, 1.96_f64);
    let share = right as f64 / n;
    let middle = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

fn read(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let row = |(index, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| {
            format!("{}:{}: expected `kind`, `question` and `answer`", path.display(), index + 1)
        })
    };
    let rows: Vec<Row> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(row)
        .collect::<Result<_>>()?;
    ensure!(!rows.is_empty(), "{} holds no questions", path.display());
    Ok(rows)
}
