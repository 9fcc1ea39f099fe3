//! The other decoder-only architectures against transformers: the same ids, the same logits, the same greedy continuation; and rotary
//! frequencies against its `ROPE_INIT_FUNCTIONS`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Expected, device, equals_transformers, fixtures, shown_tensors};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::generate::{NextToken, NextTokens};
use llmkit_core::models::{CachedModel, CausalLm, ConfigReader, Phi3Config, load_causal_lm};
use llmkit_core::nn::Rope;
use llmkit_core::{Error, NoAdapter, Result};
use serde_json::{Value, json};

const ALL: [&str; 12] = [
    "gemma3",
    "llama-dynamic",
    "mistral-window",
    "mixtral",
    "phi3",
    "phi4-longrope",
    "qwen2-window",
    "qwen2-yarn",
    "qwen3",
    "qwen3-moe",
    "qwen3-moe-sparse-step",
    "qwen3-tied",
];

fn fixture(name: &str) -> PathBuf {
    fixtures().join("decoders").join(name)
}

fn load(name: &str) -> Arc<dyn CausalLm> {
    load_causal_lm(&Checkpoint::open(fixture(name)).unwrap(), &device()).unwrap()
}

/// Loads a copy of the fixture `name` whose configuration was changed.
fn load_with(name: &str, change: impl FnOnce(&mut Value)) -> Result<Arc<dyn CausalLm>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture(name).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(fixture(name).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    load_causal_lm(&Checkpoint::open(folder.path())?, &device())
}

macro_rules! decoder_fixtures {
    ($($test:ident: $folder:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                equals_transformers(&fixture($folder), &fixture($folder));
            }
        )+
    };
}

decoder_fixtures! {
    gemma3_with_two_rotations: "gemma3",
    llama_with_dynamic_ntk: "llama-dynamic",
    mistral_with_a_window: "mistral-window",
    mixtral: "mixtral",
    phi3_with_a_window: "phi3",
    phi4_that_switches_to_long_factors: "phi4-longrope",
    qwen2_with_windows_in_later_blocks: "qwen2-window",
    qwen2_with_yarn: "qwen2-yarn",
    qwen3_with_biases_and_layer_types: "qwen3",
    qwen3_with_a_tied_head: "qwen3-tied",
    qwen3_moe_with_a_dense_block: "qwen3-moe",
    qwen3_moe_in_every_other_block: "qwen3-moe-sparse-step",
}

#[test]
fn gemma3_in_the_fields_of_transformers_4() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [("model.safetensors", "model.safetensors"), ("config-v4.json", "config.json")] {
        std::fs::copy(fixture("gemma3").join(from), folder.path().join(to)).unwrap();
    }
    equals_transformers(&fixture("gemma3"), folder.path());
}

#[test]
fn every_tensor_is_shown() {
    for name in ALL {
        let names = Safetensors::open(fixture(name)).unwrap().names();
        assert_eq!(shown_tensors(load(name).as_ref()), names, "{name}");
    }
}

#[test]
fn rows_of_different_lengths_are_each_as_alone() {
    for name in ALL {
        let model = load(name);
        let (values, [_, seq]) = Expected::read(&fixture(name)).ints("input_ids");
        let tokens: Vec<u32> = values[..seq].iter().map(|id| *id as u32).collect();
        // Some of them longer than windows and than the length at which rotations change; fed in two goes.
        let first = [5, 37, 1, 20];
        let mut together = CachedModel::new(model.as_ref(), &NoAdapter).with_rows(first.len());
        let mut logits = vec![Vec::new(); first.len()];
        let goes: [Vec<&[u32]>; 2] = [
            first.map(|len| &tokens[..len]).to_vec(),
            [&tokens[..3], &tokens[3..4], &[], &tokens[..19]].to_vec(),
        ];
        goes.iter().for_each(|go| together.feed_rows(go, &mut logits).unwrap());
        for (row, logits) in logits.iter().enumerate() {
            let mut alone = CachedModel::new(model.as_ref(), &NoAdapter);
            let mut expected = Vec::new();
            for go in goes.iter().filter(|go| !go[row].is_empty()) {
                alone.feed(go[row], &mut expected).unwrap();
            }
            assert_eq!(together.row_position(row), alone.position(), "{name}: row {row}");
            let difference = common::largest_difference(logits, &expected);
            assert!(difference < 1e-4, "{name}: row {row} differs by {difference}");
        }
    }
}

#[test]
fn a_copied_row_goes_on_beyond_the_length_at_which_rotations_switch() {
    let model = load("phi4-longrope");
    assert_eq!(model.switches_at(), Some(32));
    let tokens: Vec<u32> = (3..43).collect();
    let mut rows = CachedModel::new(model.as_ref(), &NoAdapter).with_rows(2);
    let mut logits = vec![Vec::new(); 2];
    rows.feed_rows(&[&tokens[..10], &tokens[..30]], &mut logits).unwrap();
    rows.select(&[1, 1, 0]).unwrap();
    logits.push(Vec::new());
    rows.feed_rows(&[&tokens[30..], &tokens[..1], &tokens[..1]], &mut logits).unwrap();
    let sequences =
        [tokens.clone(), [&tokens[..30], &tokens[..1]].concat(), [&tokens[..10], &tokens[..1]].concat()];
    for (row, (sequence, logits)) in sequences.iter().zip(&logits).enumerate() {
        let mut expected = Vec::new();
        CachedModel::new(model.as_ref(), &NoAdapter).feed(sequence, &mut expected).unwrap();
        let difference = common::largest_difference(logits, &expected);
        assert!(difference < 1e-4, "row {row} differs by {difference}");
    }
}

