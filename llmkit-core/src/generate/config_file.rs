//! [`GenerationConfig`] as Hugging Face's `generation_config.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value, json};

use super::{BeamSearch, Decoding, Dry, EarlyStopping, GenerationConfig, Mirostat, Sampling};
use crate::{Error, Result};

/// The longest `generation_config.json` that is read, in bytes. Real ones have a few hundred.
const MAX_BYTES: u64 = 1 << 20;

/// What transformers takes for `top_k` when it samples and the file says nothing.
const DEFAULT_TOP_K: usize = 50;

/// Fields that change what transformers generates and that have no counterpart here, with the value at which they change nothing.
/// Null changes nothing in any of them.
const UNSUPPORTED: [(&str, Neutral); 13] = [
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
    ("penalty_alpha", Neutral::Number(0.0)),
    ("watermarking_config", Neutral::Empty),
];

/// The same for fields that act on beam search only.
const UNSUPPORTED_WITH_BEAMS: [(&str, Neutral); 3] = [
    ("diversity_penalty", Neutral::Number(0.0)),
    ("num_beam_groups", Neutral::Number(1.0)),
    ("renormalize_logits", Neutral::False),
];

#[derive(Debug, Clone, Copy)]
enum Neutral {
    False,
    Number(f64),
    Empty,
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) | (Self::False, Value::Bool(false)) => true,
            (Self::Number(number), value) => value.as_f64() == Some(number),
            (Self::Empty, Value::Array(items)) => items.is_empty(),
            (Self::Empty, Value::Object(fields)) => fields.is_empty(),
            (Self::Empty | Self::False, _) => false,
        }
    }

    fn describe(self) -> String {
        match self {
            Self::False => "false, as nothing else is supported".to_owned(),
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
    /// otherwise (0 for all). Fields that only llmkit has, and transformers passes over, are `seed`, `logprobs`, `frequency_penalty`,
    /// `presence_penalty`, `top_n_sigma`, `mirostat_tau`, `mirostat_eta` and the `dry_*` of llama.cpp's server, whose
    /// `dry_sequence_breakers` are lists of token ids here. Fields without a meaning here are kept in [`extra`](Self::extra); `max_length` is one of them, as
    /// [`max_new_tokens`](Self::max_new_tokens) always takes its place.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`]; [`Error::Config`] when a field is of the wrong type, out of range, or asks for something that would
    /// change the text and is not supported, such as guidance.
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
        config.decoding = Decoding::Sample(take_sampling(&mut fields)?);
    }
    take_penalties(&mut fields, &mut config)?;
    take_bars(&mut fields, &mut config)?;
    config.beams = take_beams(&mut fields)?;
    if let Some(sequences) = take(&mut fields, "num_return_sequences", "a whole number", as_usize)? {
        config.num_return_sequences = sequences;
    }
    config.logprobs = take(&mut fields, "logprobs", "a whole number", as_usize)?;
    if let Some(tokens) = take(&mut fields, "max_new_tokens", "a whole number", as_usize)? {
        config.max_new_tokens = tokens;
    }
    if let Some(tokens) = take(&mut fields, "min_new_tokens", "a whole number", as_usize)? {
        config.min_new_tokens = tokens;
    }
    if let Some(stop) = take(&mut fields, "stop_strings", "a text or a list of texts", |value| {
        one_or_more(value, |item| item.as_str().map(str::to_owned))
    })? {
        config.stop = stop;
    }
    if let Some(ids) =
        take(&mut fields, "eos_token_id", "a token id or a list of them", |value| one_or_more(value, as_id))?
    {
        config.eos_token_ids = ids;
    }
    if let Some(seed) = take(&mut fields, "seed", "a whole number", Value::as_u64)? {
        config.seed = seed;
    }
    config.extra = fields;
    Ok(config)
}

