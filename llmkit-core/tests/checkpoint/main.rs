//! Checkpoints against files made by Python's libraries (`scripts/make_checkpoint_fixtures.py`), and against hostile ones.
#![cfg(feature = "models")]
#![allow(clippy::unwrap_used)]

mod build;
mod gguf;
mod gguf_models;
mod hostile;
mod memory;
mod open;
mod safetensors;
mod save;

use std::path::PathBuf;

use llmkit_core::checkpoint::{Safetensors, TensorSource};

/// A file or folder of `tests/fixtures`.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Asserts that `source` holds every tensor of a safetensors file, bit for bit, and returns how many there are.
fn assert_holds(source: &dyn TensorSource, expected: &str) -> usize {
    let expected = Safetensors::open(fixture(expected)).unwrap();
    let names = expected.names();
    for name in &names {
        assert_eq!(source.info(name).unwrap().shape, expected.info(name).unwrap().shape, "{name}");
        let (ours, theirs) = (source.read_f32(name).unwrap(), expected.read_f32(name).unwrap());
        assert!(theirs.iter().any(|value| *value != 0.0), "{name} is a useless reference");
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert!(bits(&ours) == bits(&theirs), "{name}: {ours:?}\nexpected {theirs:?}");
    }
    names.len()
}
