//! Llama against transformers: the same ids, the same logits, the same greedy continuation.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::PathBuf;

use common::{device, equals_transformers, shown_tensors};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::load_causal_lm;

fn fixture(name: &str) -> PathBuf {
    common::fixtures().join("llama").join(name)
}

macro_rules! llama_fixtures {
    ($($test:ident: $folder:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                equals_transformers(&fixture($folder), &fixture($folder));
            }
        )+
    };
}

llama_fixtures! {
    grouped_queries_and_a_tied_head: "gqa-tied",
    llama3_rope_and_an_untied_head: "untied-llama3",
    linear_rope: "linear-rope",
    a_head_dim_of_its_own_and_biases: "head-dim-bias",
    bf16_in_shards: "sharded-bf16",
    f16: "f16",
    mistral: "mistral",
}

#[test]
fn gguf() {
    equals_transformers(&fixture("gguf"), &fixture("gguf/model.gguf"));
}

#[test]
fn a_model_shows_every_tensor_of_its_checkpoint() {
    let folder = fixture("head-dim-bias");
    let model = load_causal_lm(&Checkpoint::open(&folder).unwrap(), &device()).unwrap();
    assert_eq!(shown_tensors(model.as_ref()), Safetensors::open(&folder).unwrap().names());
}
