//! Reading rotary positions out of a `config.json`.

use serde_json::Value;

use super::ConfigReader;
use crate::Result;
use crate::nn::{RopeConfig, RopeScaling};

/// The types of scaling that are known, as configurations name them.
const KINDS: [&str; 6] = ["default", "linear", "dynamic", "yarn", "llama3", "longrope"];

/// What the description of rotary positions may hold; anything else might change the result.
const FIELDS: [&str; 18] = [
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
    "max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "low_freq_factor",
    "high_freq_factor",
    "short_factor",
    "long_factor",
    // A note of where the checkpoint comes from.
    "finetuned",
];

/// Where an architecture keeps its rotary positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct RopeFields<'a> {
    /// The length of one head's vectors.
    pub(super) head_dim: usize,
    /// The base's name outside of the parameters, and its default.
    pub(super) theta: (&'a str, f64),
    /// Whether a part of each head may be left as it is.
    pub(super) partial: bool,
    /// `original_max_position_embeddings` where no field says it; the longest sequence where there is no such default.
    pub(super) original_max_position: Option<usize>,
}

impl RopeFields<'_> {
    pub(super) fn new(head_dim: usize) -> Self {
        Self { head_dim, theta: ("rope_theta", 10_000.0), partial: false, original_max_position: None }
    }
}

