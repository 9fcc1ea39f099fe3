use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::candidate::{Candidate, max_logit};
use super::repetition_penalty::RepetitionPenalty;
use super::warpers::{min_p, temperature, top_k, top_p};
use super::{Decoding, GenerationConfig, Sampling};
use crate::{Error, Result};

/// Chooses the tokens of one answer, from logits.
///
/// The steps and their order are those of transformers: repetition penalty, end tokens barred until
/// [`min_new_tokens`](GenerationConfig::min_new_tokens), then, where sampling, temperature, top-k, top-p and min-p. One draw takes
/// one 64-bit number of a ChaCha8 stream, so a seed gives the same answer on every platform whose logits are the same.
#[derive(Debug, Clone)]
pub struct Sampler {
    decoding: Decoding,
    repetition: RepetitionPenalty,
    min_new_tokens: usize,
    eos_token_ids: Vec<u32>,
    rng: ChaCha8Rng,
    chosen: usize,
}

impl Sampler {
    /// Starts an answer to `prompt`, whose tokens count as seen for the repetition penalty.
    ///
    /// # Errors
    /// [`Error::Generation`] when a setting is out of range.
    pub fn new(config: &GenerationConfig, prompt: &[u32]) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            decoding: config.decoding,
            repetition: RepetitionPenalty::new(config.repetition_penalty, prompt),
            min_new_tokens: config.min_new_tokens,
            eos_token_ids: config.eos_token_ids.clone(),
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            chosen: 0,
        })
    }

    /// The next token. `logits` has one value for each token of the vocabulary and is overwritten; minus infinity bars a token.
    ///
    /// # Errors
    /// [`Error::Logits`] when one is NaN or plus infinity, or when no token is left to choose.
    pub fn choose(&mut self, logits: &mut [f32]) -> Result<u32> {
        self.penalise(logits)?;
        let id = match self.decoding {
            Decoding::Greedy => argmax(logits).map(|candidate| candidate.id),
            Decoding::Sample(sampling) => draw(&warp(logits, &sampling), &mut self.rng),
        };
        let id = id.ok_or_else(|| self.nothing_left(logits))?;
        self.repetition.observe(id);
        self.chosen += 1;
        Ok(id)
    }

    /// What [`choose`](Self::choose) would choose from: the tokens left and their probabilities, by id. Greedy decoding leaves one.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn distribution(&self, logits: &mut [f32]) -> Result<Vec<(u32, f64)>> {
        self.penalise(logits)?;
        let candidates = match self.decoding {
            Decoding::Greedy => argmax(logits).into_iter().collect(),
            Decoding::Sample(sampling) => warp(logits, &sampling),
        };
        if candidates.is_empty() {
            return Err(self.nothing_left(logits));
        }
        let max = max_logit(&candidates);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
        Ok(candidates.iter().map(|candidate| (candidate.id, candidate.weight(max) / total)).collect())
    }

    /// The steps that come before any choice, and the check that what they leave is usable.
    fn penalise(&self, logits: &mut [f32]) -> Result<()> {
        self.repetition.apply(logits);
        if let Some(id) = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(Error::Logits {
                step: self.chosen,
                expected: "numbers",
                found: format!("{} for token {id}", logits[id]),
            });
        }
        if self.chosen < self.min_new_tokens {
            for &id in &self.eos_token_ids {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    fn nothing_left(&self, logits: &[f32]) -> Error {
        let found = match logits.len() {
            0 => "no logits at all".to_owned(),
            vocabulary => format!("all {vocabulary} barred"),
        };
        Error::Logits { step: self.chosen, expected: "a token to choose", found }
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

fn warp(logits: &[f32], sampling: &Sampling) -> Vec<Candidate> {
    let all = (0..).zip(logits).map(|(id, &logit)| Candidate { id, logit });
    let mut candidates: Vec<Candidate> =
        all.filter(|candidate| candidate.logit > f32::NEG_INFINITY).collect();
    temperature::divide(&mut candidates, sampling.temperature);
    if let Some(k) = sampling.top_k {
        top_k::keep(&mut candidates, k);
    }
    if let Some(p) = sampling.top_p {
        top_p::keep(&mut candidates, p);
    }
    if let Some(p) = sampling.min_p {
        min_p::keep(&mut candidates, p);
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
