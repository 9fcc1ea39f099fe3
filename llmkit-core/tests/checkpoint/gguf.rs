use llmkit_core::Error;
use llmkit_core::checkpoint::gguf::{GgufFile, MetadataValue};
use llmkit_core::checkpoint::{Safetensors, TensorSource};
use serde_json::{Value, json};

use crate::build::{Gguf, pair, tensor, text};
use crate::{assert_holds, fixture};

fn open(name: &str) -> GgufFile {
    GgufFile::open(fixture(name)).unwrap()
}

fn message(bytes: Vec<u8>) -> String {
    GgufFile::from_bytes(bytes).unwrap_err().to_string()
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

#[test]
fn every_type_dequantises_as_in_python_bit_for_bit() {
    let file = open("checkpoint/quants.gguf");
    assert_eq!(assert_holds(&file, "checkpoint/quants.safetensors"), 26);
    for name in file.names() {
        assert_eq!(file.info(&name).unwrap().dtype, name);
    }
}

#[test]
fn weights_are_what_transformers_reads() {
    assert_eq!(assert_holds(&open("llama/gguf/model.gguf"), "llama/gguf/weights.safetensors"), 6);
}

#[test]
fn biases_are_deinterleaved_and_names_complete() {
    let file = open("checkpoint/biased.gguf");
    let expected = Safetensors::open(fixture("checkpoint/biased.safetensors")).unwrap();
    assert_eq!(file.names(), expected.names());
    assert_eq!(assert_holds(&file, "checkpoint/biased.safetensors"), 19);
}

#[test]
fn config_is_that_of_the_original_model() {
    let config = open("checkpoint/biased.gguf").config().unwrap();
    let mut expected = json("checkpoint/biased.json");
    let mut rope = expected["rope_parameters"].take();
    assert_eq!(config["rope_theta"], rope["rope_theta"]);
    rope.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(config["rope_scaling"], rope);
    assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
    for field in [
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "max_position_embeddings",
        "rms_norm_eps",
        "tie_word_embeddings",
        "attention_bias",
        "mlp_bias",
        "bos_token_id",
        "eos_token_id",
    ] {
        assert_eq!(config[field], expected[field], "{field}");
    }
    let tied = open("llama/gguf/model.gguf").config().unwrap();
    assert_eq!((&tied["tie_word_embeddings"], &tied["attention_bias"]), (&json!(true), &json!(false)));
    assert_eq!((&tied["rope_theta"], &tied["rope_scaling"]), (&json!(100000.0), &Value::Null));
    assert_eq!((&tied["pad_token_id"], &tied["head_dim"]), (&json!(2), &json!(16)));
}

/// A file of the architecture `llama` with these RoPE factors.
fn with_factors(theta: f32, head_dim: u32, max: u32, factors: &[f32]) -> GgufFile {
    let number = |key: &str, value: u32| pair(&format!("llama.{key}"), 4, &value.to_le_bytes());
    let mut file = Gguf::small();
    file.pairs = vec![
        pair("general.architecture", 8, &text("llama")),
        number("embedding_length", head_dim),
        number("feed_forward_length", 8),
        number("block_count", 1),
        number("context_length", max),
        number("attention.head_count", 1),
        number("vocab_size", 7),
        pair("llama.rope.freq_base", 6, &theta.to_le_bytes()),
        pair("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes()),
    ];
    file.tensors = vec![tensor("rope_freqs.weight", &[factors.len() as u64], 0, 0)];
    file.data = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
    GgufFile::from_bytes(file.bytes()).unwrap()
}

#[test]
fn rope_factors_become_llama3_scaling_where_it_reproduces_them() {
    let mut found = Vec::new();
    for case in json("checkpoint/rope_factors.json").as_array().unwrap() {
        let factors: Vec<f32> = case["factors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|factor| factor.as_f64().unwrap() as f32)
            .collect();
        let theta = case["rope"]["rope_theta"].as_f64().unwrap() as f32;
        let max = case["max"].as_u64().unwrap() as u32;
        let file = with_factors(theta, case["head_dim"].as_u64().unwrap() as u32, max, &factors);
        assert_eq!(file.rope_factors().unwrap().unwrap(), factors);
        assert!(file.names().is_empty(), "the factors are no parameter");
        let scaling = file.config().unwrap()["rope_scaling"].take();
        if scaling["rope_type"] == "llama3" {
            for field in ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
            {
                assert_eq!(scaling[field].as_f64(), case["rope"][field].as_f64(), "{field}");
            }
        } else {
            assert_eq!(scaling["long_factor"], json!(factors));
            assert_eq!(scaling["short_factor"], json!(factors));
        }
        found.push(scaling["rope_type"].as_str().unwrap().to_owned());
    }
    assert_eq!(found, ["llama3", "llama3", "longrope", "longrope"]);
    assert_eq!(with_factors(1e4, 8, 64, &[1.0; 4]).config().unwrap()["rope_scaling"], Value::Null);
    let wrong = with_factors(1e4, 8, 64, &[1.0; 3]).config().unwrap_err().to_string();
    assert!(wrong.contains("rope_freqs.weight"), "{wrong}");
}

#[test]
fn version_2_metadata_and_alignment_are_read() {
    let mut file = Gguf::small();
    file.version = 2;
    let nested =
        [&9u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[0, 0, 0, 0], &1u64.to_le_bytes(), &[7]].concat();
    let nested = [&nested[..], &5u32.to_le_bytes(), &1u64.to_le_bytes(), &(-4i32).to_le_bytes()].concat();
    file.pairs.push(pair("general.alignment", 4, &8u32.to_le_bytes()));
    file.pairs.push(pair("nested", 9, &nested));
    file.pairs.push(pair("yes", 7, &[1]));
    // Eight bytes of alignment, and the tensor at 16 of the data.
    file.tensors = vec![tensor("token_embd.weight", &[3, 2], 0, 16)];
    file.data.splice(0..0, [0xee; 16]);
    let mut bytes = file.bytes();
    // `bytes()` pads to 32; the file says 8.
    let head = bytes.len() - file.data.len();
    let unpadded = 24 + file.pairs.concat().len() + file.tensors.concat().len();
    bytes.drain(unpadded.next_multiple_of(8)..head);
    let file = GgufFile::from_bytes(bytes).unwrap();
    assert_eq!((file.version(), file.alignment(), file.architecture()), (2, 8, "qwen2"));
    assert_eq!(file.read_f32("model.embed_tokens.weight").unwrap(), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(file.info("model.embed_tokens.weight").unwrap().shape, [2, 3]);
    let expected = MetadataValue::Array(vec![
        MetadataValue::Array(vec![MetadataValue::U8(7)]),
        MetadataValue::Array(vec![MetadataValue::I32(-4)]),
    ]);
    assert_eq!(file.metadata()["nested"], expected);
    assert_eq!(file.metadata()["yes"], MetadataValue::Bool(true));
}

#[test]
fn malformed_heads_are_named() {
    let with = |change: &dyn Fn(&mut Gguf)| {
        let mut file = Gguf::small();
        change(&mut file);
        message(file.bytes())
    };
    let cases: [(&str, String); 17] = [
        ("the bytes `GGUF`", message(b"GGML\x03\0\0\0".to_vec())),
        ("the magic", message(b"GG".to_vec())),
        ("big-endian", with(&|file| file.version = 3u32.swap_bytes())),
        ("version 1", with(&|file| file.version = 1)),
        ("`general.architecture` twice", with(&|file| file.pairs.push(file.pairs[0].clone()))),
        ("`token_embd.weight` twice", with(&|file| file.tensors.push(file.tensors[0].clone()))),
        ("at most 4 dimensions", with(&|file| file.tensors[0] = tensor("x", &[1; 5], 0, 0))),
        ("type number 99", with(&|file| file.tensors[0] = tensor("x", &[1], 99, 0))),
        (
            "rows of whole Q4_0 blocks (32 values)",
            with(&|file| file.tensors[0] = tensor("x", &[16, 2], 2, 0)),
        ),
        ("multiple of 32", with(&|file| file.tensors[0] = tensor("x", &[1], 0, 4))),
        ("truncated", with(&|file| file.data.truncate(23))),
        ("truncated", with(&|file| file.tensors[0] = tensor("x", &[u64::MAX, u64::MAX], 0, 0))),
        ("truncated", with(&|file| file.tensors[0] = tensor("x", &[1], 0, u64::MAX - 31))),
        ("sharing bytes", with(&|file| file.tensors.push(tensor("x", &[3, 2], 0, 0)))),
        ("a power of two", with(&|file| file.pairs.push(pair("general.alignment", 4, &24u32.to_le_bytes())))),
        ("truth value", with(&|file| file.pairs.push(pair("x", 7, &[2])))),
        ("UTF-8", with(&|file| file.pairs.push(pair("x", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff])))),
    ];
    for (expected, found) in cases {
        assert!(found.contains(expected), "{expected:?} is not in: {found}");
    }
}

#[test]
fn arrays_nested_too_deep_are_refused() {
    let mut value = Vec::new();
    for _ in 0..1000 {
        value.extend(9u32.to_le_bytes());
        value.extend(1u64.to_le_bytes());
    }
    let mut file = Gguf::small();
    file.pairs.push(pair("x", 9, &value));
    let found = message(file.bytes());
    assert!(found.contains("at most 4 deep"), "{found}");
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let mut file = Gguf::small();
    file.pairs[0] = pair("general.architecture", 8, &text("mamba"));
    let error = GgufFile::from_bytes(file.bytes()).unwrap_err();
    assert!(matches!(&error, Error::UnsupportedArchitecture { found, .. } if found == "mamba"), "{error}");

    // A type that is known and not dequantised: the file opens, reading names it.
    let mut file = Gguf::small();
    file.tensors[0] = tensor("token_embd.weight", &[3, 2], 26, 0);
    let file = GgufFile::from_bytes(file.bytes()).unwrap();
    let error = file.read_f32("model.embed_tokens.weight").unwrap_err().to_string();
    assert!(error.contains("type I32") && error.contains("Q4_0"), "{error}");

    let error = file.read_f32("model.norm.weight").unwrap_err();
    assert!(matches!(&error, Error::Tensors { missing, .. } if missing == &["model.norm.weight"]), "{error}");
}

#[test]
fn heads_that_do_not_divide_the_rows_are_refused() {
    let mut file = Gguf::small();
    file.pairs = vec![
        pair("general.architecture", 8, &text("llama")),
        pair("llama.attention.head_count", 4, &[3, 0, 0, 0]),
    ];
    file.tensors = vec![tensor("blk.0.attn_q.weight", &[1, 4], 0, 0)];
    let found = message(file.bytes());
    assert!(found.contains("rows for 3 heads of even size"), "{found}");
    file.pairs[1] = pair("llama.attention.head_count", 4, &[0; 4]);
    assert!(message(file.bytes()).contains("rows for 0 heads"));
    file.pairs[1] = pair("llama.attention.head_count", 4, &[0xff; 4]);
    assert!(message(file.bytes()).contains("rows for 4294967295 heads"));
}

#[test]
fn metadata_that_change_the_result_are_refused() {
    let file = |extra: Vec<u8>| {
        let number = |key: &str, value: u32| pair(&format!("qwen2.{key}"), 4, &value.to_le_bytes());
        let mut file = Gguf::small();
        file.pairs.extend([
            number("embedding_length", 8),
            number("feed_forward_length", 8),
            number("block_count", 1),
            number("context_length", 64),
            number("attention.head_count", 2),
            pair("qwen2.attention.layer_norm_rms_epsilon", 6, &1e-6f32.to_le_bytes()),
            extra,
        ]);
        GgufFile::from_bytes(file.bytes()).unwrap().config()
    };
    let plain = file(pair("general.name", 8, &text("x"))).unwrap();
    assert_eq!((&plain["vocab_size"], &plain["rope_theta"]), (&json!(2), &json!(10000.0)));
    assert_eq!(
        (&plain["architectures"][0], &plain["model_type"]),
        (&json!("Qwen2ForCausalLM"), &json!("qwen2"))
    );
    for (key, value) in [("expert_count", 8u32), ("attention.value_length", 5), ("rope.dimension_count", 2)] {
        let error = file(pair(&format!("qwen2.{key}"), 4, &value.to_le_bytes())).unwrap_err();
        assert!(matches!(&error, Error::Config { field, .. } if *field == format!("qwen2.{key}")), "{error}");
    }
    for key in ["logit_scale", "attention.clamp_kqv", "rope.scaling.attn_factor"] {
        let error = file(pair(&format!("qwen2.{key}"), 6, &2f32.to_le_bytes())).unwrap_err();
        assert!(matches!(&error, Error::Config { field, .. } if *field == format!("qwen2.{key}")), "{error}");
    }
    let error = file(pair("qwen2.rope.scaling.type", 8, &text("longrope"))).unwrap_err().to_string();
    assert!(error.contains("none, linear or yarn"), "{error}");
    let linear = file(pair("qwen2.rope.scale_linear", 6, &2f32.to_le_bytes())).unwrap();
    assert_eq!(linear["rope_scaling"], json!({ "rope_type": "linear", "factor": 2.0 }));
}
