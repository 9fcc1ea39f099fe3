use std::collections::BTreeSet;

/// The repetition penalty of CTRL (Keskar et al. 2019, arXiv 1909.05858), as transformers applies it: once to each token that has
/// been seen, however often. A logit `l` becomes `l / penalty` where it is positive and `l * penalty` where it is negative.
#[derive(Debug, Clone)]
pub(in super::super) struct RepetitionPenalty {
    penalty: f32,
    seen: BTreeSet<u32>,
}

impl RepetitionPenalty {
    pub(in super::super) fn new(penalty: f32, prompt: &[u32]) -> Self {
        let mut this = Self { penalty, seen: BTreeSet::new() };
        prompt.iter().for_each(|&id| this.observe(id));
        this
    }

    /// Counts `id` as seen from now on.
    pub(in super::super) fn observe(&mut self, id: u32) {
        if self.penalty != 1.0 {
            self.seen.insert(id);
        }
    }

    /// Tokens outside the vocabulary are passed over: a model's input may know more tokens than its output.
    pub(in super::super) fn apply(&self, logits: &mut [f32]) {
        for &id in &self.seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit < 0.0 { *logit * self.penalty } else { *logit / self.penalty };
            }
        }
    }
}
