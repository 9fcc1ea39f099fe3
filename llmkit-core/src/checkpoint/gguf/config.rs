use serde_json::{Map, Value, json};

use super::rope_factors::rope_scaling;
use super::{Fields, GgufFile};
use crate::checkpoint::TensorSource;
use crate::{Error, Result};

/// RoPE's base where a file does not say, as in llama.cpp and Hugging Face.
const DEFAULT_ROPE_THETA: f64 = 10000.0;

/// Metadata that would change what the model computes, and that the Hugging Face classes here have no field for.
const UNSUPPORTED: [&str; 8] = [
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.scale",
    "embedding_scale",
    "logit_scale",
    "residual_scale",
    "use_parallel_residual",
    "attention.layer_norm_epsilon",
];

/// Derives a Hugging Face style `config.json` from a GGUF file's metadata and tensors.
pub(super) fn derive(file: &GgufFile) -> Result<Value> {
    let fields = file.fields();
    let architecture = file.architecture();
    let key = |name: &str| format!("{architecture}.{name}");
    refuse_unsupported(file, &key)?;

    let hidden_size = fields.require_u32(&key("embedding_length"))?;
    let heads = fields.require_u32(&key("attention.head_count"))?;
    let head_dim = match fields.u32(&key("attention.key_length"))? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(fields.refuse(&key("attention.head_count"), format!("a divisor of {hidden_size}")));
        }
    };
    for same in ["attention.value_length", "rope.dimension_count"] {
        if fields.u32(&key(same))?.is_some_and(|value| value != head_dim) {
            return Err(fields.refuse(&key(same), format!("the size of a head, {head_dim}")));
        }
    }
    let theta = fields.f64(&key("rope.freq_base"))?.unwrap_or(DEFAULT_ROPE_THETA);
    let max_position = fields.require_u32(&key("context_length"))?;

    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    set("architectures", json!([class(architecture)]));
    set("model_type", json!(architecture));
    set("vocab_size", json!(vocab_size(file, &key)?));
    set("hidden_size", json!(hidden_size));
    set("intermediate_size", json!(fields.require_u32(&key("feed_forward_length"))?));
    set("num_hidden_layers", json!(fields.require_u32(&key("block_count"))?));
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(fields.u32(&key("attention.head_count_kv"))?.unwrap_or(heads)));
    set("head_dim", json!(head_dim));
    set("hidden_act", json!("silu"));
    set("max_position_embeddings", json!(max_position));
    set("rms_norm_eps", json!(fields.require_f64(&key("attention.layer_norm_rms_epsilon"))?));
    set("rope_theta", json!(theta));
    set("rope_scaling", scaling(file, &key, head_dim, theta, max_position)?);
    set("tie_word_embeddings", json!(file.info("lm_head.weight").is_none()));
    if architecture != "qwen2" {
        // Qwen 2 always has biases on query, key and value, and no field for them.
        set("attention_bias", json!(file.info("model.layers.0.self_attn.q_proj.bias").is_some()));
    }
    if architecture == "llama" {
        set("mlp_bias", json!(file.info("model.layers.0.mlp.gate_proj.bias").is_some()));
    }
    if let Some(window) = fields.u32(&key("attention.sliding_window"))? {
        set("sliding_window", json!(window));
    }
    for (name, token) in [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some(id) = fields.u32(token)? {
            set(name, json!(id));
        }
    }
    Ok(Value::Object(config))
}

fn class(architecture: &str) -> &'static str {
    match architecture {
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        _ => "LlamaForCausalLM",
    }
}

fn refuse_unsupported(file: &GgufFile, key: &impl Fn(&str) -> String) -> Result<()> {
    let fields = file.fields();
    if let Some(name) =
        UNSUPPORTED.iter().map(|name| key(name)).find(|name| file.metadata().contains_key(name))
    {
        return Err(fields.refuse(&name, "no such key, which changes what the model computes"));
    }
    if fields.u32(&key("expert_count"))?.is_some_and(|experts| experts > 0) {
        return Err(fields.refuse(&key("expert_count"), "a model without experts"));
    }
    if fields.bool(&key("attention.causal"))? == Some(false) {
        return Err(fields.refuse(&key("attention.causal"), "a causal model"));
    }
    Ok(())
}

/// The rows of the embedding, which a configuration must agree with; metadata count the tokens, and these can be fewer.
fn vocab_size(file: &GgufFile, key: &impl Fn(&str) -> String) -> Result<usize> {
    if let Some(embedding) = file.info("model.embed_tokens.weight") {
        return embedding.shape.first().copied().ok_or_else(|| Error::Config {
            path: file.path().to_path_buf(),
            field: "token_embd.weight".into(),
            expected: "a matrix".into(),
            found: "a single number".into(),
        });
    }
    match file.fields().u32(&key("vocab_size"))? {
        Some(size) => Ok(size as usize),
        None => Ok(file.fields().require_array("tokenizer.ggml.tokens")?.len()),
    }
}

fn scaling(
    file: &GgufFile,
    key: &impl Fn(&str) -> String,
    head_dim: u32,
    theta: f64,
    max_position: u32,
) -> Result<Value> {
    let from_metadata = scaling_in_metadata(&file.fields(), file, key)?;
    let Some(factors) = file.rope_factors()? else { return Ok(from_metadata) };
    if !from_metadata.is_null() {
        return Err(file
            .fields()
            .refuse(&key("rope.scaling.type"), "no other scaling beside rope_freqs.weight"));
    }
    let usable = factors.iter().all(|factor| factor.is_finite() && *factor > 0.0);
    if factors.len() * 2 != head_dim as usize || !usable {
        return Err(Error::Config {
            path: file.path().to_path_buf(),
            field: "rope_freqs.weight".into(),
            expected: format!("{} positive divisors", head_dim / 2),
            found: format!("{}, not all of them positive and finite", factors.len()),
        });
    }
    Ok(rope_scaling(&factors, theta, max_position))
}

fn scaling_in_metadata(fields: &Fields<'_>, file: &GgufFile, key: &impl Fn(&str) -> String) -> Result<Value> {
    const KNOWN: [&str; 4] = ["type", "factor", "original_context_length", "finetuned"];
    let prefix = key("rope.scaling.");
    let unknown = file
        .metadata()
        .keys()
        .find(|name| name.strip_prefix(&prefix).is_some_and(|name| !KNOWN.contains(&name)));
    if let Some(name) = unknown {
        return Err(fields.refuse(name, format!("of RoPE scaling only {}", KNOWN.join(", "))));
    }
    // Files from before `rope.scaling` have only this factor.
    let legacy = fields.f64(&key("rope.scale_linear"))?.filter(|factor| *factor != 1.0);
    let kind = fields.str(&key("rope.scaling.type"))?.or(legacy.map(|_| "linear"));
    let factor = || match legacy {
        Some(factor) => Ok(factor),
        None => fields.require_f64(&key("rope.scaling.factor")),
    };
    match kind {
        None | Some("none") => Ok(Value::Null),
        Some("linear") => Ok(json!({ "rope_type": "linear", "factor": factor()? })),
        Some("yarn") => Ok(json!({
            "rope_type": "yarn",
            "factor": factor()?,
            "original_max_position_embeddings": fields.require_u32(&key("rope.scaling.original_context_length"))?,
        })),
        Some(_) => Err(fields.refuse(&key("rope.scaling.type"), "none, linear or yarn")),
    }
}
