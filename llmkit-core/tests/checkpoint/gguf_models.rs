//! A tiny model of each architecture, as a Hugging Face folder by transformers and as a GGUF file by llama.cpp's Python library
//! (`scripts/make_gguf_models_fixtures.py`): read, written, and written again.

use std::path::Path;

use burn::tensor::{Int, Tensor};
use llmkit_core::checkpoint::gguf::{GgufFile, GgufOptions, GgufType, Metadata, MetadataValue, save_gguf};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorData, TensorSource, save_safetensors};
use llmkit_core::models::load_causal_lm;
use llmkit_core::{Device, Error, NoAdapter, Tokenizer};
use serde_json::{Value, json};

use crate::fixture;

const MODELS: [&str; 8] = ["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3moe", "gemma3", "phi3"];

fn folder(model: &str) -> Checkpoint {
    Checkpoint::open(fixture(&format!("gguf/{model}"))).unwrap()
}

fn reference(model: &str) -> GgufFile {
    GgufFile::open(fixture(&format!("gguf/{model}/model.gguf"))).unwrap()
}

/// Writes the model of a fixture's folder.
fn written(model: &str, options: &GgufOptions) -> GgufFile {
    let checkpoint = folder(model);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    save_gguf(&path, checkpoint.config(), checkpoint.source(), options).unwrap();
    GgufFile::from_bytes(std::fs::read(path).unwrap()).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Both hold the same tensors, bit for bit and of one type.
fn assert_same(ours: &GgufFile, theirs: &GgufFile, model: &str) {
    assert_eq!(ours.names(), theirs.names(), "{model}");
    for name in ours.names() {
        assert_eq!(ours.info(&name), theirs.info(&name), "{model}: {name}");
        assert!(
            bits(&ours.read_f32(&name).unwrap()) == bits(&theirs.read_f32(&name).unwrap()),
            "{model}: {name}"
        );
    }
    let factors = |file: &GgufFile| file.rope_factors().unwrap().unwrap_or_default();
    for (ours, theirs) in factors(ours).iter().zip(factors(theirs)) {
        assert!((ours - theirs).abs() <= 1e-6 * theirs, "{model}: factor {ours}, expected {theirs}");
    }
}

#[test]
fn names_shapes_and_values_are_the_folders() {
    for model in MODELS {
        let (folder, file) = (folder(model), reference(model));
        assert_eq!(file.names(), folder.source().names(), "{model}");
        for name in file.names() {
            assert_eq!(file.info(&name).unwrap().shape, folder.source().info(&name).unwrap().shape, "{name}");
            let (ours, theirs) = (file.read_f32(&name).unwrap(), folder.source().read_f32(&name).unwrap());
            let largest = theirs.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let worst = ours.iter().zip(&theirs).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            // Q8_0 rounds by up to 1 / 254 of a block's largest value, and its scale to half precision. Any other order of rows is off by far more.
            assert!(largest > 0.1 && worst <= largest / 220.0, "{model}: {name}: {worst} of {largest}");
        }
    }
}

/// The rope fields of a configuration in the form of transformers 4, which the derived one has.
fn legacy_rope(config: &mut Value) {
    let rope = config["rope_parameters"].take();
    let full = rope.get("full_attention").unwrap_or(&rope);
    config["rope_theta"] = full["rope_theta"].clone();
    if let Some(sliding) = rope.get("sliding_attention") {
        config["rope_local_base_freq"] = sliding["rope_theta"].clone();
    }
    if let Some(partial) = rope.get("partial_rotary_factor") {
        config["partial_rotary_factor"] = partial.clone();
    }
    let mut scaling = full.clone();
    let object = scaling.as_object_mut().unwrap();
    object.remove("rope_theta");
    object.remove("partial_rotary_factor");
    if scaling["rope_type"] == "longrope" {
        // Phi-3 has it in the configuration itself.
        scaling.as_object_mut().unwrap().remove("original_max_position_embeddings");
    }
    config["rope_scaling"] = if scaling["rope_type"] == "default" { Value::Null } else { scaling };
}

#[test]
fn configurations_are_the_folders() {
    // What a file does not say, or transformers does not write: defaults in both.
    const DERIVED_ONLY: [&str; 6] =
        ["head_dim", "attention_bias", "mlp_bias", "num_experts", "decoder_sparse_step", "rope_parameters"];
    for model in MODELS {
        let mut expected = folder(model).config().clone();
        legacy_rope(&mut expected);
        let found = reference(model).config().unwrap();
        let mut compared = 0;
        for (field, value) in found.as_object().unwrap() {
            match expected.get(field) {
                // A Mistral without a window is a Llama in llama.cpp.
                _ if model == "mistral" && matches!(&**field, "architectures" | "model_type") => {}
                // The library's lists are f32 in the file.
                Some(expected) if field == "rope_scaling" && expected["rope_type"] == "longrope" => {
                    for list in ["short_factor", "long_factor"] {
                        let numbers = |value: &Value| {
                            let list = value[list].as_array().unwrap();
                            list.iter().map(|value| value.as_f64().unwrap() as f32).collect::<Vec<_>>()
                        };
                        assert_eq!(numbers(value), numbers(expected));
                    }
                    assert_eq!(value.as_object().unwrap().len(), expected.as_object().unwrap().len());
                }
                Some(expected) => {
                    assert_eq!(value, expected, "{model}: {field}");
                    compared += 1;
                }
                None => assert!(DERIVED_ONLY.contains(&&**field), "{model}: {field} is not in the folder"),
            }
        }
        assert!(compared >= 13, "{model}: only {compared} fields compared");
    }
    let qwen = reference("qwen3moe").config().unwrap();
    assert_eq!((&qwen["num_experts"], &qwen["decoder_sparse_step"]), (&json!(4), &json!(1)));
    assert_eq!(folder("qwen3moe").config()["num_local_experts"], json!(4));
    let gemma = reference("gemma3").config().unwrap();
    assert_eq!(gemma["layer_types"][5], "full_attention");
}

#[test]
fn quantised_files_equal_the_python_librarys_bit_for_bit() {
    for model in MODELS {
        assert_same(&written(model, &GgufOptions::new(GgufType::Q8_0)), &reference(model), model);
    }
    let theirs = GgufFile::open(fixture("gguf/llama/q4_0.gguf")).unwrap();
    let ours = written("llama", &GgufOptions::new(GgufType::Q4_0));
    assert_same(&ours, &theirs, "llama");
    assert_eq!(ours.info("model.layers.0.mlp.up_proj.weight").unwrap().dtype, "Q4_0");
    assert_eq!(ours.info("lm_head.weight").unwrap().dtype, "Q8_0");
    // Rows of 48 are no whole blocks of 32.
    let qwen = written("qwen2", &GgufOptions::new(GgufType::Q8_0));
    assert_eq!(qwen.info("model.layers.0.mlp.down_proj.weight").unwrap().dtype, "F16");
    assert_eq!(qwen.info("model.layers.0.self_attn.q_proj.bias").unwrap().dtype, "F32");
}

#[test]
fn unquantised_files_hold_the_folders_values() {
    for model in MODELS {
        let folder = folder(model);
        for kind in [GgufType::F32, GgufType::F16] {
            let file = written(model, &GgufOptions::new(kind));
            assert_eq!(file.names(), folder.source().names());
            for name in file.names() {
                let (ours, theirs) =
                    (file.read_f32(&name).unwrap(), folder.source().read_f32(&name).unwrap());
                if model == "gemma3" && name.ends_with("norm.weight") {
                    // 1 is added and taken away again.
                    let near = ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1.2e-7);
                    assert!(near, "{model}: {name}");
                } else {
                    assert!(bits(&ours) == bits(&theirs), "{model}: {name}");
                }
            }
        }
    }
}

