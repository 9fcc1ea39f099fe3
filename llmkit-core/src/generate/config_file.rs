//! [`GenerationConfig`] as Hugging Face's `generation_config.json`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value, json};

use super::{Decoding, GenerationConfig, Sampling};
use crate::{Error, Result};

/// The longest `generation_config.json` that is read, in bytes. Real ones have a few hundred.
const MAX_BYTES: u64 = 1 << 20;

/// What transformers takes for `top_k` when it samples and the file says nothing.
const DEFAULT_TOP_K: usize = 50;

/// Fields that change what transformers generates and that have no counterpart here, with the value at which they change nothing.
/// Null changes nothing in any of them.
const UNSUPPORTED: [(&str, Neutral); 20] = [
    ("bad_words_ids", Neutral::Empty),
    ("begin_suppress_tokens", Neutral::Empty),
    ("constraints", Neutral::Empty),
    ("dola_layers", Neutral::Empty),
    ("encoder_no_repeat_ngram_size", Neutral::Number(0.0)),
    ("encoder_repetition_penalty", Neutral::Number(1.0)),
    ("exponential_decay_length_penalty", Neutral::Empty),
    ("force_words_ids", Neutral::Empty),
    ("forced_bos_token_id", Neutral::Empty),
    ("forced_eos_token_id", Neutral::Empty),
    ("guidance_scale", Neutral::Number(1.0)),
    ("max_time", Neutral::Empty),
    ("min_length", Neutral::Number(0.0)),
    ("no_repeat_ngram_size", Neutral::Number(0.0)),
    ("num_beams", Neutral::Number(1.0)),
    ("num_return_sequences", Neutral::Number(1.0)),
    ("penalty_alpha", Neutral::Number(0.0)),
    ("sequence_bias", Neutral::Empty),
    ("suppress_tokens", Neutral::Empty),
    ("watermarking_config", Neutral::Empty),
];

/// The same for fields that act on sampling only.
const UNSUPPORTED_WHEN_SAMPLING: [(&str, Neutral); 4] = [
    ("epsilon_cutoff", Neutral::Number(0.0)),
    ("eta_cutoff", Neutral::Number(0.0)),
    ("top_h", Neutral::Empty),
    ("typical_p", Neutral::Number(1.0)),
];

#[derive(Debug, Clone, Copy)]
enum Neutral {
    Number(f64),
    Empty,
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Self::Number(number), value) => value.as_f64() == Some(number),
            (Self::Empty, Value::Array(items)) => items.is_empty(),
            (Self::Empty, Value::Object(fields)) => fields.is_empty(),
            (Self::Empty, _) => false,
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Number(number) => format!("{number}, as nothing else is supported"),
            Self::Empty => "nothing, as this is not supported".to_owned(),
        }
    }
}

/// A field that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("field `{field}`: expected {expected}, found {found}")]
struct FieldError {
    field: &'static str,
    expected: String,
    found: String,
}

impl GenerationConfig {
    /// Reads a Hugging Face `generation_config.json`.
    ///
    /// As in transformers, decoding is greedy unless `do_sample` is true, and sampling takes the 50 likeliest tokens unless `top_k` says
    /// otherwise (0 for all). Fields without a meaning here are kept in [`extra`](Self::extra); `max_length` is one of them, as
    /// [`max_new_tokens`](Self::max_new_tokens) always takes its place. `seed` is our own field, which transformers passes over.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`]; [`Error::Config`] when a field is of the wrong type, out of range, or asks for something that would
    /// change the text and is not supported, such as beam search.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(Error::io("read", path))?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let refuse = |field: &str, expected: String, found: String| Error::Config {
            path: path.to_path_buf(),
            field: field.to_owned(),
            expected,
            found,
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refuse("(the file)", format!("at most {MAX_BYTES} bytes"), "more".to_owned()));
        }
        let fields = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Json { path: path.to_path_buf(), source })?;
        let config = from_fields(fields).map_err(|error| refuse(error.field, error.expected, error.found))?;
        config.validate().map_err(|error| match error {
            Error::Generation { setting, expected, found } => refuse(setting, expected.to_owned(), found),
            other => other,
        })?;
        Ok(config)
    }
}

