//! The steps that change the logits before any choice, in transformers' order; those that only llama.cpp and OpenAI have (counted
//! penalties, DRY) follow the repetition penalty.

mod bad_words;
mod count_penalty;
mod dry;
mod no_repeat_ngram;
mod repetition_penalty;
mod sequence_bias;

use std::sync::Arc;

pub use dry::Dry;

use self::count_penalty::CountPenalty;
use self::repetition_penalty::RepetitionPenalty;
use super::GenerationConfig;
use crate::{Error, Result};

/// The steps of one answer, and the tokens that they look back at.
#[derive(Debug, Clone)]
pub(super) struct Processors {
    config: Arc<GenerationConfig>,
    /// The prompt and the answer.
    history: Vec<u32>,
    prompt_len: usize,
    repetition: RepetitionPenalty,
    counted: CountPenalty,
}

impl Processors {
    /// # Errors
    /// [`Error::Generation`] when a setting is out of range.
    pub(super) fn new(config: &GenerationConfig, prompt: &[u32]) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            history: prompt.to_vec(),
            prompt_len: prompt.len(),
            repetition: RepetitionPenalty::new(config.repetition_penalty, prompt),
            counted: CountPenalty::new(config.frequency_penalty, config.presence_penalty),
            config: Arc::new(config.clone()),
        })
    }

    pub(super) fn config(&self) -> &GenerationConfig {
        &self.config
    }

    /// How many tokens were chosen.
    pub(super) fn chosen(&self) -> usize {
        self.history.len() - self.prompt_len
    }

    /// The tokens that were chosen.
    pub(super) fn answer(&self) -> &[u32] {
        &self.history[self.prompt_len..]
    }

    /// Counts `id` as chosen.
    pub(super) fn observe(&mut self, id: u32) {
        self.repetition.observe(id);
        self.counted.observe(id);
        self.history.push(id);
    }

    /// Changes the scores of the next token.
    ///
    /// # Errors
    /// [`Error::Logits`] when one is NaN or plus infinity; [`Error::Generation`] when a token of the bias or of a bad word is outside the
    /// vocabulary.
    pub(super) fn apply(&self, scores: &mut [f32]) -> Result<()> {
        let config = self.config.as_ref();
        sequence_bias::apply(&config.sequence_bias, &self.history, scores)?;
        self.repetition.apply(scores);
        self.counted.apply(scores);
        if let Some(dry) = &config.dry {
            dry.apply(&self.history, scores);
        }
        if let Some(id) = scores.iter().position(|score| score.is_nan() || *score == f32::INFINITY) {
            return Err(Error::Logits {
                step: self.chosen(),
                expected: "numbers",
                found: format!("{} for token {id}", scores[id]),
            });
        }
        no_repeat_ngram::bar(config.no_repeat_ngram_size, &self.history, scores);
        bad_words::bar(&config.bad_words_ids, &config.eos_token_ids, &self.history, scores)?;
        if self.chosen() < config.min_new_tokens {
            bar(&config.eos_token_ids, scores);
        }
        bar(&config.suppress_tokens, scores);
        if self.chosen() == 0 {
            bar(&config.begin_suppress_tokens, scores);
        }
        Ok(())
    }

    /// That no token can be chosen from `scores`.
    pub(super) fn nothing_left(&self, scores: &[f32]) -> Error {
        let found = match scores.len() {
            0 => "no logits at all".to_owned(),
            vocabulary => format!("all {vocabulary} barred"),
        };
        Error::Logits { step: self.chosen(), expected: "a token to choose", found }
    }
}

/// Bars tokens; those outside the vocabulary cannot be chosen anyway.
fn bar(ids: &[u32], scores: &mut [f32]) {
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// Refuses sequences of a setting that have a token outside the vocabulary: such a setting was made for another tokenizer.
fn check_vocabulary<'a>(
    setting: &'static str,
    sequences: impl Iterator<Item = &'a Vec<u32>>,
    vocabulary: usize,
) -> Result<()> {
    match sequences.flatten().find(|&&id| id as usize >= vocabulary) {
        None => Ok(()),
        Some(id) => Err(Error::Generation {
            setting,
            expected: "tokens of the model's vocabulary",
            found: format!("token {id}, where the model knows {vocabulary}"),
        }),
    }
}
