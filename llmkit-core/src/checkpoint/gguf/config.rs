use serde_json::{Map, Value, json};

use super::architecture::Architecture;
use super::names::{ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT};
use super::rope_factors::rope_scaling;
use super::{Fields, GgufFile, MetadataValue};
use crate::checkpoint::TensorSource;
use crate::{Error, Result};

/// RoPE's base where a file does not say, as in llama.cpp and Hugging Face.
const DEFAULT_ROPE_THETA: f64 = 10000.0;

/// Gemma 3 numbers its layers in groups of this many, of which the last attends to everything and the others to a window.
pub(super) const GEMMA3_PERIOD: u32 = 6;

/// Metadata that would change what the model computes, and that the Hugging Face classes here have no field for.
const UNSUPPORTED: [&str; 9] = [
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.scale",
    "attn_logit_softcapping",
    "embedding_scale",
    "logit_scale",
    "residual_scale",
    "use_parallel_residual",
    "attention.layer_norm_epsilon",
];
/// The same of experts, unless they are zero.
const UNSUPPORTED_EXPERTS: [&str; 4] =
    ["expert_shared_count", "expert_group_count", "expert_group_used_count", "leading_dense_block_count"];

/// Derives a Hugging Face style `config.json` from a GGUF file's metadata and tensors.
pub(super) fn derive(file: &GgufFile) -> Result<Value> {
    let fields = file.fields();
    let kind = file.kind();
    let key = |name: &str| format!("{}.{name}", file.architecture());
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
    if fields.u32(&key("attention.value_length"))?.is_some_and(|value| value != head_dim) {
        return Err(fields.refuse(&key("attention.value_length"), format!("the size of a head, {head_dim}")));
    }
    let rotary = fields.u32(&key("rope.dimension_count"))?.unwrap_or(head_dim);
    let partial = kind == Architecture::Phi3 && rotary > 0 && rotary < head_dim && rotary.is_multiple_of(2);
    if rotary != head_dim && !partial {
        return Err(fields.refuse(&key("rope.dimension_count"), format!("the size of a head, {head_dim}")));
    }
    let theta = fields.f64(&key("rope.freq_base"))?.unwrap_or(DEFAULT_ROPE_THETA);
    let max_position = fields.require_u32(&key("context_length"))?;
    let layers = fields.require_u32(&key("block_count"))?;

    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    set("architectures", json!([kind.class()]));
    set("model_type", json!(kind.model_type()));
    set("vocab_size", json!(vocab_size(file, &key)?));
    set("hidden_size", json!(hidden_size));
    set("intermediate_size", json!(fields.require_u32(&key("feed_forward_length"))?));
    set("num_hidden_layers", json!(layers));
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(fields.u32(&key("attention.head_count_kv"))?.unwrap_or(heads)));
    set("head_dim", json!(head_dim));
    set("max_position_embeddings", json!(max_position));
    set("rms_norm_eps", json!(fields.require_f64(&key("attention.layer_norm_rms_epsilon"))?));
    set("rope_theta", json!(theta));
    set("rope_scaling", scaling(file, &key, head_dim, theta, max_position)?);
    set("tie_word_embeddings", json!(file.info("lm_head.weight").is_none()));
    if kind == Architecture::Gemma3 {
        set("hidden_activation", json!("gelu_pytorch_tanh"));
    } else {
        set("hidden_act", json!("silu"));
    }
    if matches!(
        kind,
        Architecture::Llama | Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::Gemma3
    ) {
        // The others have no field for it: Qwen 2 always has biases on query, key and value.
        set("attention_bias", json!(file.info("model.layers.0.self_attn.q_proj.bias").is_some()));
    }

    let window = fields.u32(&key("attention.sliding_window"))?.filter(|window| *window > 0);
    match kind {
        Architecture::Llama => {
            set("mlp_bias", json!(file.info("model.layers.0.mlp.gate_proj.bias").is_some()));
        }
        Architecture::Mistral => {
            set("sliding_window", json!(window));
        }
        Architecture::Qwen2 | Architecture::Qwen3 => refuse_window(&fields, &key, window)?,
        Architecture::Qwen3Moe => {
            refuse_window(&fields, &key, window)?;
            set("num_experts", json!(fields.require_u32(&key("expert_count"))?));
            set("num_experts_per_tok", json!(fields.require_u32(&key("expert_used_count"))?));
            set("moe_intermediate_size", json!(fields.require_u32(&key("expert_feed_forward_length"))?));
            // Not in the metadata: llama.cpp computes this architecture so.
            set("norm_topk_prob", json!(true));
            set("decoder_sparse_step", json!(1));
            set("mlp_only_layers", json!([]));
        }
        Architecture::Mixtral => {
            set("num_local_experts", json!(fields.require_u32(&key("expert_count"))?));
            set("num_experts_per_tok", json!(fields.require_u32(&key("expert_used_count"))?));
            set("sliding_window", json!(window));
        }
        Architecture::Gemma3 => {
            // The 27B model, known by its layers, scales by its hidden size's share of a head; the others by the size of a head.
            let scalar = if layers == 62 { hidden_size / heads.max(1) } else { head_dim };
            set("query_pre_attn_scalar", json!(scalar));
            let local = fields.f64(&key("rope.freq_base_swa"))?.unwrap_or(DEFAULT_ROPE_THETA);
            set("rope_local_base_freq", json!(local));
            set("sliding_window", json!(window));
            set("layer_types", json!(layer_types(file, &key, layers, window.is_some())?));
            set("attn_logit_softcapping", Value::Null);
            set("final_logit_softcapping", json!(fields.f64(&key("final_logit_softcapping"))?));
        }
        Architecture::Phi3 => {
            set("sliding_window", json!(window));
            set("partial_rotary_factor", json!(f64::from(rotary) / f64::from(head_dim.max(1))));
            let original = fields.u32(&key("rope.scaling.original_context_length"))?;
            set("original_max_position_embeddings", json!(original.unwrap_or(max_position)));
        }
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

fn refuse_unsupported(file: &GgufFile, key: &impl Fn(&str) -> String) -> Result<()> {
    let fields = file.fields();
    if let Some(name) =
        UNSUPPORTED.iter().map(|name| key(name)).find(|name| file.metadata().contains_key(name))
    {
        return Err(fields.refuse(&name, "no such key, which changes what the model computes"));
    }
    let softcap = key("final_logit_softcapping");
    if file.kind() != Architecture::Gemma3 && file.metadata().contains_key(&softcap) {
        return Err(fields.refuse(&softcap, "no such key, which changes what the model computes"));
    }
    for name in UNSUPPORTED_EXPERTS {
        if fields.u32(&key(name))?.is_some_and(|count| count > 0) {
            return Err(fields.refuse(&key(name), "0: experts of this kind are not supported"));
        }
    }
    let has_experts = matches!(file.kind(), Architecture::Mixtral | Architecture::Qwen3Moe);
    if !has_experts && fields.u32(&key("expert_count"))?.is_some_and(|experts| experts > 0) {
        return Err(fields.refuse(&key("expert_count"), "a model without experts"));
    }
    if fields.bool(&key("attention.causal"))? == Some(false) {
        return Err(fields.refuse(&key("attention.causal"), "a causal model"));
    }
    Ok(())
}

fn refuse_window(fields: &Fields<'_>, key: &impl Fn(&str) -> String, window: Option<u32>) -> Result<()> {
    match window {
        None => Ok(()),
        Some(_) => Err(fields.refuse(&key("attention.sliding_window"), "no window in this architecture")),
    }
}

/// What each layer attends to, by Hugging Face's names.
fn layer_types(
    file: &GgufFile,
    key: &impl Fn(&str) -> String,
    layers: u32,
    windowed: bool,
) -> Result<Vec<&'static str>> {
    let fields = file.fields();
    // Every layer has tensors, so a number that the file made up allocates nothing.
    if layers as usize > file.names().len() {
        return Err(fields.refuse(&key("block_count"), "at most as many layers as tensors"));
    }
    let pattern = key("attention.sliding_window_pattern");
    let name = |slides: bool| if slides { "sliding_attention" } else { "full_attention" };
    if let Some(MetadataValue::Array(listed)) = file.metadata().get(&pattern) {
        let slides: Option<Vec<bool>> = listed.iter().map(MetadataValue::as_bool).collect();
        return match slides.filter(|slides| slides.len() == layers as usize) {
            Some(slides) => Ok(slides.into_iter().map(|slides| name(windowed && slides)).collect()),
            None => Err(fields.refuse(&pattern, format!("{layers} truth values"))),
        };
    }
    let period = fields.u32(&pattern)?.unwrap_or(GEMMA3_PERIOD);
    if period == 0 {
        return Err(fields.refuse(&pattern, "a positive number of layers"));
    }
    Ok((1..=layers).map(|layer| name(windowed && !layer.is_multiple_of(period))).collect())
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
    let fields = file.fields();
    let from_metadata = scaling_in_metadata(&fields, file, key)?;
    let short = file.rope_factors_named(ROPE_FACTORS_SHORT)?;
    let long = file.rope_factors_named(ROPE_FACTORS_LONG)?;
    if short.is_some() || long.is_some() {
        return long_rope(file, key, head_dim, max_position, short.zip(long));
    }
    let Some(factors) = file.rope_factors()? else { return Ok(from_metadata) };
    if !from_metadata.is_null() {
        return Err(fields.refuse(&key("rope.scaling.type"), "no other scaling beside rope_freqs.weight"));
    }
    check_factors(file, "rope_freqs.weight", &factors, head_dim)?;
    Ok(rope_scaling(&factors, theta, max_position))
}

