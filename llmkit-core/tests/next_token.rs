//! A model behind the generation loop: the same greedy continuation as transformers.
#![allow(missing_docs, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::generate::{GenerationConfig, NextToken, TextDecoder, generate};
use llmkit_core::models::{CachedModel, load_causal_lm};
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
                generate(&mut next, &mut NoText, &prompt, &config, &mut |_| ControlFlow::Continue(())).unwrap();
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
    let answer = generate(&mut next, &mut NoText, &prompt, &config, &mut |_| ControlFlow::Continue(())).unwrap();
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