fn take_sampling(fields: &mut Map<String, Value>) -> Result<Sampling, FieldError> {
    let tau = take(fields, "mirostat_tau", "a number", as_f32)?;
    let eta = take(fields, "mirostat_eta", "a number", as_f32)?;
    let mirostat = (tau.is_some() || eta.is_some()).then(|| {
        let default = Mirostat::default();
        Mirostat::new(tau.unwrap_or(default.tau), eta.unwrap_or(default.eta))
    });
    // Mirostat takes the place of all cuts, and so of the one that nobody asked for.
    let default_top_k = if mirostat.is_some() { 0 } else { DEFAULT_TOP_K };
    let top_k = take(fields, "top_k", "a whole number", as_usize)?.unwrap_or(default_top_k);
    // 0 turns a cutoff off.
    let cutoff = |number: Option<f32>| number.filter(|number| *number != 0.0);
    Ok(Sampling {
        temperature: take(fields, "temperature", "a number", as_f32)?.unwrap_or(1.0),
        top_k: (top_k > 0).then_some(top_k),
        top_p: take(fields, "top_p", "a number", as_f32)?,
        min_p: take(fields, "min_p", "a number", as_f32)?,
        typical_p: take(fields, "typical_p", "a number", as_f32)?.filter(|mass| *mass != 1.0),
        epsilon_cutoff: cutoff(take(fields, "epsilon_cutoff", "a number", as_f32)?),
        eta_cutoff: cutoff(take(fields, "eta_cutoff", "a number", as_f32)?),
        top_h: take(fields, "top_h", "a number", as_f32)?,
        top_n_sigma: take(fields, "top_n_sigma", "a number", as_f32)?,
        mirostat,
    })
}

fn take_penalties(fields: &mut Map<String, Value>, config: &mut GenerationConfig) -> Result<(), FieldError> {
    if let Some(penalty) = take(fields, "repetition_penalty", "a number", as_f32)? {
        config.repetition_penalty = penalty;
    }
    if let Some(penalty) = take(fields, "frequency_penalty", "a number", as_f32)? {
        config.frequency_penalty = penalty;
    }
    if let Some(penalty) = take(fields, "presence_penalty", "a number", as_f32)? {
        config.presence_penalty = penalty;
    }
    if let Some(multiplier) =
        take(fields, "dry_multiplier", "a number", as_f32)?.filter(|number| *number != 0.0)
    {
        let mut dry = Dry::new(multiplier);
        if let Some(base) = take(fields, "dry_base", "a number", as_f32)? {
            dry.base = base;
        }
        if let Some(length) = take(fields, "dry_allowed_length", "a whole number", as_usize)? {
            dry.allowed_length = length;
        }
        // -1 is llama.cpp's word for all.
        dry.last_n =
            take(fields, "dry_penalty_last_n", "a whole number, or -1", |value| match value.as_i64() {
                Some(-1) => Some(None),
                _ => as_usize(value).map(Some),
            })?
            .flatten();
        if let Some(breakers) = take(fields, "dry_sequence_breakers", "lists of token ids", as_sequences)? {
            dry.breakers = breakers;
        }
        config.dry = Some(dry);
    }
    if let Some(biases) = take(fields, "sequence_bias", "pairs of token ids and a number", as_biases)? {
        config.sequence_bias = biases;
    }
    Ok(())
}

fn take_bars(fields: &mut Map<String, Value>, config: &mut GenerationConfig) -> Result<(), FieldError> {
    if let Some(size) = take(fields, "no_repeat_ngram_size", "a whole number", as_usize)? {
        config.no_repeat_ngram_size = size;
    }
    if let Some(words) = take(fields, "bad_words_ids", "lists of token ids", as_sequences)? {
        config.bad_words_ids = words;
    }
    if let Some(ids) = take(fields, "suppress_tokens", "a list of token ids", as_ids)? {
        config.suppress_tokens = ids;
    }
    if let Some(ids) = take(fields, "begin_suppress_tokens", "a list of token ids", as_ids)? {
        config.begin_suppress_tokens = ids;
    }
    Ok(())
}