fn check_factors(file: &GgufFile, name: &str, factors: &[f32], rotary: u32) -> Result<()> {
    let usable = factors.iter().all(|factor| factor.is_finite() && *factor > 0.0);
    if factors.len() * 2 == rotary as usize && usable {
        return Ok(());
    }
    Err(Error::Config {
        path: file.path().to_path_buf(),
        field: name.into(),
        expected: format!("{} positive divisors", rotary / 2),
        found: format!("{}, not all of them positive and finite", factors.len()),
    })
}

/// Phi-3's scaling: one set of divisors within the original context, another beyond it, and a factor on the attention.
fn long_rope(
    file: &GgufFile,
    key: &impl Fn(&str) -> String,
    head_dim: u32,
    max_position: u32,
    factors: Option<(Vec<f32>, Vec<f32>)>,
) -> Result<Value> {
    let fields = file.fields();
    let Some((short, long)) = factors.filter(|_| file.kind() == Architecture::Phi3) else {
        return Err(Error::Config {
            path: file.path().to_path_buf(),
            field: ROPE_FACTORS_LONG.into(),
            expected: format!("{ROPE_FACTORS_SHORT} and {ROPE_FACTORS_LONG} together, in a phi3 model"),
            found: format!("one of them, or a {} model", file.architecture()),
        });
    };
    let rotary = fields.u32(&key("rope.dimension_count"))?.unwrap_or(head_dim);
    check_factors(file, ROPE_FACTORS_SHORT, &short, rotary)?;
    check_factors(file, ROPE_FACTORS_LONG, &long, rotary)?;
    let original = fields.require_u32(&key("rope.scaling.original_context_length"))?;
    let mut scaling = json!({ "rope_type": "longrope", "short_factor": short, "long_factor": long });
    // The file has this in single precision; where it is what Hugging Face's class computes by itself, that is more exact.
    if let Some(found) = fields.f64(&key("rope.scaling.attn_factor"))?
        && (found - long_rope_attention_factor(max_position, original)).abs() > 1e-6
    {
        scaling["attention_factor"] = json!(found);
    }
    Ok(scaling)
}

