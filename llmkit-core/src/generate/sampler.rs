use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::candidate::{Candidate, max_logit};
use super::processors::Processors;
use super::warpers::{cutoff, min_p, mirostat, temperature, top_h, top_k, top_n_sigma, top_p, typical};
use super::{Decoding, GenerationConfig, Sampling};
use crate::Result;

/// Chooses the tokens of one answer, from logits.
///
/// The steps and their order are those of transformers, with those of llama.cpp and OpenAI among them:
///
/// 1. sequence bias (and so logit bias), repetition penalty, frequency and presence penalties, DRY, repeated n-grams, bad words, end tokens
///    barred until [`min_new_tokens`](GenerationConfig::min_new_tokens), suppressed tokens;
/// 2. where sampling: temperature, then mirostat, or top-n-sigma, top-h, top-k, top-p, min-p, typical-p, epsilon and eta cutoff.
///
/// One draw takes one 64-bit number of a ChaCha8 stream, so a seed gives the same answer on every platform whose logits are the same.
#[derive(Debug, Clone)]
pub struct Sampler {
    processors: Processors,
    rng: ChaCha8Rng,
    /// Mirostat's border, in bits; where mirostat is off, not used.
    border: f64,
}

impl Sampler {
    /// Starts an answer to `prompt`, at whose tokens the penalties look back.
    ///
    /// # Errors
    /// [`Error::Generation`](crate::Error::Generation) when a setting is out of range.
    pub fn new(config: &GenerationConfig, prompt: &[u32]) -> Result<Self> {
        Self::seeded(config, prompt, config.seed)
    }

    /// With another seed than the settings'.
    pub(super) fn seeded(config: &GenerationConfig, prompt: &[u32], seed: u64) -> Result<Self> {
        let border = match &config.decoding {
            Decoding::Sample(Sampling { mirostat: Some(mirostat), .. }) => mirostat.first_border(),
            _ => 0.0,
        };
        Ok(Self {
            processors: Processors::new(config, prompt)?,
            rng: ChaCha8Rng::seed_from_u64(seed),
            border,
        })
    }

    /// The next token. `logits` has one value for each token of the vocabulary and is overwritten; minus infinity bars a token.
    ///
    /// # Errors
    /// [`Error::Logits`](crate::Error::Logits) when one is NaN or plus infinity, or when no token is left to choose;
    /// [`Error::Generation`](crate::Error::Generation) when a biased token or one of a bad word is outside the vocabulary.
    pub fn choose(&mut self, logits: &mut [f32]) -> Result<u32> {
        let candidates = self.candidates(logits)?;
        let id = match &self.processors.config().decoding {
            Decoding::Greedy => candidates.first().map(|candidate| candidate.id),
            Decoding::Sample(_) => draw(&candidates, &mut self.rng),
        };
        let id = id.ok_or_else(|| self.processors.nothing_left(logits))?;
        if let Decoding::Sample(Sampling { mirostat: Some(mirostat), .. }) =
            &self.processors.config().decoding
        {
            self.border = mirostat.next_border(self.border, &candidates, id);
        }
        self.processors.observe(id);
        Ok(id)
    }

    /// What [`choose`](Self::choose) would choose from: the tokens left and their probabilities, by id. Greedy decoding leaves one.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn distribution(&self, logits: &mut [f32]) -> Result<Vec<(u32, f64)>> {
        let candidates = self.candidates(logits)?;
        let max = max_logit(&candidates);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
        Ok(candidates.iter().map(|candidate| (candidate.id, candidate.weight(max) / total)).collect())
    }

    /// The tokens left, at least one, in the order of their ids.
    fn candidates(&self, logits: &mut [f32]) -> Result<Vec<Candidate>> {
        self.processors.apply(logits)?;
        let candidates: Vec<Candidate> = match &self.processors.config().decoding {
            Decoding::Greedy => argmax(logits).into_iter().collect(),
            Decoding::Sample(sampling) => warp(logits, sampling, self.border),
        };
        if candidates.is_empty() {
            return Err(self.processors.nothing_left(logits));
        }
        Ok(candidates)
    }
}

/// The likeliest token; the lowest id of several alike, as torch's `argmax` gives.
fn argmax(logits: &[f32]) -> Option<Candidate> {
    let mut best: Option<Candidate> = None;
    for (id, &logit) in (0..).zip(logits) {
        if logit > best.map_or(f32::NEG_INFINITY, |best| best.logit) {
            best = Some(Candidate { id, logit });
        }
    }
    best
}

/// `border` is mirostat's.
fn warp(logits: &[f32], sampling: &Sampling, border: f64) -> Vec<Candidate> {
    let all = (0..).zip(logits).map(|(id, &logit)| Candidate { id, logit });
    let mut candidates: Vec<Candidate> =
        all.filter(|candidate| candidate.logit > f32::NEG_INFINITY).collect();
    temperature::divide(&mut candidates, sampling.temperature);
    if sampling.mirostat.is_some() {
        mirostat::keep(&mut candidates, border);
    }
    if let Some(n) = sampling.top_n_sigma {
        top_n_sigma::keep(&mut candidates, n);
    }
    if let Some(h) = sampling.top_h {
        top_h::keep(&mut candidates, h);
    }
    if let Some(k) = sampling.top_k {
        top_k::keep(&mut candidates, k);
    }
    if let Some(p) = sampling.top_p {
        top_p::keep(&mut candidates, p);
    }
    if let Some(p) = sampling.min_p {
        min_p::keep(&mut candidates, p);
    }
    if let Some(mass) = sampling.typical_p {
        typical::keep(&mut candidates, mass);
    }
    if let Some(epsilon) = sampling.epsilon_cutoff {
        cutoff::epsilon(&mut candidates, epsilon);
    }
    if let Some(epsilon) = sampling.eta_cutoff {
        cutoff::eta(&mut candidates, epsilon);
    }
    candidates
}

/// Draws in the order of ids, which the steps before keep: an order that a selection left would depend on the standard library's
/// version, and so would the answer.
fn draw(candidates: &[Candidate], rng: &mut ChaCha8Rng) -> Option<u32> {
    let max = max_logit(candidates);
    let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
    // 53 random bits: every value is exact in an f64, and all are below 1.
    let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let target = uniform * total;
    let mut mass = 0.0;
    for candidate in candidates {
        mass += candidate.weight(max);
        if target < mass {
            return Some(candidate.id);
        }
    }
    // Rounding may leave `target` at the very end.
    candidates.last().map(|candidate| candidate.id)
}