/// One beam is no beam search, and then its other fields mean nothing.
fn take_beams(fields: &mut Map<String, Value>) -> Result<Option<BeamSearch>, FieldError> {
    let num_beams = take(fields, "num_beams", "a whole number", as_usize)?;
    let Some(num_beams) = num_beams.filter(|num_beams| *num_beams != 1) else { return Ok(None) };
    refuse_unsupported(fields, &UNSUPPORTED_WITH_BEAMS)?;
    let mut beams = BeamSearch::new(num_beams);
    if let Some(penalty) = take(fields, "length_penalty", "a number", as_f32)? {
        beams.length_penalty = penalty;
    }
    let stopping = take(fields, "early_stopping", "true, false or \"never\"", |value| match value {
        Value::Bool(false) => Some(EarlyStopping::Heuristic),
        Value::Bool(true) => Some(EarlyStopping::WhenFull),
        Value::String(text) if text == "never" => Some(EarlyStopping::Never),
        _ => None,
    })?;
    beams.early_stopping = stopping.unwrap_or_default();
    Ok(Some(beams))
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

fn as_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn as_ids(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(as_id).collect()
}

fn as_sequences(value: &Value) -> Option<Vec<Vec<u32>>> {
    value.as_array()?.iter().map(as_ids).collect()
}

/// `[[[1, 2], -3.5], ...]`, as transformers writes them.
fn as_biases(value: &Value) -> Option<BTreeMap<Vec<u32>, f32>> {
    let pair = |item: &Value| match item.as_array()?.as_slice() {
        [ids, bias] => Some((as_ids(ids)?, as_f32(bias)?)),
        _ => None,
    };
    value.as_array()?.iter().map(pair).collect()
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
    let mut set = |field: &str, value: Value| {
        fields.insert(field.to_owned(), value);
    };
    set("max_new_tokens", json!(config.max_new_tokens));
    if config.min_new_tokens > 0 {
        set("min_new_tokens", json!(config.min_new_tokens));
    }
    match &config.decoding {
        Decoding::Greedy => set("do_sample", json!(false)),
        Decoding::Sample(sampling) => set_sampling(sampling, &config.extra, &mut set),
    }
    set_processors(config, &mut set);
    if let Some(beams) = &config.beams {
        set("num_beams", json!(beams.num_beams));
        set("length_penalty", number(beams.length_penalty));
        let stopping = match beams.early_stopping {
            EarlyStopping::Heuristic => json!(false),
            EarlyStopping::WhenFull => json!(true),
            EarlyStopping::Never => json!("never"),
        };
        set("early_stopping", stopping);
    }
    if config.num_return_sequences != 1 {
        set("num_return_sequences", json!(config.num_return_sequences));
    }
    if let Some(logprobs) = config.logprobs {
        set("logprobs", json!(logprobs));
    }
    if !config.stop.is_empty() {
        set("stop_strings", json!(config.stop));
    }
    match config.eos_token_ids.as_slice() {
        [] => {}
        [id] => set("eos_token_id", json!(id)),
        ids => set("eos_token_id", json!(ids)),
    }
    if config.seed != 0 {
        set("seed", json!(config.seed));
    }
    fields
}

fn set_sampling(sampling: &Sampling, extra: &Map<String, Value>, set: &mut impl FnMut(&str, Value)) {
    set("do_sample", json!(true));
    set("temperature", number(sampling.temperature));
    set("top_k", json!(sampling.top_k.unwrap_or(0)));
    // Null where unset, lest one that a greedy file carried along takes effect.
    set("top_p", sampling.top_p.map_or(Value::Null, number));
    set("min_p", sampling.min_p.map_or(Value::Null, number));
    for (field, value) in [
        ("typical_p", sampling.typical_p),
        ("epsilon_cutoff", sampling.epsilon_cutoff),
        ("eta_cutoff", sampling.eta_cutoff),
        ("top_h", sampling.top_h),
        ("top_n_sigma", sampling.top_n_sigma),
        ("mirostat_tau", sampling.mirostat.map(|mirostat| mirostat.tau)),
        ("mirostat_eta", sampling.mirostat.map(|mirostat| mirostat.eta)),
    ] {
        if let Some(value) = value {
            set(field, number(value));
        } else if extra.contains_key(field) {
            set(field, Value::Null);
        }
    }
}

fn set_processors(config: &GenerationConfig, set: &mut impl FnMut(&str, Value)) {
    if config.repetition_penalty != 1.0 {
        set("repetition_penalty", number(config.repetition_penalty));
    }
    if config.frequency_penalty != 0.0 {
        set("frequency_penalty", number(config.frequency_penalty));
    }
    if config.presence_penalty != 0.0 {
        set("presence_penalty", number(config.presence_penalty));
    }
    if let Some(dry) = &config.dry {
        set("dry_multiplier", number(dry.multiplier));
        set("dry_base", number(dry.base));
        set("dry_allowed_length", json!(dry.allowed_length));
        set("dry_penalty_last_n", dry.last_n.map_or(json!(-1), |last_n| json!(last_n)));
        set("dry_sequence_breakers", json!(dry.breakers));
    }
    if !config.sequence_bias.is_empty() {
        let pairs = config.sequence_bias.iter().map(|(ids, bias)| json!([ids, number(*bias)])).collect();
        set("sequence_bias", Value::Array(pairs));
    }
    if config.no_repeat_ngram_size > 0 {
        set("no_repeat_ngram_size", json!(config.no_repeat_ngram_size));
    }
    if !config.bad_words_ids.is_empty() {
        set("bad_words_ids", json!(config.bad_words_ids));
    }
    if !config.suppress_tokens.is_empty() {
        set("suppress_tokens", json!(config.suppress_tokens));
    }
    if !config.begin_suppress_tokens.is_empty() {
        set("begin_suppress_tokens", json!(config.begin_suppress_tokens));
    }
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
            .with_frequency_penalty(0.3)
            .with_presence_penalty(-0.2)
            .with_dry(
                Dry::new(0.8).with_allowed_length(3).with_last_n(64).with_breakers([vec![4], vec![5, 6]]),
            )
            .with_logit_bias([(7, -2.0)])
            .with_sequence_bias([(vec![8, 9], 0.5)])
            .with_no_repeat_ngram_size(4)
            .with_bad_words_ids([vec![1, 2], vec![3]])
            .with_suppress_tokens([10, 11])
            .with_begin_suppress_tokens([12])
            .with_logprobs(0)
            .with_num_return_sequences(2)
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
        let cut = Sampling::default().with_typical_p(0.9).with_epsilon_cutoff(0.1).with_eta_cutoff(0.2);
        for sampling in [
            cut.with_top_h(0.4).with_top_n_sigma(1.5).with_top_k(7),
            Sampling::default().with_mirostat(Mirostat::new(4.0, 0.2)),
        ] {
            let config = GenerationConfig::new().with_sampling(sampling);
            assert_eq!(read(serde_json::to_value(&config).unwrap()).unwrap(), config);
        }
        for stopping in [EarlyStopping::Heuristic, EarlyStopping::WhenFull, EarlyStopping::Never] {
            let beams = BeamSearch::new(3).with_length_penalty(0.5).with_early_stopping(stopping);
            let config = GenerationConfig::new().with_beams(beams).with_num_return_sequences(3);
            assert_eq!(read(serde_json::to_value(&config).unwrap()).unwrap(), config);
        }
        let greedy = GenerationConfig::new();
        assert_eq!(read(serde_json::to_value(&greedy).unwrap()).unwrap(), greedy);
    }

    #[test]
    fn what_would_change_the_text_is_refused() {
        for (field, value) in [
            ("guidance_scale", json!(1.5)),
            ("min_length", json!(3)),
            ("constraints", json!([1])),
            ("forced_eos_token_id", json!(0)),
        ] {
            let error = read(json!({field: value})).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("supported"), "{error}");
        }
        assert!(read(json!({"num_beams": 2, "renormalize_logits": true})).is_err());
        assert!(read(json!({"num_beams": 2, "num_beam_groups": 2})).is_err());
        let neutral =
            json!({"renormalize_logits": true, "min_length": 0, "length_penalty": 2.0, "max_time": null});
        assert_eq!(read(neutral).unwrap().extra.len(), 4);
    }

    #[test]
    fn values_that_change_nothing_set_nothing() {
        let neutral = json!({"do_sample": true, "top_k": 0, "num_beams": 1, "num_return_sequences": 1, "typical_p": 1.0,
            "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "no_repeat_ngram_size": 0, "suppress_tokens": [], "bad_words_ids": null});
        assert_eq!(read(neutral).unwrap(), GenerationConfig::new().with_sampling(Sampling::default()));
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
            (r#"{"bad_words_ids": [1]}"#, "bad_words_ids"),
            (r#"{"bad_words_ids": [[]]}"#, "bad_words_ids"),
            (r#"{"sequence_bias": [[[1]]]}"#, "sequence_bias"),
            (r#"{"num_beams": 2, "early_stopping": "soon"}"#, "early_stopping"),
            (r#"{"num_beams": 0}"#, "num_beams"),
            (r#"{"num_return_sequences": 3}"#, "num_return_sequences"),
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
