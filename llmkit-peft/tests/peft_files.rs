//! PEFT's folders, both ways: what PEFT wrote computes the same here, and what we write back has the same tensors and configuration.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{Expected, base, fixtures, ids, largest_difference, logits, tensors};
use llmkit_core::NoAdapter;
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::{SaveOptions, load_causal_lm, save_model};
use llmkit_peft::{Error, Lora, Method, load_adapter, merge};
use serde_json::Value;

fn check(variant: &str, subfolder: &str) {
    let folder = fixtures().join("peft").join(variant);
    let model = base(std::fs::read_to_string(folder.join("base.txt")).unwrap().trim());
    let adapter = folder.join(subfolder);
    let lora = load_adapter(model.as_ref(), &adapter).unwrap();

    let expected = Expected::open(folder.join("expected.safetensors"));
    let (values, shape) = expected.ints("input_ids");
    let input = ids(&values, shape);
    let adapted = logits(model.as_ref(), input.clone(), lora.as_ref());
    let difference = largest_difference(&adapted, &expected.floats("logits"));
    assert!(difference < 1e-4, "{variant}: logits differ by {difference}");
    let plain = logits(model.as_ref(), input.clone(), &NoAdapter);
    assert!(largest_difference(&plain, &adapted) > 1e-2, "{variant}: the fixture's adapter does nothing");

    let merged = merge(model.as_ref(), lora.as_ref()).unwrap();
    let merged_logits = logits(merged.as_ref(), input.clone(), &NoAdapter);
    let difference = largest_difference(&merged_logits, &expected.floats("merged_logits"));
    assert!(difference < 1e-4, "{variant}: merged logits differ by {difference}");

    // The merged model as a folder of its own.
    let out = tempfile::tempdir().unwrap();
    save_model(merged.as_ref(), out.path(), SaveOptions::default()).unwrap();
    let reloaded = load_causal_lm(&Checkpoint::open(out.path()).unwrap(), &common::device()).unwrap();
    assert_eq!(logits(reloaded.as_ref(), input, &NoAdapter), merged_logits, "{variant}: saved and reloaded");

    // Written back: the same tensors, bit for bit, and the same configuration.
    let out = tempfile::tempdir().unwrap();
    lora.save(out.path()).unwrap();
    assert_same_folder(&adapter, out.path(), variant);
}

fn assert_same_folder(theirs: &Path, ours: &Path, variant: &str) {
    let open = |folder: &Path| Safetensors::open(folder.join("adapter_model.safetensors")).unwrap();
    let (a, b) = (open(theirs), open(ours));
    assert_eq!(a.names(), b.names(), "{variant}");
    for name in a.names() {
        assert_eq!(a.info(&name), b.info(&name), "{variant}: {name}");
        assert_eq!(a.read_f32(&name).unwrap(), b.read_f32(&name).unwrap(), "{variant}: {name}");
    }
    let read = |folder: &Path| -> Value {
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
        // PEFT writes sets in no particular order.
        for field in ["target_modules", "modules_to_save", "exclude_modules"] {
            if let Some(names) = config[field].as_array_mut() {
                names.sort_by_key(Value::to_string);
            }
        }
        config
    };
    assert_eq!(read(theirs), read(ours), "{variant}");
}

macro_rules! peft_fixtures {
    ($($test:ident: $folder:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                check($folder, "");
            }
        )+
    };
}

peft_fixtures! {
    defaults: "lora-qv",
    all_linear_with_rslora: "lora-all-linear-rslora",
    rank_and_alpha_patterns: "lora-patterns",
    layers_to_transform: "lora-layers",
    target_modules_as_a_regex: "lora-regex",
    all_biases: "lora-bias-all",
    biases_of_the_targets: "lora-bias-lora-only",
    a_head_saved_whole: "lora-modules-to-save",
    an_embedding_saved_whole: "lora-modules-to-save-embed",
    excluded_modules: "lora-exclude",
    a_bias_on_lora_b: "lora-b-bias",
    all_linear_layers_of_gemma3: "lora-gemma3",
    fused_projections_of_phi3: "lora-phi3",
    attention_of_qwen3_moe: "lora-qwen3-moe",
}

