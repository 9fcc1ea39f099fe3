//! Reads the files of examples that a training program is given.

use std::path::Path;

use anyhow::Result;
use llmkit_core::models::Pretrained;
use llmkit_peft::data::{AlpacaRow, Encoder, Example, Overlong, read_alpaca};

/// The rows of an Alpaca file, and what the model sees of them; says how many there are, and what became of those longer than
/// `max_length` tokens.
pub(crate) fn load(
    path: &Path,
    base: &Pretrained,
    max_length: usize,
) -> Result<(Vec<AlpacaRow>, Vec<Example>)> {
    let rows = read_alpaca(path)?;
    let data = Encoder::new(&base.tokenizer, &base.chat_template)
        .with_max_length(max_length)
        .with_overlong(Overlong::Drop)
        .encode(&rows, path)?;
    println!(
        "{}: {} examples, {} tokens to learn",
        path.display(),
        data.examples.len(),
        data.trained_tokens()
    );
    if data.truncated + data.dropped > 0 {
        println!("  longer than {max_length} tokens: {} cut off, {} left out", data.truncated, data.dropped);
    }
    Ok((rows, data.examples))
}
