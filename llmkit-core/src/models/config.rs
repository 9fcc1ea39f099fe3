use std::path::Path;

use serde_json::Value;

use crate::nn::{RopeConfig, RopeScaling};
use crate::{Error, Result};

/// Reads a Hugging Face `config.json` field by field, so that each complaint names its field.
#[derive(Debug, Clone, Copy)]
pub struct ConfigReader<'a> {
    path: &'a Path,
    fields: &'a Value,
}

/// The largest size that a field may claim: enough for every model there is, and far from overflowing a product of two.
const LARGEST: u64 = 1 << 28;

/// The most experts that are believed without a tensor for each.
const LARGEST_FUSED: usize = 1024;

impl<'a> ConfigReader<'a> {
    /// Reads `fields`, which came from `path`.
    pub fn new(path: &'a Path, fields: &'a Value) -> Self {
        Self { path, fields }
    }

    /// A positive integer that must be there.
    ///
    /// # Errors
    /// [`Error::Config`] if it is missing, no integer, zero or absurdly large.
    pub fn size(&self, field: &str) -> Result<usize> {
        match self.optional(field) {
            Some(value) => match value.as_u64() {
                Some(size @ 1..=LARGEST) => Ok(size as usize),
                _ => Err(self.wrong(field, "a positive integer", value)),
            },
            None => Err(self.wrong(field, "a positive integer", &"nothing")),
        }
    }

    /// Insists that the counts of parts (layers, experts) can be true of a file with `tensors` tensors: a model of a billion layers would
    /// take the memory of a billion layers before the first missing tensor could be complained about.
    ///
    /// # Errors
    /// [`Error::Config`] naming the count that is too large.
    pub fn check_counts(&self, tensors: usize) -> Result<()> {
        // All experts of a layer may lie in one tensor.
        let experts = tensors.max(LARGEST_FUSED);
        for (field, most) in [
            ("num_hidden_layers", tensors),
            ("num_local_experts", experts),
            ("num_experts", experts),
            ("n_routed_experts", experts),
        ] {
            if let Some(value) = self.optional(field)
                && value.as_u64().is_some_and(|count| count > most as u64)
            {
                let expected = format!("at most {most}, as the file has {tensors} tensors");
                return Err(self.wrong(field, &expected, value));
            }
        }
        Ok(())
    }

    /// A positive integer, or `default` where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn size_or(&self, field: &str, default: usize) -> Result<usize> {
        if self.optional(field).is_some() { self.size(field) } else { Ok(default) }
    }

    /// A finite number, or `default` where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        match self.optional(field) {
            Some(value) => {
                value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.wrong(field, "a number", value))
            }
            None => Ok(default),
        }
    }

    /// A truth value, or `default` where the field is missing or null.
    ///
    /// # Errors
    /// [`Error::Config`] if something else is there.
    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        match self.optional(field) {
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(field, "true or false", value)),
            None => Ok(default),
        }
    }

    /// Insists that a field, if it is there at all, is one of `allowed`: any other value would change the result unnoticed.
    ///
    /// # Errors
    /// [`Error::Config`] if it is something else.
    pub fn only(&self, field: &str, allowed: &[&str]) -> Result<()> {
        match self.optional(field) {
            Some(value) if !value.as_str().is_some_and(|text| allowed.contains(&text)) => {
                Err(self.wrong(field, &format!("one of {allowed:?}"), value))
            }
            _ => Ok(()),
        }
    }

    /// Insists that a field is missing or null, because what it asks for isn't supported.
    ///
    /// # Errors
    /// [`Error::Config`] if it is set.
    pub fn unsupported(&self, field: &str) -> Result<()> {
        match self.optional(field) {
            Some(value) => Err(self.wrong(field, "null (what it asks for is not supported yet)", value)),
            None => Ok(()),
        }
    }

    /// The rotary positions: `rope_parameters` as transformers 5 writes them, or `rope_theta` and `rope_scaling` as before.
    ///
    /// # Errors
    /// [`Error::Config`] for a scaling of unknown type or with missing or impossible numbers.
    pub fn rope(&self, head_dim: usize) -> Result<RopeConfig> {
        if head_dim % 2 == 1 {
            return Err(self.wrong("head_dim", "an even number", &head_dim));
        }
        let unified = self.optional("rope_parameters").or_else(|| self.optional("rope_scaling"));
        let nested = unified.map(|fields| Self { path: self.path, fields });
        let theta = match nested.filter(|nested| nested.optional("rope_theta").is_some()) {
            Some(nested) => nested.positive("rope_theta")?,
            None => self.number_or("rope_theta", 10_000.0)?,
        };
        if theta <= 1.0 {
            return Err(self.wrong("rope_theta", "a number above 1", &theta));
        }
        let scaling = match nested {
            None => RopeScaling::Default,
            Some(nested) => nested.rope_scaling()?,
        };
        if let RopeScaling::Factors(factors) = &scaling
            && factors.len() != head_dim / 2
        {
            return Err(self.wrong("short_factor", &format!("{} factors", head_dim / 2), &factors.len()));
        }
        Ok(RopeConfig { head_dim, theta, scaling })
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let named = self.optional("rope_type").or_else(|| self.optional("type"));
        let Some(named) = named else { return Ok(RopeScaling::Default) };
        match named.as_str() {
            Some("default") => Ok(RopeScaling::Default),
            Some("linear") => Ok(RopeScaling::Linear { factor: self.positive("factor")? }),
            Some("llama3") => {
                let low_freq_factor = self.positive("low_freq_factor")?;
                let high_freq_factor = self.positive("high_freq_factor")?;
                if high_freq_factor <= low_freq_factor {
                    let expected = format!("a number above low_freq_factor ({low_freq_factor})");
                    return Err(self.wrong("high_freq_factor", &expected, &high_freq_factor));
                }
                Ok(RopeScaling::Llama3 {
                    factor: self.positive("factor")?,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position: self.size("original_max_position_embeddings")?,
                })
            }
            Some("longrope") => Ok(RopeScaling::Factors(self.factors()?)),
            _ => Err(self.wrong("rope_type", "one of [\"default\", \"linear\", \"llama3\"]", named)),
        }
    }

    /// LongRoPE in the one form that needs no switching between short and long texts, as a GGUF file's factors are passed on.
    fn factors(&self) -> Result<Vec<f32>> {
        let list = |field| {
            let values = self.optional(field).and_then(Value::as_array);
            let values = values.map(|values| values.iter().map(|v| v.as_f64().map(|v| v as f32)));
            values.and_then(|values| values.collect::<Option<Vec<f32>>>())
        };
        let (short, long) = (list("short_factor"), list("long_factor"));
        match short {
            Some(factors)
                if Some(&factors) == long.as_ref()
                    && factors.iter().all(|factor| *factor > 0.0 && factor.is_finite())
                    && self.number_or("attention_factor", 0.0)? == 1.0 =>
            {
                Ok(factors)
            }
            _ => {
                let expected = "positive factors, the same for short and long texts, with attention_factor 1";
                Err(self.wrong("short_factor", expected, self.fields))
            }
        }
    }

    fn positive(&self, field: &str) -> Result<f64> {
        let value = self.number_or(field, 0.0)?;
        if value > 0.0 { Ok(value) } else { Err(self.wrong(field, "a positive number", &value)) }
    }

    fn optional(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// An [`Error::Config`] about `field`.
    pub fn wrong(&self, field: &str, expected: &str, found: &dyn std::fmt::Display) -> Error {
        Error::Config {
            path: self.path.to_path_buf(),
            field: field.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}