impl Serialize for GenerationConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_fields(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for GenerationConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_fields(Map::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn from_fields(mut fields: Map<String, Value>) -> Result<GenerationConfig, FieldError> {
    let mut config = GenerationConfig::new();
    let sampled = take(&mut fields, "do_sample", "true or false", Value::as_bool)?.unwrap_or(false);
    refuse_unsupported(&fields, &UNSUPPORTED)?;
    if sampled {
        refuse_unsupported(&fields, &UNSUPPORTED_WHEN_SAMPLING)?;
        let top_k = take(&mut fields, "top_k", "a whole number", as_usize)?.unwrap_or(DEFAULT_TOP_K);
        config.decoding = Decoding::Sample(Sampling {
            temperature: take(&mut fields, "temperature", "a number", as_f32)?.unwrap_or(1.0),
            top_k: (top_k > 0).then_some(top_k),
            top_p: take(&mut fields, "top_p", "a number", as_f32)?,
            min_p: take(&mut fields, "min_p", "a number", as_f32)?,
        });
    }
    if let Some(tokens) = take(&mut fields, "max_new_tokens", "a whole number", as_usize)? {
        config.max_new_tokens = tokens;
    }
    if let Some(tokens) = take(&mut fields, "min_new_tokens", "a whole number", as_usize)? {
        config.min_new_tokens = tokens;
    }
    if let Some(penalty) = take(&mut fields, "repetition_penalty", "a number", as_f32)? {
        config.repetition_penalty = penalty;
    }
    if let Some(stop) = take(&mut fields, "stop_strings", "a text or a list of texts", |value| {
        one_or_more(value, |item| item.as_str().map(str::to_owned))
    })? {
        config.stop = stop;
    }
    if let Some(ids) = take(&mut fields, "eos_token_id", "a token id or a list of them", |value| {
        one_or_more(value, |item| item.as_u64().and_then(|id| u32::try_from(id).ok()))
    })? {
        config.eos_token_ids = ids;
    }
    if let Some(seed) = take(&mut fields, "seed", "a whole number", Value::as_u64)? {
        config.seed = seed;
    }
    config.extra = fields;
    Ok(config)
}

/// Takes a field out of `fields`; absent and null are the same.
fn take<T>(
    fields: &mut Map<String, Value>,
    field: &'static str,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, FieldError> {
    // Not `remove`, which would move the last field into the gap.
    match fields.shift_remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(FieldError { field, expected: expected.to_owned(), found: value.to_string() }),
        },
    }
}

fn as_usize(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

fn as_f32(value: &Value) -> Option<f32> {
    value.as_f64().map(|number| number as f32)
}

fn one_or_more<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match value {
        Value::Array(items) => items.iter().map(read).collect(),
        item => read(item).map(|item| vec![item]),
    }
}

