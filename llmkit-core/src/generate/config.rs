use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::beams::MAX_SEQUENCES;
use super::{BeamSearch, Decoding, Dry, Sampling};
use crate::{ChatRequest, Error, Result};

/// How text is generated.
///
/// Serialises as Hugging Face's `generation_config.json` (see [`from_file`](Self::from_file)), so a checkpoint's own file is read
/// and transformers reads ours. The settings are checked where they are used, by [`validate`](Self::validate).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// The longest answer, in tokens, at least 1. Default 256.
    pub max_new_tokens: usize,
    /// Tokens that are not an end token before the answer may end with one. Stop texts end it regardless. Default 0.
    pub min_new_tokens: usize,
    /// Greedy or sampled. Default greedy.
    pub decoding: Decoding,
    /// Makes tokens that stand in the prompt or the answer less likely: their logits are divided by it where positive, multiplied
    /// where negative. Above 0; 1 changes nothing. Default 1.
    pub repetition_penalty: f32,
    /// Each token of the answer loses this much of its logit for every time that it stands in the answer, as at OpenAI. Below 0 it gains.
    /// Default 0.
    pub frequency_penalty: f32,
    /// Each token of the answer loses this much of its logit once, as at OpenAI. Below 0 it gains. Default 0.
    pub presence_penalty: f32,
    /// Makes the continuation of repeated sequences less likely. Default off.
    pub dry: Option<Dry>,
    /// Added to the logit of a sequence's last token where the others have just been read; a sequence of one token is always biased (a
    /// "logit bias"). Finite. Default none.
    pub sequence_bias: BTreeMap<Vec<u32>, f32>,
    /// No sequence of this many tokens appears twice in prompt and answer. 0, the default: they may.
    pub no_repeat_ngram_size: usize,
    /// Token sequences that the answer must not contain. Default none.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Tokens that are never chosen. Default none.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not chosen first. Default none.
    pub begin_suppress_tokens: Vec<u32>,
    /// Reports the log-probability of each chosen token and of this many of the likeliest ones, which may be 0. Default: none at all.
    pub logprobs: Option<usize>,
    /// How many answers, up to 1,024, a prompt gets from [`generate_batch`](super::generate_batch) or [`generate_beams`](super::generate_beams). Default
    /// 1.
    pub num_return_sequences: usize,
    /// Beam search, by [`generate_beams`](super::generate_beams). Default none.
    pub beams: Option<BeamSearch>,
    /// Texts at which the answer ends; they are not part of it. Default none.
    pub stop: Vec<String>,
    /// Tokens that end the answer; they are not part of its text. Default none.
    pub eos_token_ids: Vec<u32>,
    /// Fixes the draws. Default 0: the same prompt gives the same answer until another seed is chosen.
    pub seed: u64,
    /// Fields of a `generation_config.json` that have no meaning here, kept to be written back.
    pub extra: Map<String, Value>,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 256,
            min_new_tokens: 0,
            decoding: Decoding::Greedy,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry: None,
            sequence_bias: BTreeMap::new(),
            no_repeat_ngram_size: 0,
            bad_words_ids: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            logprobs: None,
            num_return_sequences: 1,
            beams: None,
            stop: Vec::new(),
            eos_token_ids: Vec::new(),
            seed: 0,
            extra: Map::new(),
        }
    }
}

impl GenerationConfig {
    /// Greedy, at most 256 tokens, with no end token: those come from the model or from
    /// [`with_eos_token_ids`](Self::with_eos_token_ids).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`max_new_tokens`](Self::max_new_tokens).
    pub fn with_max_new_tokens(mut self, max_new_tokens: usize) -> Self {
        self.max_new_tokens = max_new_tokens;
        self
    }

    /// Sets [`min_new_tokens`](Self::min_new_tokens).
    pub fn with_min_new_tokens(mut self, min_new_tokens: usize) -> Self {
        self.min_new_tokens = min_new_tokens;
        self
    }

    /// Always the likeliest token.
    pub fn with_greedy(mut self) -> Self {
        self.decoding = Decoding::Greedy;
        self
    }

