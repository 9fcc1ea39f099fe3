//! A Hugging Face configuration as llama.cpp's metadata, the inverse of `config`.

use std::path::Path;

use serde_json::Value;

use super::architecture::Architecture;
use super::config::{GEMMA3_PERIOD, long_rope_attention_factor};
use super::names::{ROPE_FACTORS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT};
use super::rope_factors::Llama3;
use super::{Metadata, MetadataValue};
use crate::{Error, Result};

/// What the metadata of a model's own are, and the tensors that llama.cpp keeps RoPE's divisors in.
pub(super) struct Hyperparameters {
    pub(super) architecture: Architecture,
    pub(super) metadata: Metadata,
    pub(super) rope_factors: Vec<(&'static str, Vec<f32>)>,
    pub(super) layers: u32,
    pub(super) heads: u32,
    pub(super) key_heads: u32,
    /// The number of experts of a layer, 0 without.
    pub(super) experts: u32,
    pub(super) tied: bool,
}

/// Reads `config`; `path` is for error messages.
pub(super) fn read(path: &Path, config: &Value) -> Result<Hyperparameters> {
    let config = Config { path, value: config };
    let architecture = architecture(&config)?;
    let arch = architecture.gguf_name();
    let mut metadata = Metadata::new();
    let mut set = |name: &str, value: MetadataValue| metadata.insert(format!("{arch}.{name}"), value);
    let int = MetadataValue::U32;
    let float = |value: f64| MetadataValue::F32(value as f32);

    let hidden = config.require_u32("hidden_size")?;
    let heads = config.require_u32("num_attention_heads")?;
    let key_heads = config.u32("num_key_value_heads")?.unwrap_or(heads);
    let head_dim = match config.u32("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(config.wrong("num_attention_heads", format!("a divisor of {hidden}"))),
    };
    let layers = config.require_u32("num_hidden_layers")?;
    let max_position = config.require_u32("max_position_embeddings")?;
    set("block_count", int(layers));
    set("context_length", int(max_position));
    set("embedding_length", int(hidden));
    set("feed_forward_length", int(config.require_u32("intermediate_size")?));
    set("attention.head_count", int(heads));
    set("attention.head_count_kv", int(key_heads));
    set("attention.key_length", int(head_dim));
    set("attention.value_length", int(head_dim));
    set("attention.layer_norm_rms_epsilon", float(config.require_f64("rms_norm_eps")?));
    set("vocab_size", int(config.require_u32("vocab_size")?));

    let (act_field, act) = match architecture {
        Architecture::Gemma3 => ("hidden_activation", "gelu_pytorch_tanh"),
        _ => ("hidden_act", "silu"),
    };
    if config.str(act_field)?.is_some_and(|found| found != act) {
        return Err(config.wrong(act_field, format!("`{act}`, which llama.cpp computes for {arch}")));
    }

    let window = config.u32("sliding_window")?.filter(|window| *window > 0);
    let mut experts = 0;
    let mut rotary = head_dim;
    match architecture {
        Architecture::Llama => {
            set("rope.dimension_count", int(head_dim));
        }
        Architecture::Mistral | Architecture::Mixtral => {
            set("rope.dimension_count", int(head_dim));
            if let Some(window) = window {
                tracing::warn!(
                    path = %path.display(),
                    window,
                    "the sliding window is written down, but llama.cpp attends to everything in this architecture: beyond that many tokens its results differ"
                );
                set("attention.sliding_window", int(window));
            }
        }
        Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Qwen3Moe => {
            config.only("use_sliding_window", &[Value::Bool(false)])?;
        }
        Architecture::Gemma3 => {
            config.only("use_bidirectional_attention", &[Value::Bool(false)])?;
            config.only("attn_logit_softcapping", &[])?;
            let scalar = if layers == 62 { hidden / heads.max(1) } else { head_dim };
            let found = config.f64("query_pre_attn_scalar")?.unwrap_or(256.0);
            if found != f64::from(scalar) {
                return Err(config.wrong(
                    "query_pre_attn_scalar",
                    format!("{scalar}, which llama.cpp computes for a model of {layers} layers"),
                ));
            }
            if let Some(cap) = config.f64("final_logit_softcapping")? {
                set("final_logit_softcapping", float(cap));
            }
            if let Some(window) = window
                && let Some(period) = gemma3_period(&config, layers)?
            {
                set("attention.sliding_window", int(window));
                if period != GEMMA3_PERIOD {
                    set("attention.sliding_window_pattern", int(period));
                }
            }
        }
        Architecture::Phi3 => {
            let partial = config
                .rope()
                .and_then(|rope| rope.get("partial_rotary_factor"))
                .or_else(|| config.get("partial_rotary_factor"))
                .and_then(Value::as_f64)
                .unwrap_or(1.0);
            rotary = (f64::from(head_dim) * partial) as u32;
            set("rope.dimension_count", int(rotary));
            set("attention.sliding_window", int(window.unwrap_or(0)));
            let original = config.u32("original_max_position_embeddings")?.unwrap_or(max_position);
            set("rope.scaling.original_context_length", int(original));
        }
    }
    match architecture {
        Architecture::Mixtral => {
            experts = config.require_u32("num_local_experts")?;
            set("expert_count", int(experts));
            set("expert_used_count", int(config.require_u32("num_experts_per_tok")?));
        }
        Architecture::Qwen3Moe => {
            experts = match config.u32("num_experts")? {
                Some(experts) => experts,
                None => config.require_u32("num_local_experts")?,
            };
            set("expert_count", int(experts));
            set("expert_used_count", int(config.require_u32("num_experts_per_tok")?));
            set("expert_feed_forward_length", int(config.require_u32("moe_intermediate_size")?));
            config.only("decoder_sparse_step", &[1.into()])?;
            config.only("mlp_only_layers", &[Value::Array(Vec::new())])?;
            if config.get("norm_topk_prob") != Some(&Value::Bool(true)) {
                let expected = "true: llama.cpp always normalises the weights of the chosen experts";
                return Err(config.wrong("norm_topk_prob", expected));
            }
        }
        _ => {}
    }

    let mut rope_factors = Vec::new();
    let rope = Rope::read(&config, architecture)?;
    set("rope.freq_base", float(rope.theta));
    if let Some(local) = rope.local_theta {
        set("rope.freq_base_swa", float(local));
    }
    let scaling = Config { path, value: rope.scaling };
    match rope.kind {
        "default" => {}
        "linear" => {
            set("rope.scaling.type", MetadataValue::String("linear".into()));
            set("rope.scaling.factor", float(scaling.require_f64("factor")?));
        }
        "yarn" => {
            for field in ["attention_factor", "mscale", "mscale_all_dim"] {
                scaling.only(field, &[])?;
            }
            scaling.only("truncate", &[Value::Bool(true)])?;
            let original = scaling.u32("original_max_position_embeddings")?.unwrap_or(max_position);
            set("rope.scaling.type", MetadataValue::String("yarn".into()));
            set("rope.scaling.factor", float(scaling.require_f64("factor")?));
            set("rope.scaling.original_context_length", int(original));
            for (name, field) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                if let Some(value) = scaling.f64(field)? {
                    set(&format!("rope.scaling.{name}"), float(value));
                }
            }
        }
        "llama3" if architecture.interleaves() => {
            let llama3 = Llama3 {
                factor: scaling.require_f64("factor")?,
                low: scaling.require_f64("low_freq_factor")?,
                high: scaling.require_f64("high_freq_factor")?,
                original: scaling.require_f64("original_max_position_embeddings")?,
            };
            rope_factors.push((ROPE_FACTORS, llama3.divisors(rope.theta, head_dim)));
        }
        "longrope" | "su" if architecture == Architecture::Phi3 => {
            let (short, long) =
                (scaling.factors("short_factor", rotary)?, scaling.factors("long_factor", rotary)?);
            rope_factors.push((ROPE_FACTORS_LONG, long));
            rope_factors.push((ROPE_FACTORS_SHORT, short));
            let original = config.u32("original_max_position_embeddings")?.unwrap_or(max_position);
            let factor = scaling
                .f64("attention_factor")?
                .unwrap_or_else(|| long_rope_attention_factor(max_position, original));
            set("rope.scaling.attn_factor", float(factor));
        }
        // What `GgufFile::config` makes of divisors that Llama 3's formula does not give.
        "longrope" if architecture.interleaves() => {
            let (short, long) =
                (scaling.factors("short_factor", rotary)?, scaling.factors("long_factor", rotary)?);
            if short != long || scaling.f64("attention_factor")? != Some(1.0) {
                let expected = "one set of divisors for short and long texts, and an attention factor of 1";
                return Err(scaling.wrong("long_factor", expected));
            }
            rope_factors.push((ROPE_FACTORS, long));
        }
        _ => {
            let expected = format!("a RoPE scaling that llama.cpp has for {arch}");
            return Err(scaling.wrong("rope_type", expected));
        }
    }
    let default_tied = architecture == Architecture::Gemma3;
    let tied = config.bool("tie_word_embeddings")?.unwrap_or(default_tied);
    Ok(Hyperparameters { architecture, metadata, rope_factors, layers, heads, key_heads, experts, tied })
}

