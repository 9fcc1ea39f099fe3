use std::collections::BTreeMap;

/// OpenAI's frequency and presence penalties, as llama.cpp computes them: a token that stands `c > 0` times in the answer loses
/// `c * frequency + presence`.
///
/// The prompt does not count, as at OpenAI and in vLLM; llama.cpp counts the last tokens of the prompt as well.
#[derive(Debug, Clone)]
pub(super) struct CountPenalty {
    frequency: f32,
    presence: f32,
    counts: BTreeMap<u32, u32>,
}

impl CountPenalty {
    pub(super) fn new(frequency: f32, presence: f32) -> Self {
        Self { frequency, presence, counts: BTreeMap::new() }
    }

    pub(super) fn observe(&mut self, id: u32) {
        if self.frequency != 0.0 || self.presence != 0.0 {
            *self.counts.entry(id).or_insert(0) += 1;
        }
    }

    pub(super) fn apply(&self, scores: &mut [f32]) {
        for (&id, &count) in &self.counts {
            if let Some(score) = scores.get_mut(id as usize) {
                *score -= count as f32 * self.frequency + self.presence;
            }
        }
    }
}
