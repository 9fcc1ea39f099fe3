use super::super::candidate::{Candidate, max_logit};
use crate::{Error, Result};

/// Mirostat 2.0 (Basu et al. 2021, arXiv 2007.14966), as in llama.cpp: keeps the text's surprise per token near a target by cutting off what
/// is too surprising, with a border that follows the tokens drawn.
///
/// It keeps the candidates whose surprise `-log2 p` is at most `mu`, which starts at `2 tau`, and after each draw of a token with the
/// surprise `s` among those kept becomes `mu - eta (s - tau)`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Mirostat {
    /// The target, in bits, above 0. Default 5.
    pub tau: f32,
    /// How fast the border follows, above 0. Default 0.1.
    pub eta: f32,
}

impl Default for Mirostat {
    fn default() -> Self {
        Self { tau: 5.0, eta: 0.1 }
    }
}

impl Mirostat {
    /// The target `tau`, in bits, and the rate `eta`.
    pub fn new(tau: f32, eta: f32) -> Self {
        Self { tau, eta }
    }

    /// Checks both settings.
    ///
    /// # Errors
    /// [`Error::Generation`] naming the first one out of range.
    pub fn validate(&self) -> Result<()> {
        for (setting, value) in [("mirostat_tau", self.tau), ("mirostat_eta", self.eta)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::Generation {
                    setting,
                    expected: "a finite number above 0",
                    found: value.to_string(),
                });
            }
        }
        Ok(())
    }

    pub(in super::super) fn first_border(&self) -> f64 {
        2.0 * f64::from(self.tau)
    }

    /// The border after `chosen` was drawn from `candidates`.
    pub(in super::super) fn next_border(&self, border: f64, candidates: &[Candidate], chosen: u32) -> f64 {
        let max = max_logit(candidates);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
        let weight =
            candidates.iter().find(|candidate| candidate.id == chosen).map_or(0.0, |c| c.weight(max));
        // A draw never takes a weight of 0.
        let surprise = -(weight.max(f64::MIN_POSITIVE) / total).log2();
        border - f64::from(self.eta) * (surprise - f64::from(self.tau))
    }
}

/// Keeps candidates whose surprise is at most `border` bits, and at least the likeliest.
pub(in super::super) fn keep(candidates: &mut Vec<Candidate>, border: f64) {
    let max = max_logit(candidates);
    let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
    let likeliest = candidates.iter().copied().min_by(Candidate::likelier);
    candidates.retain(|candidate| {
        Some(*candidate) == likeliest || -(candidate.weight(max) / total).log2() <= border
    });
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct LlamaCpp {
        mirostat: Vec<Run>,
    }

    #[derive(Deserialize)]
    struct Run {
        tau: f32,
        eta: f32,
        steps: Vec<Step>,
    }

    #[derive(Deserialize)]
    struct Step {
        logits: Vec<f32>,
        kept: Vec<u32>,
        probabilities: Vec<f64>,
        drawn: u32,
    }

    /// Follows what llama.cpp drew (`scripts/make_logits_fixtures.py`).
    #[test]
    fn the_border_moves_as_in_llama_cpp() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/logits/llama_cpp.json");
        let fixture: LlamaCpp = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(fixture.mirostat.len(), 3);
        let mut cut = 0;
        for Run { tau, eta, steps } in fixture.mirostat {
            let mirostat = Mirostat::new(tau, eta);
            let mut border = mirostat.first_border();
            for (number, step) in steps.iter().enumerate() {
                let all = (0..).zip(&step.logits).map(|(id, &logit)| Candidate { id, logit });
                let mut candidates: Vec<Candidate> = all.collect();
                keep(&mut candidates, border);
                let ids: Vec<u32> = candidates.iter().map(|candidate| candidate.id).collect();
                assert_eq!(ids, step.kept, "tau {tau}, step {number}");
                cut += usize::from(ids.len() < step.logits.len());
                let max = max_logit(&candidates);
                let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
                for (candidate, expected) in candidates.iter().zip(&step.probabilities) {
                    let found = candidate.weight(max) / total;
                    assert!((found - expected).abs() < 1e-5 * expected, "tau {tau}, step {number}: {found}");
                }
                border = mirostat.next_border(border, &candidates, step.drawn);
            }
        }
        assert!(cut > 12, "only {cut} steps cut anything off");
    }
}