fn architecture(config: &Config<'_>) -> Result<Architecture> {
    let class = config.get("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str);
    let kind = config.get("model_type").and_then(Value::as_str);
    let known = Architecture::ALL;
    let found = match class {
        Some(class) => known.into_iter().find(|known| known.class() == class),
        None => known.into_iter().find(|known| kind == Some(known.model_type())),
    };
    found.ok_or_else(|| Error::UnsupportedArchitecture {
        path: config.path.to_path_buf(),
        found: class.or(kind).unwrap_or("none").to_owned(),
        supported: known.map(|known| known.class().to_owned()).to_vec(),
    })
}

/// How many layers a group of Gemma 3 has, of which the last attends to everything; `None` if all layers do.
fn gemma3_period(config: &Config<'_>, layers: u32) -> Result<Option<u32>> {
    let Some(types) = config.get("layer_types").filter(|types| !types.is_null()) else {
        let pattern = config.u32("sliding_window_pattern")?.or(config.u32("_sliding_window_pattern")?);
        return Ok(Some(pattern.unwrap_or(GEMMA3_PERIOD)));
    };
    let slides: Option<Vec<bool>> = types.as_array().and_then(|types| {
        types
            .iter()
            .map(|name| match name.as_str() {
                Some("sliding_attention") => Some(true),
                Some("full_attention") => Some(false),
                _ => None,
            })
            .collect()
    });
    let Some(slides) = slides.filter(|slides| slides.len() == layers as usize) else {
        return Err(config.wrong("layer_types", "`sliding_attention` or `full_attention` for each layer"));
    };
    if slides.iter().all(|slides| !slides) {
        return Ok(None);
    }
    let first_full = slides.iter().position(|slides| !slides);
    let period = match first_full {
        Some(at) => at as u32 + 1,
        // Fewer layers than a group has.
        None => GEMMA3_PERIOD.max(layers + 1),
    };
    let regular = (1..=layers).zip(&slides).all(|(layer, slides)| *slides != layer.is_multiple_of(period));
    if regular {
        Ok(Some(period))
    } else {
        Err(config.wrong("layer_types", "groups of one size that end with full attention"))
    }
}

/// RoPE's base and scaling, out of either of the two forms that Hugging Face has written them in.
struct Rope<'a> {
    theta: f64,
    /// The base in Gemma's layers with a window.
    local_theta: Option<f64>,
    kind: &'a str,
    scaling: &'a Value,
}