/// Integers of any width and numbers are compared as such.
fn plain(value: &MetadataValue) -> Value {
    match value {
        MetadataValue::Array(values) => values.iter().map(plain).collect(),
        MetadataValue::String(text) => json!(text),
        MetadataValue::Bool(value) => json!(value),
        MetadataValue::F32(value) => json!(value),
        MetadataValue::I32(value) => json!(value),
        other => json!(other.as_u64().unwrap()),
    }
}

#[test]
fn metadata_are_what_the_converter_writes() {
    for model in MODELS {
        let theirs = reference(model);
        let mut options = GgufOptions::new(GgufType::Q8_0);
        if model == "llama" {
            let Some(MetadataValue::String(template)) = theirs.metadata().get("tokenizer.chat_template")
            else {
                panic!("no chat template")
            };
            options =
                options.with_chat_template(template.clone()).with_tokenizer(tokenizer().to_gguf().unwrap());
        }
        let ours = written(model, &options);
        for (key, value) in theirs.metadata() {
            let found = ours.metadata().get(key).unwrap_or_else(|| panic!("{model}: {key} is missing"));
            assert_eq!(plain(found), plain(value), "{model}: {key}");
        }
        let more: Vec<&String> =
            ours.metadata().keys().filter(|key| !theirs.metadata().contains_key(*key)).collect();
        assert!(more.is_empty(), "{model}: {more:?}");
    }
}