/// By what LongRoPE multiplies queries and keys unless told otherwise: `sqrt(1 + ln(max / original) / ln(original))`.
pub(super) fn long_rope_attention_factor(max_position: u32, original: u32) -> f64 {
    let (max, original) = (f64::from(max_position), f64::from(original));
    if max <= original { 1.0 } else { (1.0 + (max / original).ln() / original.ln()).sqrt() }
}

fn scaling_in_metadata(fields: &Fields<'_>, file: &GgufFile, key: &impl Fn(&str) -> String) -> Result<Value> {
    const KNOWN: [&str; 4] = ["type", "factor", "original_context_length", "finetuned"];
    const YARN: [&str; 2] = ["yarn_beta_fast", "yarn_beta_slow"];
    let prefix = key("rope.scaling.");
    let kind = fields.str(&key("rope.scaling.type"))?;
    let known = |name: &str| {
        KNOWN.contains(&name)
            || kind == Some("yarn") && YARN.contains(&name)
            || file.kind() == Architecture::Phi3 && name == "attn_factor"
    };
    let unknown =
        file.metadata().keys().find(|name| name.strip_prefix(&prefix).is_some_and(|name| !known(name)));
    if let Some(name) = unknown {
        return Err(fields.refuse(name, format!("of RoPE scaling only {}", KNOWN.join(", "))));
    }
    // Files from before `rope.scaling` have only this factor.
    let legacy = fields.f64(&key("rope.scale_linear"))?.filter(|factor| *factor != 1.0);
    let kind = kind.or(legacy.map(|_| "linear"));
    let factor = || match legacy {
        Some(factor) => Ok(factor),
        None => fields.require_f64(&key("rope.scaling.factor")),
    };
    match kind {
        None | Some("none") => Ok(Value::Null),
        Some("linear") => Ok(json!({ "rope_type": "linear", "factor": factor()? })),
        Some("yarn") => {
            let mut scaling = json!({
                "rope_type": "yarn",
                "factor": factor()?,
                "original_max_position_embeddings": fields.require_u32(&key("rope.scaling.original_context_length"))?,
            });
            for (ours, theirs) in YARN.into_iter().zip(["beta_fast", "beta_slow"]) {
                if let Some(value) = fields.f64(&key(&format!("rope.scaling.{ours}")))? {
                    scaling[theirs] = json!(value);
                }
            }
            Ok(scaling)
        }
        // Phi-3's is in its tensors.
        Some("longrope") if file.kind() == Architecture::Phi3 => Ok(Value::Null),
        Some(_) => Err(fields.refuse(&key("rope.scaling.type"), "none, linear or yarn")),
    }
}
