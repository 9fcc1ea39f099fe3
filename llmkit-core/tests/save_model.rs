//! A saved model is the model that was saved.
#![allow(missing_docs, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{Int, Tensor};
use llmkit_core::checkpoint::gguf::GgufType;
use llmkit_core::checkpoint::{Checkpoint, FloatType, Safetensors, TensorSource};
use llmkit_core::models::{Pretrained, SaveOptions, load_causal_lm, save_model};
use llmkit_core::{Device, Message, NoAdapter};

#[test]
fn a_saved_model_computes_what_the_original_does() {
    let device = Device::from_env().unwrap().resolve().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    for name in ["gqa-tied", "head-dim-bias", "sharded-bf16", "gguf/model.gguf"] {
        let model = load_causal_lm(&Checkpoint::open(fixtures.join(name)).unwrap(), &device).unwrap();
        let ids = Tensor::<2, Int>::from_ints([[3, 14, 15, 92, 6, 5, 35]], &device);
        let expected = model.forward(ids.clone(), &NoAdapter);
        for (dtype, tolerance) in [(FloatType::F32, 0.0), (FloatType::F16, 0.02), (FloatType::Bf16, 0.2)] {
            let folder = tempfile::tempdir().unwrap();
            let options = SaveOptions::default().with_dtype(dtype).with_max_shard_bytes(60_000);
            save_model(model.as_ref(), folder.path(), options).unwrap();
            assert!(folder.path().join("model.safetensors.index.json").is_file(), "{name}: in one file");
            let again = load_causal_lm(&Checkpoint::open(folder.path()).unwrap(), &device).unwrap();
            let found = again.forward(ids.clone(), &NoAdapter);
            let difference = (found - expected.clone()).abs().max().into_scalar::<f32>();
            assert!(difference <= tolerance, "{name} as {dtype:?}: logits differ by {difference}");
            assert!(tolerance == 0.0 || name == "sharded-bf16" || difference > 0.0, "{name} as {dtype:?}");
            let config: serde_json::Value =
                serde_json::from_slice(&std::fs::read(folder.path().join("config.json")).unwrap()).unwrap();
            let tensors = Safetensors::open(folder.path()).unwrap();
            assert_eq!(tensors.names().contains(&"lm_head.weight".to_owned()), !model.is_tied());
            assert_eq!(config["hidden_size"], model.config()["hidden_size"]);
        }
    }
}

#[test]
fn a_model_saved_as_gguf_answers_as_the_original() {
    let device = Device::from_env().unwrap().resolve().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    let original = Pretrained::load(fixtures.join("gguf/model.gguf"), &device).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.gguf");
    original.save_gguf(&path, GgufType::F32).unwrap();
    let saved = Pretrained::load(&path, &device).unwrap();
    let question = [Message::user("Where is the library?")];
    let config = original.generation.clone().with_max_new_tokens(12);
    let answer = |model: &Pretrained| {
        model.reply(&NoAdapter, &question, &config, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let expected = answer(&original);
    assert!(!expected.ids.is_empty());
    assert_eq!(answer(&saved), expected);
    assert_eq!(saved.model.config()["hidden_size"], original.model.config()["hidden_size"]);
}