#[test]
fn frequencies_are_those_of_transformers() {
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(fixture("rope.json")).unwrap()).unwrap();
    assert!(cases.len() > 30);
    for case in cases {
        let path = Path::new("rope.json");
        let config = ConfigReader::new(path, &case["config"]);
        let config = if case["model_type"] == "phi3" {
            // The sizes do not matter here, but must be there.
            let mut fields = case["config"].clone();
            for field in ["vocab_size", "intermediate_size", "num_hidden_layers"] {
                fields[field] = json!(1);
            }
            Phi3Config::read(ConfigReader::new(path, &fields)).unwrap().rope
        } else {
            config.rope(32).unwrap()
        };
        let rope = Rope::new(&config);
        let length = case["length"].as_u64().unwrap() as usize;
        let expected: Vec<f64> =
            case["inv_freq"].as_array().unwrap().iter().map(|f| f.as_f64().unwrap()).collect();
        let found = rope.frequencies(length);
        assert_eq!(found.len(), expected.len(), "{case}");
        for (found, expected) in found.iter().zip(&expected) {
            let difference = (f64::from(*found) - expected).abs();
            // As f32 powers differ from f64 ones.
            assert!(difference <= 2e-6 * expected, "{found} is not {expected}: {case}");
        }
        let factor = case["attention_factor"].as_f64().unwrap();
        assert!((f64::from(rope.attention_factor()) - factor).abs() < 1e-6, "{case}");
    }
}

#[test]
fn a_configuration_that_asks_for_something_else_names_its_field() {
    let same = |field| (field, field);
    for (name, (field, named), value) in [
        ("mistral-window", same("sliding_window"), json!("wide")),
        ("mistral-window", same("layer_types"), json!(["full_attention", "full_attention"])),
        ("mistral-window", same("hidden_act"), json!("gelu")),
        ("qwen2-window", same("layer_types"), json!(["full_attention"])),
        ("qwen2-window", same("layer_types"), json!(["full_attention", "chunked_attention"])),
        ("qwen2-window", same("use_sliding_window"), json!("yes")),
        ("qwen2-window", same("max_window_layers"), json!(-1)),
        ("qwen3", same("use_sliding_window"), json!(false)),
        ("qwen3", same("head_dim"), json!(23)),
        ("qwen3", same("quantization_config"), json!({"quant_method": "awq"})),
        ("gemma3", same("final_logit_softcapping"), json!(30.0)),
        ("gemma3", same("attn_logit_softcapping"), json!(50.0)),
        ("gemma3", same("use_bidirectional_attention"), json!(true)),
        ("gemma3", same("hidden_activation"), json!("relu")),
        ("gemma3", same("query_pre_attn_scalar"), json!(0)),
        ("gemma3", ("rope_parameters", "rope_type"), json!({"rope_type": "default"})),
        ("gemma3", ("rope_parameters", "rope_type"), json!({"full_attention": {"rope_type": "spiral"}})),
        ("phi3", ("rope_parameters", "rope_type"), json!({"rope_type": "linear", "factor": 2.0})),
        (
            "phi3",
            ("rope_parameters", "partial_rotary_factor"),
            json!({"rope_type": "default", "partial_rotary_factor": 0.1}),
        ),
        ("phi3", same("attention_bias"), json!(true)),
        ("llama-dynamic", ("rope_parameters", "factor"), json!({"rope_type": "dynamic"})),
        ("llama-dynamic", ("rope_parameters", "mrope_section"), json!({"mrope_section": [2, 2, 4]})),
        (
            "llama-dynamic",
            ("rope_parameters", "partial_rotary_factor"),
            json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
        ),
        ("qwen2-yarn", ("rope_scaling", "beta_fast"), json!({"type": "yarn", "factor": 2, "beta_fast": -1})),
        (
            "phi4-longrope",
            ("rope_scaling", "long_factor"),
            json!({"type": "su", "short_factor": [1, 1, 1, 1, 1, 1]}),
        ),
        (
            "phi4-longrope",
            ("rope_scaling", "short_factor"),
            json!({"type": "su", "short_factor": [1, 1, 1, 1, 1, 0], "long_factor": [1, 1, 1, 1, 1, 1]}),
        ),
        ("qwen3-moe", same("num_experts_per_tok"), json!(6)),
        ("qwen3-moe", same("mlp_only_layers"), json!(["first"])),
        ("qwen3-moe", same("num_local_experts"), json!(1 << 27)),
        ("mixtral", same("num_local_experts"), json!(1 << 27)),
        ("mixtral", same("num_hidden_layers"), json!(1 << 27)),
    ] {
        let result = load_with(name, |config| config[field] = value.clone());
        let Err(error) = result else { panic!("{name}: {field} = {value} was accepted") };
        assert!(
            matches!(&error, Error::Config { field: found, .. } if found == named),
            "{name}: {field} = {value}: {error}"
        );
    }
}

#[test]
fn an_expert_too_many_or_too_few_is_named() {
    let name = if Checkpoint::open(fixture("qwen3-moe")).unwrap().config()["num_experts"].is_null() {
        "num_local_experts"
    } else {
        "num_experts"
    };
    let Err(Error::Tensors { missing, .. }) = load_with("qwen3-moe", |config| config[name] = json!(6)) else {
        panic!("found a sixth expert")
    };
    assert_eq!(missing.len(), 3, "{missing:?}");
    assert!(missing.iter().all(|name| name.starts_with("model.layers.1.mlp.experts.5.")), "{missing:?}");
    let Err(Error::Tensors { unexpected, .. }) = load_with("qwen3-moe", |config| config[name] = json!(4))
    else {
        panic!("overlooked the fifth expert")
    };
    assert_eq!(unexpected.len(), 3, "{unexpected:?}");
}