impl ConfigReader<'_> {
    /// The rotary positions: `rope_parameters` as transformers 5 writes them, or `rope_theta` and `rope_scaling` as before.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a scaling of unknown type, with missing or impossible numbers, or with fields that
    /// mean something else.
    pub fn rope(&self, head_dim: usize) -> Result<RopeConfig> {
        let parameters = self.nested("rope_parameters").or_else(|| self.nested("rope_scaling"));
        self.rope_from(parameters, RopeFields::new(head_dim))
    }

    /// The same from `parameters`, with the architecture's own names and defaults.
    pub(super) fn rope_from(
        &self,
        parameters: Option<ConfigReader<'_>>,
        fields: RopeFields<'_>,
    ) -> Result<RopeConfig> {
        let unknown =
            parameters.and_then(|parameters| parameters.set_fields().find(|name| !FIELDS.contains(name)));
        if let (Some(parameters), Some(unknown)) = (parameters, unknown) {
            return Err(parameters.wrong(unknown, "only known fields of rotary positions", &"another"));
        }
        let set = |name| parameters.filter(|parameters| parameters.optional(name).is_some());
        let theta = match set("rope_theta") {
            Some(parameters) => parameters.positive("rope_theta")?,
            None => self.number_or(fields.theta.0, fields.theta.1)?,
        };
        if theta <= 1.0 {
            return Err(self.wrong(fields.theta.0, "a number above 1", &theta));
        }
        let rotary_dim = self.rotary_dim(set("partial_rotary_factor"), fields)?;
        let scaling = match parameters {
            None => RopeScaling::Default,
            Some(parameters) => {
                // The field outside of the parameters has the last word, as in transformers.
                let original = || match (self.optional(ORIGINAL), parameters.optional(ORIGINAL)) {
                    (Some(_), _) => self.size(ORIGINAL),
                    (None, Some(_)) if fields.original_max_position.is_none() => parameters.size(ORIGINAL),
                    _ => match fields.original_max_position {
                        Some(default) => Ok(default),
                        None => self.size("max_position_embeddings"),
                    },
                };
                self.scaling(parameters, rotary_dim, original)?
            }
        };
        Ok(RopeConfig { rotary_dim, theta, scaling })
    }

    fn rotary_dim(&self, inside: Option<ConfigReader<'_>>, fields: RopeFields<'_>) -> Result<usize> {
        const FIELD: &str = "partial_rotary_factor";
        let RopeFields { head_dim, partial, .. } = fields;
        let part = inside.unwrap_or(*self).number_or(FIELD, 1.0)?;
        if !(part > 0.0 && part <= 1.0) || (part < 1.0 && !partial) {
            let expected = if partial { "a number above 0, up to 1" } else { "1 (for this architecture)" };
            return Err(self.wrong(FIELD, expected, &part));
        }
        // Rounded down, as transformers does.
        let rotary_dim = (head_dim as f64 * part) as usize;
        if rotary_dim == 0 || rotary_dim % 2 == 1 {
            let field = if part < 1.0 { FIELD } else { "head_dim" };
            return Err(self.wrong(field, "an even number of components to turn", &rotary_dim));
        }
        Ok(rotary_dim)
    }

    fn scaling(
        &self,
        parameters: ConfigReader<'_>,
        rotary_dim: usize,
        original: impl Fn() -> Result<usize>,
    ) -> Result<RopeScaling> {
        let named = parameters.optional("rope_type").or_else(|| parameters.optional("type"));
        let Some(named) = named else { return Ok(RopeScaling::Default) };
        match named.as_str() {
            Some("default") => Ok(RopeScaling::Default),
            Some("linear") => Ok(RopeScaling::Linear { factor: parameters.positive("factor")? }),
            Some("dynamic") => {
                if rotary_dim <= 2 {
                    return Err(parameters.wrong("rope_type", "another type for heads of 2", named));
                }
                let factor = parameters.positive("factor")?;
                Ok(RopeScaling::Dynamic { factor, max_position: self.size("max_position_embeddings")? })
            }
            Some("yarn") => self.yarn(parameters, original()?),
            Some("llama3") => {
                let low_freq_factor = parameters.positive("low_freq_factor")?;
                let high_freq_factor = parameters.positive("high_freq_factor")?;
                if high_freq_factor <= low_freq_factor {
                    let expected = format!("a number above low_freq_factor ({low_freq_factor})");
                    return Err(parameters.wrong("high_freq_factor", &expected, &high_freq_factor));
                }
                Ok(RopeScaling::Llama3 {
                    factor: parameters.positive("factor")?,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position: original()?,
                })
            }
            // The name that Phi-3's first checkpoints used.
            Some("longrope" | "su") => self.longrope(parameters, rotary_dim, original()?),
            _ => Err(parameters.wrong("rope_type", &format!("one of {KINDS:?}"), named)),
        }
    }

    fn yarn(&self, parameters: ConfigReader<'_>, original_max_position: usize) -> Result<RopeScaling> {
        let factor = self.factor(parameters, original_max_position)?;
        let set = |name| match parameters.optional(name) {
            Some(_) => parameters.positive(name).map(Some),
            None => Ok(None),
        };
        let attention_factor = match (set("attention_factor")?, set("mscale")?, set("mscale_all_dim")?) {
            (Some(given), _, _) => given,
            (None, Some(mscale), Some(all_dim)) => {
                yarn_attention(factor, mscale) / yarn_attention(factor, all_dim)
            }
            _ => yarn_attention(factor, 1.0),
        };
        Ok(RopeScaling::Yarn {
            factor,
            original_max_position,
            beta_fast: set("beta_fast")?.unwrap_or(32.0),
            beta_slow: set("beta_slow")?.unwrap_or(1.0),
            truncate: parameters.flag_or("truncate", true)?,
            attention_factor,
        })
    }

    fn longrope(
        &self,
        parameters: ConfigReader<'_>,
        rotary_dim: usize,
        original_max_position: usize,
    ) -> Result<RopeScaling> {
        let factors = |field: &str| -> Result<Vec<f32>> {
            let values = parameters.optional(field).and_then(Value::as_array);
            let values = values.map(|values| values.iter().map(|v| v.as_f64().map(|v| v as f32)));
            let values = values.and_then(|values| values.collect::<Option<Vec<f32>>>()).unwrap_or_default();
            let usable = |factor: &f32| factor.is_finite() && *factor > 0.0;
            if 2 * values.len() == rotary_dim && values.iter().all(usable) {
                return Ok(values);
            }
            let expected = format!("{} positive numbers", rotary_dim / 2);
            Err(parameters.wrong(field, &expected, parameters.optional(field).unwrap_or(&Value::Null)))
        };
        let attention_factor = match parameters.optional("attention_factor") {
            Some(_) => parameters.positive("attention_factor")?,
            None => {
                let factor = self.factor(parameters, original_max_position)?;
                let original = (original_max_position as f64).ln();
                if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original).sqrt() }
            }
        };
        if !attention_factor.is_finite() {
            return Err(parameters.wrong(ORIGINAL, "more than one token", &original_max_position));
        }
        Ok(RopeScaling::LongRope {
            short_factor: factors("short_factor")?,
            long_factor: factors("long_factor")?,
            original_max_position,
            attention_factor,
        })
    }

    /// How many times longer the context becomes: given, or to be derived.
    fn factor(&self, parameters: ConfigReader<'_>, original_max_position: usize) -> Result<f64> {
        match parameters.optional("factor") {
            Some(_) => parameters.positive("factor"),
            None => Ok(self.size("max_position_embeddings")? as f64 / original_max_position as f64),
        }
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";

fn yarn_attention(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}
