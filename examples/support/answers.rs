//! What a model answers to the first questions of a data set.

use std::ops::ControlFlow;

use llmkit_core::models::Pretrained;
use llmkit_core::{Adapter, Result};
use llmkit_core::generate::GenerationConfig;
use llmkit_peft::data::AlpacaRow;

const QUESTIONS: usize = 3;
/// The longest answer, in tokens.
const LENGTH: usize = 48;

/// Greedy answers, so that only the adapter makes the difference.
pub(crate) fn give(base: &Pretrained, adapter: &dyn Adapter, rows: &[AlpacaRow]) -> Result<Vec<String>> {
    let end = base.generation.eos_token_ids.iter().copied();
    let config = GenerationConfig::new().with_max_new_tokens(LENGTH).with_eos_token_ids(end);
    let answer = |row: &AlpacaRow| {
        let answer = base.reply(adapter, &row.prompt(), &config, &mut |_| ControlFlow::Continue(()))?;
        Ok(answer.text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    rows.iter().take(QUESTIONS).map(answer).collect()
}

/// Prints them side by side with the reference.
pub(crate) fn compare(rows: &[AlpacaRow], before: &[String], after: &[String]) {
    for ((row, before), after) in rows.iter().zip(before).zip(after) {
        println!("\n{}", row.prompt()[0].content);
        println!("  before:    {before}");
        println!("  after:     {after}");
        println!("  reference: {}", row.output);
    }
    println!();
}
