//! Weights, their index, and configurations.

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::generate::GenerationConfig;
use llmkit_core::models::load_causal_lm;
use llmkit_core::{Device, NoAdapter};

use crate::{campaign, mutate, read};

/// A model folder: the files' names and bytes.
type Files = Vec<(&'static str, Vec<u8>)>;

fn files(folder: &str, names: &[&'static str]) -> Files {
    names.iter().map(|name| (*name, read(&format!("{folder}/{name}")))).collect()
}

fn size(files: &Files) -> usize {
    files.iter().map(|(_, bytes)| bytes.len()).sum()
}

/// Whether the model loads; then it runs, too.
fn load(path: &Path) -> bool {
    let device = Device::Cpu.resolve().unwrap();
    let Ok(checkpoint) = Checkpoint::open(path) else { return false };
    let Ok(model) = load_causal_lm(&checkpoint, &device) else { return false };
    if model.max_positions() < 3 || model.vocab_size() < 3 {
        return true;
    }
    let ids = Tensor::<2, Int>::from_data(TensorData::from([[0, 1, 2]]), &device);
    let logits = model.forward(ids, &NoAdapter);
    assert_eq!(logits.dims(), [1, 3, model.vocab_size()]);
    true
}

fn load_folder(files: &Files) -> bool {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    load(folder.path())
}

#[test]
fn configurations() {
    for (folder, count) in
        [("llama/untied-llama3", 1000), ("llama/head-dim-bias", 500), ("llama/mistral", 500)]
    {
        let valid = files(folder, &["config.json", "model.safetensors"]);
        assert!(load_folder(&valid));
        let outcome = campaign(
            folder,
            count,
            |rng| {
                let mut files = valid.clone();
                files[0].1 = mutate::json(rng, &valid[0].1);
                let size = size(&files);
                (files, size)
            },
            load_folder,
        );
        assert!(outcome.loaded > 20 && outcome.refused > 100, "{outcome:?}");
    }
}

#[test]
fn shards_and_their_index() {
    let names = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ];
    let valid = files("llama/sharded-bf16", &names);
    assert!(load_folder(&valid));
    let outcome = campaign(
        "shards",
        1500,
        |rng| {
            let mut files = valid.clone();
            match rng.below(2) {
                0 => files[1].1 = mutate::json(rng, &valid[1].1),
                _ => {
                    let shard = 2 + rng.below(3);
                    let head = 8 + u64::from_le_bytes(valid[shard].1[..8].try_into().unwrap()) as usize;
                    files[shard].1 = mutate::bytes(rng, &valid[shard].1, head);
                }
            }
            let size = size(&files);
            (files, size)
        },
        load_folder,
    );
    assert!(outcome.refused > 500, "{outcome:?}");
}

#[test]
fn gguf() {
    let valid = read("llama/gguf/model.gguf");
    let try_it = |bytes: &Vec<u8>| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        load(&path)
    };
    assert!(try_it(&valid));
    let outcome = campaign(
        "gguf",
        1500,
        |rng| {
            // The pairs and the table of tensors.
            let bytes = mutate::bytes(rng, &valid, 6000);
            let size = bytes.len();
            (bytes, size)
        },
        try_it,
    );
    assert!(outcome.loaded > 20 && outcome.refused > 500, "{outcome:?}");
}

#[test]
fn generation_settings() {
    let valid =
        br#"{"do_sample":true,"temperature":0.7,"top_k":20,"top_p":0.9,"min_p":0.1,"repetition_penalty":1.1,
        "eos_token_id":[1,2],"max_new_tokens":64,"seed":7,"num_beams":1,"transformers_version":"5.0"}"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("generation_config.json");
    let outcome = campaign(
        "generation settings",
        1000,
        |rng| {
            let bytes = mutate::json(rng, valid);
            let size = bytes.len();
            (bytes, size)
        },
        |bytes| {
            std::fs::write(&path, bytes).unwrap();
            GenerationConfig::from_file(&path).is_ok()
        },
    );
    assert!(outcome.loaded > 20 && outcome.refused > 100, "{outcome:?}");
}