/// The tokenizer of the Llama with its special tokens.
fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("gguf/llama/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = json!({ "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>" });
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

#[test]
fn what_llama_cpp_cannot_compute_is_refused_by_name() {
    let refused = |model: &str, change: &dyn Fn(&mut Value)| {
        let checkpoint = folder(model);
        let mut config = checkpoint.config().clone();
        change(&mut config);
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("model.gguf");
        let options = GgufOptions::new(GgufType::F16);
        let error = save_gguf(&path, &config, checkpoint.source(), &options).unwrap_err();
        assert!(!path.exists());
        error
    };
    for (model, field, value) in [
        ("llama", "hidden_act", json!("gelu")),
        ("qwen2", "use_sliding_window", json!(true)),
        ("qwen3moe", "norm_topk_prob", json!(false)),
        ("qwen3moe", "mlp_only_layers", json!([1])),
        ("gemma3", "query_pre_attn_scalar", json!(100)),
        ("gemma3", "use_bidirectional_attention", json!(true)),
        ("llama", "num_hidden_layers", json!("two")),
    ] {
        let error = refused(model, &|config| config[field] = value.clone());
        assert!(matches!(&error, Error::Config { field: found, .. } if found == field), "{error}");
    }
    let error = refused("llama", &|config| config["rope_parameters"]["rope_type"] = json!("dynamic"));
    assert!(matches!(&error, Error::Config { field, .. } if field == "rope_type"), "{error}");
    let error = refused("llama", &|config| config["architectures"] = json!(["MambaForCausalLM"]));
    assert!(matches!(&error, Error::UnsupportedArchitecture { found, .. } if found == "MambaForCausalLM"));
    let error = refused("llama", &|config| config["num_hidden_layers"] = json!(3));
    let Error::Tensors { missing, .. } = &error else { panic!("{error}") };
    assert_eq!((missing.len(), &*missing[0]), (9, "model.layers.2.input_layernorm.weight"));
    let error = refused("mixtral", &|config| config["num_local_experts"] = json!(3));
    let Error::Tensors { unexpected, .. } = &error else { panic!("{error}") };
    assert_eq!(unexpected.len(), 6);
}

#[test]
fn weights_that_a_type_cannot_hold_leave_the_old_file() {
    let checkpoint = folder("qwen2");
    let out = tempfile::tempdir().unwrap();
    let source = checkpoint.source();
    let tensors = source.names().into_iter().map(|name| {
        let mut values = source.read_f32(&name).unwrap();
        if name == "model.layers.1.mlp.up_proj.weight" {
            values[7] = 1e5;
        }
        let shape = source.info(&name).unwrap().shape;
        (name, TensorData::f32(shape, values))
    });
    save_safetensors(out.path().join("model.safetensors"), tensors, None).unwrap();
    let source = Safetensors::open(out.path()).unwrap();
    let path = out.path().join("old.gguf");
    std::fs::write(&path, "old").unwrap();
    let error = save_gguf(&path, checkpoint.config(), &source, &GgufOptions::new(GgufType::F16))
        .unwrap_err()
        .to_string();
    assert!(error.contains("model.layers.1.mlp.up_proj.weight") && error.contains("100000"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    save_gguf(&path, checkpoint.config(), &source, &GgufOptions::new(GgufType::F32)).unwrap();
    assert!(GgufFile::open(&path).is_ok());
}

#[test]
fn further_metadata_must_be_uniform_and_tokens_fit_the_embedding() {
    let checkpoint = folder("qwen3");
    let out = tempfile::tempdir().unwrap();
    let save = |metadata: Metadata| {
        let options = GgufOptions::new(GgufType::F16).with_name("tiny").with_metadata(metadata);
        save_gguf(out.path().join("model.gguf"), checkpoint.config(), checkpoint.source(), &options)
    };
    let mixed = MetadataValue::Array(vec![MetadataValue::U32(1), MetadataValue::Bool(true)]);
    let error = save(Metadata::from([("x.mixed".to_owned(), mixed)])).unwrap_err();
    assert!(matches!(&error, Error::Config { field, .. } if field == "x.mixed"), "{error}");
    let error = save(tokenizer().to_gguf().unwrap()).unwrap_err();
    assert!(error.to_string().contains("at most 72 tokens"), "{error}");
    save(Metadata::new()).unwrap();
    let file = GgufFile::open(out.path().join("model.gguf")).unwrap();
    assert_eq!(file.metadata()["general.name"].as_str(), Some("tiny"));
}

#[test]
fn a_written_model_computes_what_the_folder_does() {
    let device = Device::from_env().unwrap().resolve().unwrap();
    let ids = Tensor::<2, Int>::from_ints([[3, 14, 15, 65, 35, 8, 9, 7, 9, 32, 38, 46, 26]], &device);
    for model in ["llama", "mistral"] {
        let checkpoint = folder(model);
        let logits = |checkpoint: &Checkpoint| {
            load_causal_lm(checkpoint, &device).unwrap().forward(ids.clone(), &NoAdapter)
        };
        let expected = logits(&checkpoint);
        let deviation = expected.clone().var(2).mean().into_scalar::<f32>().sqrt();
        assert!(deviation > 0.5, "{model}: logits of deviation {deviation} tell nothing");
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("model.gguf");
        // Gemma's norms and RoPE's factors go through an f32 rounding; Q8_0 and Q4_0 round the weights to 8 and 4 bits.
        for (kind, tolerance) in
            [(GgufType::F32, 1e-6), (GgufType::F16, 1e-6), (GgufType::Q8_0, 0.05), (GgufType::Q4_0, 0.7)]
        {
            save_gguf(&path, checkpoint.config(), checkpoint.source(), &GgufOptions::new(kind)).unwrap();
            let found = logits(&Checkpoint::open(&path).unwrap());
            let difference = (found - expected.clone()).powf_scalar(2.0).mean().into_scalar::<f32>().sqrt();
            assert!(
                difference <= tolerance * deviation,
                "{model} as {kind:?}: logits differ by {difference} (root mean square; their deviation is {deviation})"
            );
        }
    }
}

/// `scripts/check_gguf.py` compares what llama.cpp computes from the file with what transformers computes from the folder.
#[test]
#[ignore = "needs LLMKIT_MODEL, a folder, LLMKIT_OUT, a file to write, and LLMKIT_GGUF_TYPE, one of F32, F16, Q8_0, Q4_0"]
fn a_given_folder_is_written_as_gguf() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let kind = match &*variable("LLMKIT_GGUF_TYPE") {
        "F32" => GgufType::F32,
        "F16" => GgufType::F16,
        "Q8_0" => GgufType::Q8_0,
        "Q4_0" => GgufType::Q4_0,
        other => panic!("{other} is not a type that is written"),
    };
    let folder = variable("LLMKIT_MODEL");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let mut options = GgufOptions::new(kind);
    if Path::new(&folder).join("tokenizer.json").is_file() {
        options = options.with_tokenizer(Tokenizer::from_folder(&folder).unwrap().to_gguf().unwrap());
    }
    save_gguf(variable("LLMKIT_OUT"), checkpoint.config(), checkpoint.source(), &options).unwrap();
}
