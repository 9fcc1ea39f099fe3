//! A model that does not fit its files is refused, with everything that is wrong with it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::load_causal_lm;
use llmkit_core::{Device, Error, ShapeMismatch};
use serde_json::{Value, json};

/// Loads a copy of the fixture `name` whose configuration was changed.
fn load_with(name: &str, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama").join(name);
    std::fs::copy(fixture.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(fixture.join("config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let device = Device::from_env().unwrap().resolve().unwrap();
    load_causal_lm(&Checkpoint::open(folder.path())?, &device).map(|_| ())
}

#[test]
fn an_unknown_architecture_names_the_known_ones() {
    for architectures in [json!(["FooForCausalLM"]), json!([]), json!(null), json!(7)] {
        let error = load_with("gqa-tied", |config| config["architectures"] = architectures).unwrap_err();
        assert!(matches!(error, Error::UnsupportedArchitecture { .. }), "{error}");
        assert!(error.to_string().contains("LlamaForCausalLM"), "{error}");
    }
}

#[test]
fn every_tensor_of_the_wrong_shape_is_named() {
    let error = load_with("untied-llama3", |config| config["vocab_size"] = json!(999)).unwrap_err();
    let Error::Tensors { missing, unexpected, mismatched, .. } = error else { panic!("{error}") };
    assert!(missing.is_empty() && unexpected.is_empty(), "{missing:?} {unexpected:?}");
    let names: Vec<_> = mismatched.iter().map(|mismatch| mismatch.name.as_str()).collect();
    assert_eq!(names, ["model.embed_tokens.weight", "lm_head.weight"]);
    let ShapeMismatch { expected, found, .. } = &mismatched[0];
    assert!(expected[0] == 999 && found[0] < 999 && expected[1] == found[1], "{expected:?} {found:?}");
}

#[test]
fn every_missing_and_every_left_over_tensor_is_named() {
    let with_layers = |change: i64| {
        load_with("gqa-tied", |config| {
            config["num_hidden_layers"] = json!(config["num_hidden_layers"].as_i64().unwrap() + change);
        })
    };
    let Err(Error::Tensors { missing, unexpected, .. }) = with_layers(1) else {
        panic!("loaded a layer too many")
    };
    assert_eq!((missing.len(), unexpected.len()), (9, 0), "{missing:?}");
    assert!(missing.iter().all(|name| name.starts_with("model.layers.3.")));
    let Err(Error::Tensors { missing, unexpected, .. }) = with_layers(-1) else { panic!("left a layer out") };
    assert_eq!((missing.len(), unexpected.len()), (0, 9), "{unexpected:?}");
    assert!(unexpected.iter().all(|name| name.starts_with("model.layers.2.")));
}

#[test]
fn a_configuration_that_asks_for_something_else_names_its_field() {
    for (field, value) in [
        ("hidden_size", json!(null)),
        ("hidden_size", json!(0)),
        ("hidden_size", json!("many")),
        ("vocab_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(-1)),
        ("num_key_value_heads", json!(2)),
        ("head_dim", json!(7)),
        ("hidden_act", json!("gelu")),
        ("rms_norm_eps", json!("small")),
        ("rope_theta", json!(0)),
        ("tie_word_embeddings", json!("yes")),
        ("quantization_config", json!({"quant_method": "gptq"})),
    ] {
        let error = load_with("gqa-tied", |config| {
            config.as_object_mut().unwrap().remove("rope_parameters");
            config[field] = value.clone();
        })
        .unwrap_err();
        assert!(
            matches!(&error, Error::Config { field: found, .. } if found == field),
            "{field} = {value}: {error}"
        );
    }
    for scaling in [
        json!({"rope_type": "yarn", "factor": "twice"}),
        json!({"rope_type": "spiral", "factor": 2.0}),
        json!({"rope_type": "linear"}),
        json!({"rope_type": "linear", "factor": -2.0}),
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0,
               "original_max_position_embeddings": 32}),
        json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0], "attention_factor": 1.0}),
    ] {
        let error = load_with("gqa-tied", |config| config["rope_parameters"] = scaling.clone()).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{scaling}: {error}");
    }
    let error = load_with("mistral", |config| config["sliding_window"] = json!(0)).unwrap_err();
    assert!(error.to_string().contains("sliding_window"), "{error}");
}

#[test]
fn a_configuration_of_absurd_size_allocates_nothing() {
    // A hundred thousand layers of 2^28 squared weights each: refused by what the file holds, not by running out of memory.
    let error = load_with("gqa-tied", |config| {
        config["hidden_size"] = json!(1 << 28);
        config["intermediate_size"] = json!(1 << 28);
        config["num_hidden_layers"] = json!(1000);
    });
    assert!(error.is_err());
}

#[test]
fn a_head_stored_beside_a_tied_embedding_is_accepted() {
    // `lm_head.weight` in a tied checkpoint says nothing new.
    load_with("untied-llama3", |config| config["tie_word_embeddings"] = json!(true)).unwrap();
}