fn refuse_unsupported(
    fields: &Map<String, Value>,
    table: &[(&'static str, Neutral)],
) -> Result<(), FieldError> {
    for &(field, neutral) in table {
        if let Some(value) = fields.get(field)
            && !neutral.is(value)
        {
            return Err(FieldError { field, expected: neutral.describe(), found: value.to_string() });
        }
    }
    Ok(())
}

fn to_fields(config: &GenerationConfig) -> Map<String, Value> {
    let mut fields = config.extra.clone();
    let mut set = |field: &str, value: Value| fields.insert(field.to_owned(), value);
    set("max_new_tokens", json!(config.max_new_tokens));
    if config.min_new_tokens > 0 {
        set("min_new_tokens", json!(config.min_new_tokens));
    }
    match &config.decoding {
        Decoding::Greedy => {
            set("do_sample", json!(false));
        }
        Decoding::Sample(sampling) => {
            set("do_sample", json!(true));
            set("temperature", number(sampling.temperature));
            set("top_k", json!(sampling.top_k.unwrap_or(0)));
            // Null where unset, lest one that a greedy file carried along takes effect.
            set("top_p", sampling.top_p.map_or(Value::Null, number));
            set("min_p", sampling.min_p.map_or(Value::Null, number));
        }
    }
    if config.repetition_penalty != 1.0 {
        set("repetition_penalty", number(config.repetition_penalty));
    }
    if !config.stop.is_empty() {
        set("stop_strings", json!(config.stop));
    }
    match config.eos_token_ids.as_slice() {
        [] => {}
        [id] => {
            set("eos_token_id", json!(id));
        }
        ids => {
            set("eos_token_id", json!(ids));
        }
    }
    if config.seed != 0 {
        set("seed", json!(config.seed));
    }
    fields
}

/// The number as people write it: 0.7, not the f64 nearest to the f32 nearest to it.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<GenerationConfig, serde_json::Error> {
        serde_json::from_value(json)
    }

    #[test]
    fn unknown_fields_come_back_as_they_were() {
        let file = json!({
            "bos_token_id": 1,
            "do_sample": false,
            "temperature": 0.6,
            "something_new": {"a": [1, 2]},
            "max_new_tokens": 40,
            "transformers_version": "5.0.0"
        });
        let config = read(file.clone()).unwrap();
        assert_eq!(config.decoding, Decoding::Greedy);
        assert_eq!(config.max_new_tokens, 40);
        assert_eq!(serde_json::to_value(&config).unwrap(), file);
        let order: Vec<&String> = config.extra.keys().collect();
        assert_eq!(order, ["bos_token_id", "temperature", "something_new", "transformers_version"]);
    }

    #[test]
    fn every_setting_survives_the_file() {
        let config = GenerationConfig::new()
            .with_sampling(Sampling::new(0.7).with_top_p(0.9).with_min_p(0.05))
            .with_max_new_tokens(17)
            .with_min_new_tokens(3)
            .with_repetition_penalty(1.1)
            .with_stop(["\n\n", "END"])
            .with_eos_token_ids([2, 5])
            .with_seed(u64::MAX);
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""temperature":0.7,"top_k":0,"top_p":0.9"#), "{text}");
        assert_eq!(serde_json::from_str::<GenerationConfig>(&text).unwrap(), config);
        let top_k = config.with_sampling(Sampling::default().with_top_k(50));
        assert_eq!(read(serde_json::to_value(&top_k).unwrap()).unwrap().decoding, top_k.decoding);
        let greedy =
            read(json!({"do_sample": false, "top_p": 0.5, "min_p": 0.5, "temperature": 0.5})).unwrap();
        let sampled = greedy.with_sampling(Sampling::new(0.8));
        assert_eq!(read(serde_json::to_value(&sampled).unwrap()).unwrap().decoding, sampled.decoding);
        let greedy = GenerationConfig::new();
        assert_eq!(read(serde_json::to_value(&greedy).unwrap()).unwrap(), greedy);
    }

    #[test]
    fn what_would_change_the_text_is_refused() {
        for (field, value) in [
            ("num_beams", json!(4)),
            ("no_repeat_ngram_size", json!(3)),
            ("suppress_tokens", json!([1])),
            ("forced_eos_token_id", json!(0)),
            ("sequence_bias", json!([[[1], 2.0]])),
        ] {
            let error = read(json!({field: value})).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("supported"), "{error}");
        }
        assert!(read(json!({"typical_p": 0.9, "do_sample": true})).is_err());
        let neutral = json!({"num_beams": 1, "no_repeat_ngram_size": 0, "suppress_tokens": [], "typical_p": 0.9, "max_time": null});
        assert_eq!(read(neutral).unwrap().extra.len(), 5);
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("generation_config.json");
        for (text, wrong) in [
            (r#"{"eos_token_id": [1, -1]}"#, "eos_token_id"),
            (r#"{"max_new_tokens": 1.5}"#, "max_new_tokens"),
            (r#"{"do_sample": "yes"}"#, "do_sample"),
            (r#"{"do_sample": true, "temperature": 0.0}"#, "temperature"),
            (r#"{"do_sample": true, "top_p": "0.9"}"#, "top_p"),
            (r#"{"stop_strings": ["a", 1]}"#, "stop_strings"),
        ] {
            std::fs::write(&path, text).unwrap();
            match GenerationConfig::from_file(&path) {
                Err(Error::Config { field, .. }) => assert_eq!(field, wrong),
                other => panic!("{text}: {other:?}"),
            }
        }
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(GenerationConfig::from_file(&path), Err(Error::Json { .. })));
        std::fs::write(&path, " ".repeat((MAX_BYTES + 1) as usize)).unwrap();
        assert!(matches!(GenerationConfig::from_file(&path), Err(Error::Config { .. })));
        let absent = GenerationConfig::from_file(folder.path().join("none.json"));
        assert!(matches!(absent, Err(Error::Io { action: "read", .. })));
    }
}
