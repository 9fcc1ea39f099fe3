use super::candidate::{Candidate, max_logit};

/// The log-probability of a chosen token, and of the tokens that were the likeliest in its place.
///
/// They are of the distribution that the model gave, before penalties, temperature and cuts, as OpenAI's are; natural logarithms.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Logprobs {
    /// The log-probability of the chosen token.
    pub logprob: f32,
    /// The likeliest tokens, the likeliest first; of several alike, the lowest id first. The chosen one need not be among them.
    pub top: Vec<TokenLogprob>,
}

/// A token and its log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

impl Logprobs {
    /// Of the token `chosen` under `logits`, with the `top` likeliest. A token outside the logits has the log-probability minus infinity.
    pub fn new(logits: &[f32], chosen: u32, top: usize) -> Self {
        let all = (0..).zip(logits).map(|(id, &logit)| Candidate { id, logit });
        let mut candidates: Vec<Candidate> = all.filter(|candidate| !candidate.logit.is_nan()).collect();
        let log_total = log_sum_exp(&candidates);
        let logprob = |logit: f32| (f64::from(logit) - log_total) as f32;
        let chosen = logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |logit| logprob(*logit));
        if top < candidates.len() {
            candidates.select_nth_unstable_by(top, Candidate::likelier);
            candidates.truncate(top);
        }
        candidates.sort_unstable_by(Candidate::likelier);
        let top = candidates.iter().map(|c| TokenLogprob { id: c.id, logprob: logprob(c.logit) }).collect();
        Self { logprob: chosen, top }
    }
}

fn log_sum_exp(candidates: &[Candidate]) -> f64 {
    let max = max_logit(candidates);
    let total: f64 = candidates.iter().map(|candidate| candidate.weight(max)).sum();
    total.ln() + f64::from(max)
}

/// Turns `logits` into their log-probabilities in place.
pub(super) fn log_softmax(logits: &mut [f32]) {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, logit| max.max(*logit));
    let total: f64 = logits.iter().map(|logit| (f64::from(*logit) - f64::from(max)).exp()).sum();
    let log_total = total.ln() + f64::from(max);
    for logit in logits {
        *logit = (f64::from(*logit) - log_total) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_the_chosen_need_not_be_among_them() {
        let logits = [0.25f32, 0.5, 0.125, 0.125].map(f32::ln);
        let found = Logprobs::new(&logits, 3, 3);
        assert!((found.logprob - 0.125f32.ln()).abs() < 1e-6);
        assert_eq!(found.top.iter().map(|top| top.id).collect::<Vec<_>>(), [1, 0, 2]);
        assert!((found.top[0].logprob - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(Logprobs::new(&logits, 0, 0).top, []);
        assert_eq!(Logprobs::new(&logits, 0, 9).top.len(), 4);
        assert_eq!(Logprobs::new(&logits, 9, 0).logprob, f32::NEG_INFINITY);
    }
}