#[test]
fn an_adapter_with_a_name_is_in_its_sub_folder() {
    check("lora-subfolder", "other");
    let folder = fixtures().join("peft/lora-subfolder");
    let model = base(std::fs::read_to_string(folder.join("base.txt")).unwrap().trim());
    let error = Lora::load(model.as_ref(), &folder).unwrap_err().to_string();
    assert!(error.contains("sub-folder"), "{error}");
}

/// A copy of a fixture's adapter, to be spoilt.
fn copy(variant: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(fixtures().join("peft").join(variant).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path: PathBuf = folder.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_wrong_adapter_names_all_its_keys() {
    let model = base("gqa-tied");
    let folder = copy("lora-qv");
    edit(folder.path(), |config| {
        config["target_modules"] = serde_json::json!(["q_proj", "k_proj"]);
        config["rank_pattern"] = serde_json::json!({"layers.0.self_attn.q_proj": 3});
    });
    let Err(Error::Adapter { missing, unexpected, mismatched, .. }) =
        Lora::load(model.as_ref(), folder.path())
    else {
        panic!("loaded a wrong adapter");
    };
    // Three layers, A and B each.
    assert_eq!(missing.len(), 6, "{missing:?}");
    assert!(missing.iter().all(|key| key.contains("k_proj")));
    assert_eq!(unexpected.len(), 6, "{unexpected:?}");
    assert!(unexpected.iter().all(|key| key.contains("v_proj")));
    assert_eq!(mismatched.len(), 2, "{mismatched:?}");
    assert!(mismatched[0].contains("lora_A") && mismatched[0].contains("[3, 48]"), "{mismatched:?}");
}

#[test]
fn fields_that_mean_another_computation_are_refused() {
    let model = base("gqa-tied");
    for (field, value) in [
        ("fan_in_fan_out", serde_json::json!(true)),
        ("layer_replication", serde_json::json!([[0, 2]])),
        ("trainable_token_indices", serde_json::json!([101])),
        ("init_lora_weights", serde_json::json!("corda")),
        ("init_lora_weights", serde_json::json!("loftq")),
        ("target_parameters", serde_json::json!(["experts.gate_up_proj"])),
        ("peft_type", serde_json::json!("LOHA")),
        ("r", serde_json::json!(0)),
        ("lora_dropout", serde_json::json!(1.5)),
        ("target_modules", serde_json::json!("(?=lookahead)q_proj")),
    ] {
        let folder = copy("lora-qv");
        edit(folder.path(), |config| config[field] = value.clone());
        let error = Lora::load(model.as_ref(), folder.path()).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
}

#[test]
fn unknown_fields_are_kept() {
    let model = base("gqa-tied");
    let folder = copy("lora-qv");
    edit(folder.path(), |config| config["from_the_future"] = serde_json::json!({"depth": [1, 2]}));
    let out = tempfile::tempdir().unwrap();
    Lora::load(model.as_ref(), folder.path()).unwrap().save(out.path()).unwrap();
    let written: Value =
        serde_json::from_slice(&std::fs::read(out.path().join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(written["from_the_future"], serde_json::json!({"depth": [1, 2]}));
}

#[test]
fn the_smallest_config_loads() {
    let model = base("gqa-tied");
    let folder = copy("lora-qv");
    let config = r#"{"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"]}"#;
    std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    let lora = Lora::load(model.as_ref(), folder.path()).unwrap();
    assert_eq!(tensors(&lora).len(), 12);
    assert!(lora.targets().all(|(_, sizes)| sizes.rank == 8 && sizes.scale == 1.0));
}

#[test]
fn a_truncated_file_is_an_error() {
    let model = base("gqa-tied");
    let folder = copy("lora-qv");
    let path = folder.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(Lora::load(model.as_ref(), folder.path()), Err(Error::Core(_))));
}