impl<'a> Rope<'a> {
    fn read(config: &Config<'a>, architecture: Architecture) -> Result<Self> {
        let (default_theta, gemma) = match architecture {
            Architecture::Gemma3 => (1_000_000.0, true),
            _ => (10_000.0, false),
        };
        let rope = config.rope();
        let full = rope.map(|rope| rope.get("full_attention").unwrap_or(rope));
        let number = |value: Option<&Value>, field: &str| {
            value.and_then(|value| value.get(field)).and_then(Value::as_f64)
        };
        let theta = number(full, "rope_theta").or(config.f64("rope_theta")?).unwrap_or(default_theta);
        let local_theta = if gemma {
            let sliding = rope.and_then(|rope| rope.get("sliding_attention"));
            let kind = sliding.and_then(|sliding| sliding.get("rope_type")).and_then(Value::as_str);
            if kind.is_some_and(|kind| kind != "default") {
                return Err(config.wrong("rope_parameters", "no scaling in the layers with a window"));
            }
            Some(number(sliding, "rope_theta").or(config.f64("rope_local_base_freq")?).unwrap_or(10_000.0))
        } else {
            None
        };
        let kind = full.and_then(|rope| rope.get("rope_type").or_else(|| rope.get("type")));
        let kind = match kind {
            None | Some(Value::Null) => "default",
            Some(kind) => kind.as_str().unwrap_or("not a text"),
        };
        Ok(Self { theta, local_theta, kind, scaling: full.unwrap_or(&Value::Null) })
    }
}