    /// Draws tokens as `sampling` says.
    pub fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.decoding = Decoding::Sample(sampling);
        self
    }

    /// Sets [`repetition_penalty`](Self::repetition_penalty).
    pub fn with_repetition_penalty(mut self, repetition_penalty: f32) -> Self {
        self.repetition_penalty = repetition_penalty;
        self
    }

    /// Sets [`frequency_penalty`](Self::frequency_penalty).
    pub fn with_frequency_penalty(mut self, frequency_penalty: f32) -> Self {
        self.frequency_penalty = frequency_penalty;
        self
    }

    /// Sets [`presence_penalty`](Self::presence_penalty).
    pub fn with_presence_penalty(mut self, presence_penalty: f32) -> Self {
        self.presence_penalty = presence_penalty;
        self
    }

    /// Sets [`dry`](Self::dry).
    pub fn with_dry(mut self, dry: Dry) -> Self {
        self.dry = Some(dry);
        self
    }

    /// Adds a bias for single tokens to [`sequence_bias`](Self::sequence_bias).
    pub fn with_logit_bias(mut self, logit_bias: impl IntoIterator<Item = (u32, f32)>) -> Self {
        self.sequence_bias.extend(logit_bias.into_iter().map(|(id, bias)| (vec![id], bias)));
        self
    }

    /// Adds to [`sequence_bias`](Self::sequence_bias).
    pub fn with_sequence_bias(mut self, sequence_bias: impl IntoIterator<Item = (Vec<u32>, f32)>) -> Self {
        self.sequence_bias.extend(sequence_bias);
        self
    }

    /// Sets [`no_repeat_ngram_size`](Self::no_repeat_ngram_size).
    pub fn with_no_repeat_ngram_size(mut self, no_repeat_ngram_size: usize) -> Self {
        self.no_repeat_ngram_size = no_repeat_ngram_size;
        self
    }

    /// Sets [`bad_words_ids`](Self::bad_words_ids).
    pub fn with_bad_words_ids(mut self, bad_words_ids: impl IntoIterator<Item = Vec<u32>>) -> Self {
        self.bad_words_ids = bad_words_ids.into_iter().collect();
        self
    }

    /// Sets [`suppress_tokens`](Self::suppress_tokens).
    pub fn with_suppress_tokens(mut self, suppress_tokens: impl IntoIterator<Item = u32>) -> Self {
        self.suppress_tokens = suppress_tokens.into_iter().collect();
        self
    }

    /// Sets [`begin_suppress_tokens`](Self::begin_suppress_tokens).
    pub fn with_begin_suppress_tokens(
        mut self,
        begin_suppress_tokens: impl IntoIterator<Item = u32>,
    ) -> Self {
        self.begin_suppress_tokens = begin_suppress_tokens.into_iter().collect();
        self
    }

    /// Sets [`logprobs`](Self::logprobs).
    pub fn with_logprobs(mut self, logprobs: usize) -> Self {
        self.logprobs = Some(logprobs);
        self
    }

    /// Sets [`num_return_sequences`](Self::num_return_sequences).
    pub fn with_num_return_sequences(mut self, num_return_sequences: usize) -> Self {
        self.num_return_sequences = num_return_sequences;
        self
    }

    /// Sets [`beams`](Self::beams).
    pub fn with_beams(mut self, beams: BeamSearch) -> Self {
        self.beams = Some(beams);
        self
    }

    /// Sets [`stop`](Self::stop).
    pub fn with_stop<S: Into<String>>(mut self, stop: impl IntoIterator<Item = S>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`eos_token_ids`](Self::eos_token_ids).
    pub fn with_eos_token_ids(mut self, eos_token_ids: impl IntoIterator<Item = u32>) -> Self {
        self.eos_token_ids = eos_token_ids.into_iter().collect();
        self
    }

    /// Sets [`seed`](Self::seed).
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// These settings, with those that `request` sets in their place.
    ///
    /// A temperature of 0 is greedy, any other samples. `top_p` alone does not turn greedy decoding into sampling. The request's
    /// stop texts come on top of ours, which belong to the model. An answer limit below
    /// [`min_new_tokens`](Self::min_new_tokens) lowers that too.
    pub fn for_request(&self, request: &ChatRequest) -> Self {
        let mut config = self.clone();
        if let Some(max_tokens) = request.max_tokens {
            config.max_new_tokens = max_tokens;
            config.min_new_tokens = config.min_new_tokens.min(max_tokens);
        }
        if let Some(temperature) = request.temperature {
            config.decoding = match config.decoding {
                _ if temperature == 0.0 => Decoding::Greedy,
                Decoding::Greedy => Decoding::Sample(Sampling::new(temperature)),
                Decoding::Sample(sampling) => Decoding::Sample(Sampling { temperature, ..sampling }),
            };
        }
        if let (Some(top_p), Decoding::Sample(sampling)) = (request.top_p, &mut config.decoding) {
            sampling.top_p = Some(top_p);
        }
        for stop in &request.stop {
            if !config.stop.contains(stop) {
                config.stop.push(stop.clone());
            }
        }
        if let Some(seed) = request.seed {
            config.seed = seed;
        }
        config
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Generation`] naming the first one out of range.
    pub fn validate(&self) -> Result<()> {
        if self.max_new_tokens == 0 {
            return Err(Error::Generation {
                setting: "max_new_tokens",
                expected: "at least 1",
                found: "0".into(),
            });
        }
        if self.min_new_tokens > self.max_new_tokens {
            return Err(Error::Generation {
                setting: "min_new_tokens",
                expected: "at most max_new_tokens",
                found: format!("{} with max_new_tokens {}", self.min_new_tokens, self.max_new_tokens),
            });
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return Err(Error::Generation {
                setting: "repetition_penalty",
                expected: "a finite number above 0 (1 changes nothing)",
                found: self.repetition_penalty.to_string(),
            });
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::Generation {
                setting: "stop",
                expected: "texts of at least one character",
                found: "an empty one".into(),
            });
        }
        self.validate_processors()?;
        self.validate_sequences()?;
        match &self.decoding {
            Decoding::Greedy => Ok(()),
            Decoding::Sample(sampling) => sampling.validate(),
        }
    }

    fn validate_processors(&self) -> Result<()> {
        let refuse = |setting, expected, found| Err(Error::Generation { setting, expected, found });
        for (setting, value) in
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)]
        {
            if !value.is_finite() {
                return refuse(setting, "a finite number (0 changes nothing)", value.to_string());
            }
        }
        if let Some((sequence, bias)) =
            self.sequence_bias.iter().find(|(sequence, bias)| sequence.is_empty() || !bias.is_finite())
        {
            let found = format!("{bias} for {sequence:?}");
            return refuse("sequence_bias", "finite numbers for sequences of at least one token", found);
        }
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return refuse("bad_words_ids", "sequences of at least one token", "an empty one".into());
        }
        self.dry.as_ref().map_or(Ok(()), Dry::validate)
    }

    fn validate_sequences(&self) -> Result<()> {
        let refuse = |setting, expected, found| Err(Error::Generation { setting, expected, found });
        let sequences = self.num_return_sequences;
        if !(1..=MAX_SEQUENCES).contains(&sequences) {
            return refuse("num_return_sequences", "from 1 to 1024", sequences.to_string());
        }
        let Some(beams) = &self.beams else {
            if sequences > 1 && self.decoding == Decoding::Greedy {
                let found =
                    format!("{sequences} with greedy decoding, which gives the same answer each time");
                return refuse("num_return_sequences", "1, or sampling, or beams", found);
            }
            return Ok(());
        };
        beams.validate()?;
        if self.decoding != Decoding::Greedy {
            return refuse("num_beams", "greedy decoding with beams", "sampling".into());
        }
        if sequences > beams.num_beams {
            let found = format!("{sequences} with {} beams", beams.num_beams);
            return refuse("num_return_sequences", "at most num_beams", found);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Mirostat;

    fn refused(config: GenerationConfig) -> &'static str {
        match config.validate() {
            Err(Error::Generation { setting, .. }) => setting,
            other => panic!("expected a refusal, found {other:?}"),
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let config = GenerationConfig::new;
        let sampled = |sampling| refused(config().with_sampling(sampling));
        assert_eq!(refused(config().with_frequency_penalty(f32::NAN)), "frequency_penalty");
        assert_eq!(refused(config().with_presence_penalty(f32::INFINITY)), "presence_penalty");
        assert_eq!(refused(config().with_logit_bias([(1, f32::NEG_INFINITY)])), "sequence_bias");
        assert_eq!(refused(config().with_sequence_bias([(vec![], 1.0)])), "sequence_bias");
        assert_eq!(refused(config().with_bad_words_ids([vec![1], vec![]])), "bad_words_ids");
        assert_eq!(refused(config().with_dry(Dry::new(0.0))), "dry_multiplier");
        assert_eq!(refused(config().with_dry(Dry::new(1.0).with_base(0.9))), "dry_base");
        assert_eq!(refused(config().with_dry(Dry::new(1.0).with_last_n(0))), "dry_penalty_last_n");
        assert_eq!(
            refused(config().with_dry(Dry::new(1.0).with_breakers([vec![]]))),
            "dry_sequence_breakers"
        );
        for sequences in [0, usize::MAX] {
            let config = config().with_sampling(Sampling::default()).with_num_return_sequences(sequences);
            assert_eq!(refused(config), "num_return_sequences");
        }
        assert_eq!(refused(config().with_beams(BeamSearch::new(usize::MAX))), "num_beams");
        assert_eq!(refused(config().with_num_return_sequences(2)), "num_return_sequences");
        let beams = config().with_beams(BeamSearch::new(2));
        assert_eq!(refused(beams.clone().with_num_return_sequences(3)), "num_return_sequences");
        assert_eq!(refused(beams.with_sampling(Sampling::default())), "num_beams");
        assert_eq!(refused(config().with_beams(BeamSearch::new(1))), "num_beams");
        assert_eq!(
            refused(config().with_beams(BeamSearch::new(2).with_length_penalty(f32::NAN))),
            "length_penalty"
        );
        for fraction in [0.0, 1.5, f32::NAN] {
            assert_eq!(sampled(Sampling::default().with_typical_p(fraction)), "typical_p");
            assert_eq!(sampled(Sampling::default().with_top_h(fraction)), "top_h");
            assert_eq!(sampled(Sampling::default().with_epsilon_cutoff(fraction)), "epsilon_cutoff");
            assert_eq!(sampled(Sampling::default().with_eta_cutoff(fraction)), "eta_cutoff");
        }
        assert_eq!(sampled(Sampling::default().with_top_n_sigma(0.0)), "top_n_sigma");
        let mirostat = Sampling::default().with_mirostat(Mirostat::default());
        assert_eq!(sampled(mirostat.with_top_k(5)), "mirostat");
        assert_eq!(sampled(Sampling::default().with_mirostat(Mirostat::new(0.0, 0.1))), "mirostat_tau");
        assert_eq!(sampled(Sampling::default().with_mirostat(Mirostat::new(5.0, -0.1))), "mirostat_eta");
        assert_eq!(refused(config().with_max_new_tokens(0)), "max_new_tokens");
        assert_eq!(refused(config().with_min_new_tokens(257)), "min_new_tokens");
        for penalty in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(refused(config().with_repetition_penalty(penalty)), "repetition_penalty");
        }
        assert_eq!(refused(config().with_stop(["end", ""])), "stop");
        for temperature in [0.0, -0.5, f32::NAN, f32::INFINITY] {
            assert_eq!(sampled(Sampling::new(temperature)), "temperature");
        }
        assert_eq!(sampled(Sampling::default().with_top_k(0)), "top_k");
        for top_p in [0.0, 1.01, f32::NAN] {
            assert_eq!(sampled(Sampling::default().with_top_p(top_p)), "top_p");
        }
        for min_p in [-0.1, 1.01, f32::NAN] {
            assert_eq!(sampled(Sampling::default().with_min_p(min_p)), "min_p");
        }
    }

    #[test]
    fn borders_of_the_ranges_are_accepted() {
        let sampling = Sampling::new(1e-3).with_top_k(1).with_top_p(1.0).with_min_p(0.0);
        let config =
            GenerationConfig::new().with_max_new_tokens(1).with_min_new_tokens(1).with_sampling(sampling);
        config.validate().unwrap();
        config.with_sampling(sampling.with_min_p(1.0)).validate().unwrap();
    }

    #[test]
    fn a_request_overrides_what_it_sets_and_nothing_else() {
        let model = GenerationConfig::new()
            .with_sampling(Sampling::new(0.6).with_top_k(20))
            .with_min_new_tokens(10)
            .with_stop(["<end>"])
            .with_eos_token_ids([7]);
        assert_eq!(model.for_request(&ChatRequest::default()), model);

        let request = ChatRequest {
            max_tokens: Some(5),
            temperature: Some(0.9),
            top_p: Some(0.8),
            stop: vec!["\n".into(), "<end>".into()],
            seed: Some(3),
            ..ChatRequest::default()
        };
        let expected = GenerationConfig::new()
            .with_sampling(Sampling::new(0.9).with_top_k(20).with_top_p(0.8))
            .with_max_new_tokens(5)
            .with_min_new_tokens(5)
            .with_stop(["<end>", "\n"])
            .with_eos_token_ids([7])
            .with_seed(3);
        assert_eq!(model.for_request(&request), expected);

        let greedy = ChatRequest { temperature: Some(0.0), ..ChatRequest::default() };
        assert_eq!(model.for_request(&greedy).decoding, Decoding::Greedy);
        let warm = ChatRequest { temperature: Some(0.5), ..ChatRequest::default() };
        let sampled = GenerationConfig::new().for_request(&warm).decoding;
        assert_eq!(sampled, Decoding::Sample(Sampling::new(0.5)));
        let nucleus = ChatRequest { top_p: Some(0.5), ..ChatRequest::default() };
        assert_eq!(GenerationConfig::new().for_request(&nucleus).decoding, Decoding::Greedy);
    }
}
