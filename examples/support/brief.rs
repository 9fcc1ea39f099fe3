//! Trains a LoRA briefly, for examples whose point is what one does with it.

use std::path::Path;

use anyhow::Result;
use llmkit_core::models::Pretrained;
use llmkit_peft::data::{AlpacaRow, Encoder, Example};
use llmkit_peft::train::{TrainConfig, Trainer};
use llmkit_peft::{Lora, LoraConfig};

use crate::progress;

/// Questions about this and that.
pub(crate) fn questions() -> impl Iterator<Item = String> {
    const THINGS: [&str; 16] = [
        "a river", "an apple", "thunder", "a violin", "the moon", "a bridge", "bread", "a clock", "snow",
        "a cat", "a letter", "the sea", "a candle", "a garden", "a map", "iron",
    ];
    THINGS.into_iter().map(|thing| format!("What is {thing}?"))
}

/// A LoRA that learns to answer questions as `rows` do.
pub(crate) fn train<'a>(
    name: &str,
    base: &Pretrained,
    config: LoraConfig,
    rows: impl Iterator<Item = (String, &'a str)>,
    steps: usize,
) -> Result<Lora> {
    let row = |(index, (instruction, answer)): (usize, (String, &str))| AlpacaRow {
        instruction,
        input: String::new(),
        output: answer.to_owned(),
        line: index + 1,
    };
    let rows: Vec<AlpacaRow> = rows.enumerate().map(row).collect();
    let examples: Vec<Example> =
        Encoder::new(&base.tokenizer, &base.chat_template).encode(&rows, Path::new(name))?.examples;
    let lora = Lora::new(base.model.as_ref(), config, 0)?;
    let settings = TrainConfig {
        epochs: steps,
        max_steps: Some(steps),
        batch_size: 4,
        learning_rate: 2e-3,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(base.model.clone(), lora, settings)?;
    println!("training `{name}`, {steps} steps");
    let mut bar = progress::TrainingBar::new()?;
    trainer.fit(&examples, &[], &mut bar)?;
    bar.finish();
    Ok(trainer.into_adapter())
}