/// Typed access to a JSON object; its errors name the file and the field. `null` counts as absent.
#[derive(Clone, Copy)]
struct Config<'a> {
    path: &'a Path,
    value: &'a Value,
}

impl<'a> Config<'a> {
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.value.get(field)
    }

    fn rope(&self) -> Option<&'a Value> {
        let set = |field| self.get(field).filter(|value| value.is_object());
        set("rope_parameters").or_else(|| set("rope_scaling"))
    }

    fn u32(&self, field: &str) -> Result<Option<u32>> {
        self.typed(field, "an integer from 0 to 4294967295", |value| {
            value
                .as_u64()
                .or_else(|| {
                    value
                        .as_f64()
                        .filter(|value| value.fract() == 0.0 && *value >= 0.0)
                        .map(|value| value as u64)
                })
                .and_then(|value| u32::try_from(value).ok())
        })
    }

    fn f64(&self, field: &str) -> Result<Option<f64>> {
        self.typed(field, "a number", Value::as_f64)
    }

    fn bool(&self, field: &str) -> Result<Option<bool>> {
        self.typed(field, "true or false", Value::as_bool)
    }

    fn str(&self, field: &str) -> Result<Option<&'a str>> {
        self.typed(field, "a text", Value::as_str)
    }

    fn require_u32(&self, field: &str) -> Result<u32> {
        self.u32(field)?.ok_or_else(|| self.wrong(field, "an integer"))
    }

    fn require_f64(&self, field: &str) -> Result<f64> {
        self.f64(field)?.ok_or_else(|| self.wrong(field, "a number"))
    }

    /// Divisors of RoPE's frequencies for `rotary` values of a head.
    fn factors(&self, field: &str, rotary: u32) -> Result<Vec<f32>> {
        let expected = format!("{} positive numbers", rotary / 2);
        let values = self.get(field).and_then(Value::as_array).ok_or_else(|| self.wrong(field, &expected))?;
        let factors: Option<Vec<f32>> =
            values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect();
        factors
            .filter(|factors| factors.len() * 2 == rotary as usize)
            .filter(|factors| factors.iter().all(|factor| factor.is_finite() && *factor > 0.0))
            .ok_or_else(|| self.wrong(field, &expected))
    }

    /// Refuses every value but the ones given and none at all: llama.cpp has no place for another.
    fn only(&self, field: &str, accepted: &[Value]) -> Result<()> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if accepted.contains(value) => Ok(()),
            Some(_) => {
                let accepted: Vec<String> = accepted.iter().map(Value::to_string).collect();
                let expected = match &accepted[..] {
                    [] => "no such field".to_owned(),
                    values => values.join(" or "),
                };
                Err(self.wrong(field, format!("{expected}, because llama.cpp does nothing else")))
            }
        }
    }

    fn typed<T>(
        &self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(field, expected)),
        }
    }

    fn wrong(&self, field: &str, expected: impl Into<String>) -> Error {
        let found = self.get(field).map_or_else(|| "nothing".to_owned(), Value::to_string);
        Error::Config {
            path: self.path.to_path_buf(),
            field: field.to_owned(),
            expected: expected.into(),
            found: found.chars().take(80).collect(),
        }
    }
}
