use crate::{Error, Result};

/// How the next token is chosen among the candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Decoding {
    /// Always the likeliest token; of several alike, the one with the lowest id. The default.
    #[default]
    Greedy,
    /// A random draw.
    Sample(Sampling),
}

/// The distribution that [`Decoding::Sample`] draws from: the softmax of the logits after these steps, in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// Divides the logits, above 0: below 1 sharpens the distribution, above 1 flattens it. Default 1.
    pub temperature: f32,
    /// Keeps this many of the likeliest tokens, and those that tie with the last of them. Default: all.
    pub top_k: Option<usize>,
    /// Keeps the fewest likeliest tokens whose probabilities sum to at least this, in (0, 1]. Default: all.
    pub top_p: Option<f32>,
    /// Keeps tokens at least this fraction as likely as the likeliest, in \[0, 1\]. Default: all.
    pub min_p: Option<f32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, min_p: None }
    }
}

impl Sampling {
    /// Draws from the model's own distribution at `temperature`.
    pub fn new(temperature: f32) -> Self {
        Self { temperature, ..Self::default() }
    }

    /// Sets [`top_k`](Self::top_k).
    pub fn with_top_k(mut self, top_k: usize) -> Self {
        self.top_k = Some(top_k);
        self
    }

    /// Sets [`top_p`](Self::top_p).
    pub fn with_top_p(mut self, top_p: f32) -> Self {
        self.top_p = Some(top_p);
        self
    }

    /// Sets [`min_p`](Self::min_p).
    pub fn with_min_p(mut self, min_p: f32) -> Self {
        self.min_p = Some(min_p);
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Generation`] naming the first one out of range.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::Generation {
                setting: "temperature",
                expected: "a finite number above 0 (for the likeliest token always, choose greedy decoding)",
                found: self.temperature.to_string(),
            });
        }
        if self.top_k == Some(0) {
            return Err(Error::Generation {
                setting: "top_k",
                expected: "at least 1 (leave it unset to keep all tokens)",
                found: "0".into(),
            });
        }
        if let Some(top_p) = self.top_p
            && !(top_p > 0.0 && top_p <= 1.0)
        {
            return Err(Error::Generation {
                setting: "top_p",
                expected: "a probability above 0 and up to 1",
                found: top_p.to_string(),
            });
        }
        if let Some(min_p) = self.min_p
            && !(0.0..=1.0).contains(&min_p)
        {
            return Err(Error::Generation {
                setting: "min_p",
                expected: "a fraction from 0 to 1",
                found: min_p.to_string(),
            });
        }
        Ok(())
    }
}
