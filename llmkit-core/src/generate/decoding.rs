use super::Mirostat;
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
    /// Locally typical sampling: keeps the tokens whose surprise is closest to the expected one, until their probabilities sum to at least
    /// this, in (0, 1]. Default: all.
    pub typical_p: Option<f32>,
    /// Keeps tokens of at least this probability, in (0, 1), and the likeliest. Default: all.
    pub epsilon_cutoff: Option<f32>,
    /// As [`epsilon_cutoff`](Self::epsilon_cutoff), with a border that is lower where many tokens are possible, in (0, 1). Default: all.
    pub eta_cutoff: Option<f32>,
    /// Top-H: keeps the likeliest tokens until they make up this fraction of the entropy of the 100 likeliest, in (0, 1]. Comes before
    /// top-k. Default: all.
    pub top_h: Option<f32>,
    /// Keeps tokens whose logit is at most this many standard deviations below the greatest, above 0. Comes before the other cuts. Default:
    /// all.
    pub top_n_sigma: Option<f32>,
    /// Mirostat 2.0, which takes the place of all cuts: none of them may be set with it. Default off.
    pub mirostat: Option<Mirostat>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            typical_p: None,
            epsilon_cutoff: None,
            eta_cutoff: None,
            top_h: None,
            top_n_sigma: None,
            mirostat: None,
        }
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

    /// Sets [`typical_p`](Self::typical_p).
    pub fn with_typical_p(mut self, typical_p: f32) -> Self {
        self.typical_p = Some(typical_p);
        self
    }

    /// Sets [`epsilon_cutoff`](Self::epsilon_cutoff).
    pub fn with_epsilon_cutoff(mut self, epsilon_cutoff: f32) -> Self {
        self.epsilon_cutoff = Some(epsilon_cutoff);
        self
    }

    /// Sets [`eta_cutoff`](Self::eta_cutoff).
    pub fn with_eta_cutoff(mut self, eta_cutoff: f32) -> Self {
        self.eta_cutoff = Some(eta_cutoff);
        self
    }

    /// Sets [`top_h`](Self::top_h).
    pub fn with_top_h(mut self, top_h: f32) -> Self {
        self.top_h = Some(top_h);
        self
    }

    /// Sets [`top_n_sigma`](Self::top_n_sigma).
    pub fn with_top_n_sigma(mut self, top_n_sigma: f32) -> Self {
        self.top_n_sigma = Some(top_n_sigma);
        self
    }

    /// Sets [`mirostat`](Self::mirostat).
    pub fn with_mirostat(mut self, mirostat: Mirostat) -> Self {
        self.mirostat = Some(mirostat);
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
        let refuse = |setting, expected, found| Err(Error::Generation { setting, expected, found });
        for (setting, value) in [("typical_p", self.typical_p), ("top_h", self.top_h)] {
            if let Some(value) = value
                && !(value > 0.0 && value <= 1.0)
            {
                return refuse(setting, "a fraction above 0 and up to 1", value.to_string());
            }
        }
        for (setting, value) in [("epsilon_cutoff", self.epsilon_cutoff), ("eta_cutoff", self.eta_cutoff)] {
            if let Some(value) = value
                && !(value > 0.0 && value < 1.0)
            {
                return refuse(
                    setting,
                    "a probability between 0 and 1 (leave it unset for none)",
                    value.to_string(),
                );
            }
        }
        if let Some(n) = self.top_n_sigma
            && !(n > 0.0 && n.is_finite())
        {
            return refuse("top_n_sigma", "a finite number above 0", n.to_string());
        }
        let Some(mirostat) = self.mirostat else { return Ok(()) };
        if let Some(cut) = self.first_cut() {
            return refuse("mirostat", "no other cut beside it", format!("{cut} is set"));
        }
        mirostat.validate()
    }

    fn first_cut(&self) -> Option<&'static str> {
        let set = [
            ("top_k", self.top_k.is_some()),
            ("top_p", self.top_p.is_some()),
            ("min_p", self.min_p.is_some()),
            ("typical_p", self.typical_p.is_some()),
            ("epsilon_cutoff", self.epsilon_cutoff.is_some()),
            ("eta_cutoff", self.eta_cutoff.is_some()),
            ("top_h", self.top_h.is_some()),
            ("top_n_sigma", self.top_n_sigma.is_some()),
        ];
        set.into_iter().find(|(_, set)| *set).map(|(name, _)| name)
    }
}
