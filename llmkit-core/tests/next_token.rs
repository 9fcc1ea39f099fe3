//! A model behind the generation loop: the same greedy continuation as transformers.
#![allow(missing_docs, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::generate::{GenerationConfig, NextToken, NextTokens, TextDecoder, generate};
use llmkit_core::models::{CachedModel, CausalLm, load_causal_lm};
use llmkit_core::{Device, Error, FinishReason, NoAdapter, Result};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama").join(name)
}

fn ids(folder: &Path, name: &str) -> Vec<u32> {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
}

/// The fixtures have no tokenizer, and only their ids are compared.
struct NoText;

impl TextDecoder for NoText {
    fn step(&mut self, _id: u32) -> Result<Option<String>> {
        Ok(None)
    }

    fn finish(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

#[test]
fn greedy_generation_is_that_of_transformers() {
    let device = Device::from_env().unwrap().resolve().unwrap();
    for name in ["gqa-tied", "untied-llama3", "head-dim-bias"] {
        let folder = fixture(name);
        let model = load_causal_lm(&Checkpoint::open(&folder).unwrap(), &device).unwrap();
        let prompt = ids(&folder, "prompt_ids");
        let expected = ids(&folder, "greedy_ids");
        let config = GenerationConfig::new().with_max_new_tokens(expected.len());
        let mut next = CachedModel::new(model.as_ref(), &NoAdapter);
        // The second time after forgetting the first.
        for _ in 0..2 {
            let answer =
                generate(&mut next, &mut NoText, &prompt, &config, &mut |_| ControlFlow::Continue(()))
                    .unwrap();
            assert_eq!(answer.ids, expected, "{name}");
            assert_eq!(next.position(), prompt.len() + expected.len() - 1);
            next.clear();
        }
    }
}

#[test]
fn the_context_limit_ends_an_answer() {
    let device = Device::from_env().unwrap().resolve().unwrap();
    let folder = fixture("gqa-tied");
    let model = load_causal_lm(&Checkpoint::open(&folder).unwrap(), &device).unwrap();
    let prompt = ids(&folder, "prompt_ids");
    let limit = model.max_positions();
    let config = GenerationConfig::new().with_max_new_tokens(limit * 2);
    let mut next = CachedModel::new(model.as_ref(), &NoAdapter);
    let answer =
        generate(&mut next, &mut NoText, &prompt, &config, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(answer.finish_reason, FinishReason::Length);
    // The last token is chosen and not fed.
    assert_eq!(prompt.len() + answer.ids.len(), limit + 1);
    assert_eq!(next.position(), limit);
    let expected = ids(&folder, "greedy_ids");
    assert_eq!(answer.ids[..expected.len()], expected);

    let mut logits = Vec::new();
    let mut refused = |next: &mut CachedModel<'_>, tokens: &[u32]| match next.feed(tokens, &mut logits) {
        Err(Error::Generation { found, .. }) => found,
        other => panic!("expected a refusal, found {other:?}"),
    };
    assert!(refused(&mut next, &[1]).contains(&format!("room for 0 of {limit}")));
    next.clear();
    assert!(refused(&mut next, &[]).contains("none"));
    assert!(refused(&mut next, &[model.vocab_size() as u32]).contains("tokenizer"));
}

/// The logits after each of `tokens`, fed one by one to a model of its own.
fn alone(model: &dyn CausalLm, tokens: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    let mut next = CachedModel::new(model, &NoAdapter);
    for token in tokens {
        next.feed(&[*token], &mut logits).unwrap();
    }
    logits
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-4, "logits differ by {difference}");
}

#[test]
fn rows_of_different_lengths_are_continued_as_if_each_were_alone() {
    let device = Device::from_env().unwrap().resolve().unwrap();
    let model = load_causal_lm(&Checkpoint::open(fixture("untied-llama3")).unwrap(), &device).unwrap();
    let model = model.as_ref();
    let text: Vec<u32> = (0..90).map(|i| 3 + i * 37 % 90).collect();
    let mut rows = [text[..5].to_vec(), text[20..31].to_vec(), text[60..61].to_vec()];
    let mut next = CachedModel::new(model, &NoAdapter).with_rows(3);
    let mut logits = vec![Vec::new(); 3];
    next.feed_rows(&rows.each_ref().map(Vec::as_slice), &mut logits).unwrap();
    for (row, logits) in rows.iter().zip(&logits) {
        assert_close(logits, &alone(model, row));
    }

    // One grows beyond the cache's first room, one by a token, one rests.
    let more = [&text[..70], &text[3..4], &[]];
    let rested = logits[2].clone();
    next.feed_rows(&more, &mut logits).unwrap();
    for (row, more) in rows.iter_mut().zip(more) {
        row.extend(more);
    }
    assert_eq!(logits[2], rested);
    assert_eq!([0, 1, 2].map(|row| next.row_position(row)), [75, 12, 1]);
    for (row, logits) in rows.iter().zip(&logits).take(2) {
        assert_close(logits, &alone(model, row));
    }

    // Two copies of one row go different ways, and one row ends.
    next.select(&[2, 1, 1]).unwrap();
    let [_, second, third] = rows;
    rows = [third, second.clone(), second];
    let more = [&text[8..10], &text[40..42], &text[50..52]];
    next.feed_rows(&more, &mut logits).unwrap();
    for ((row, more), logits) in rows.iter_mut().zip(more).zip(&logits) {
        row.extend(more);
        assert_close(logits, &alone(model, row));
    }
    assert!(next.select(&[3]).is_err() && next.select(&[]).is_err());

    // What was read last is forgotten and something else read in its place.
    let mut cache = next.into_cache();
    cache.truncate(1, 4);
    rows[1].truncate(4);
    let mut next = CachedModel::with_cache(model, &NoAdapter, cache);
    next.feed_rows(&[&[], &text[70..73], &[]], &mut logits).unwrap();
    rows[1].extend(&text[70..73]);
    assert_close(&logits[1], &alone(model, &rows[1]));
}
