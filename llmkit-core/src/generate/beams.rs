use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::logprobs::log_softmax;
use super::processors::Processors;
use super::stream::check_prompt;
use super::{Generated, GenerationConfig, NextTokens, PREFILL_CHUNK, StopScanner, TextDecoder};
use crate::{Error, FinishReason, Result};

/// The most sequences of one prompt: a settings file must not be able to ask for all memory.
pub(super) const MAX_SEQUENCES: usize = 1024;

/// Takes a sequence out of the running, in a number that leaves other scores apart: transformers' own.
const OUT: f32 = -1.0e9;

/// Beam search: several sequences are continued at once, always the likeliest, and the best of those that ended win.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BeamSearch {
    /// How many sequences are continued, from 2 to 1,024.
    pub num_beams: usize,
    /// A sequence's score is the sum of its log-probabilities divided by its length to this power: above 0 prefers longer answers, below 0
    /// shorter ones. Default 1.
    pub length_penalty: f32,
    /// When the search ends. Default [`EarlyStopping::Heuristic`].
    pub early_stopping: EarlyStopping,
}

/// When beam search ends, besides at the longest answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best unfinished sequence, ended now, would not be among the best finished ones. `false` in transformers, and the default.
    #[default]
    Heuristic,
    /// As soon as as many sequences are finished as there are beams. `true` in transformers.
    WhenFull,
    /// Only when no unfinished sequence can become better than the finished ones. `"never"` in transformers.
    Never,
}

impl BeamSearch {
    /// The defaults with so many beams.
    pub fn new(num_beams: usize) -> Self {
        Self { num_beams, length_penalty: 1.0, early_stopping: EarlyStopping::default() }
    }

    /// Sets [`length_penalty`](Self::length_penalty).
    pub fn with_length_penalty(mut self, length_penalty: f32) -> Self {
        self.length_penalty = length_penalty;
        self
    }

    /// Sets [`early_stopping`](Self::early_stopping).
    pub fn with_early_stopping(mut self, early_stopping: EarlyStopping) -> Self {
        self.early_stopping = early_stopping;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Generation`] naming the first one out of range.
    pub fn validate(&self) -> Result<()> {
        if !(2..=MAX_SEQUENCES).contains(&self.num_beams) {
            return Err(Error::Generation {
                setting: "num_beams",
                expected: "from 2 to 1024 (leave beams unset for one sequence)",
                found: self.num_beams.to_string(),
            });
        }
        if !self.length_penalty.is_finite() {
            return Err(Error::Generation {
                setting: "length_penalty",
                expected: "a finite number",
                found: self.length_penalty.to_string(),
            });
        }
        Ok(())
    }
}

/// An answer that beam search found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Beam {
    /// The answer.
    pub generated: Generated,
    /// The sum of its log-probabilities, after the penalties of the settings, over its length to the power of the length penalty.
    pub score: f32,
}

/// Finds the [`num_return_sequences`](GenerationConfig::num_return_sequences) best answers to `prompt` by beam search, the best first, with
/// the scores and in the order of transformers' `generate`.
///
/// The penalties and bars of the settings act on the log-probabilities. A sequence ends at an end token or a stop text. `next` has one row, and has
/// [`num_beams`](BeamSearch::num_beams) afterwards, whose contents mean nothing to the caller. `on_step` is told how many tokens the beams
/// have, 0 after each part of the prompt that was read; a break ends the search with the answers finished so far, of which there may be
/// none.
///
/// # Errors
/// - [`Error::Generation`] when a setting is out of range, no beams are set, or log-probabilities are asked for, which beam search does not
///   know; when the prompt is empty or does not fit; when `next` has more than one row;
/// - [`Error::Logits`] when the model's output is unusable;
/// - whatever `next` and the decoders report.
pub fn generate_beams<D: TextDecoder>(
    next: &mut dyn NextTokens,
    new_decoder: &mut dyn FnMut() -> D,
    prompt: &[u32],
    config: &GenerationConfig,
    on_step: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<Beam>> {
    let start = Processors::new(config, prompt)?;
    let beams = check(next, config)?;
    check_prompt(prompt, next.row_position(0), next.max_positions())?;
    // The last token is chosen and not fed, so there may be one more than the context has room for.
    let room = next.max_positions() - next.row_position(0) - prompt.len() + 1;
    let mut search = Search::new(beams, config, config.max_new_tokens.min(room), start);

    let mut logits = vec![Vec::new()];
    for part in prompt.chunks(PREFILL_CHUNK) {
        next.feed_rows(&[part], &mut logits)?;
        if on_step(0).is_break() {
            return Ok(Vec::new());
        }
    }
    next.select(&vec![0; beams.num_beams])?;
    let mut logits = vec![logits.swap_remove(0); beams.num_beams];

    // Written anew each time: beams part too often for each to keep a decoder.
    let mut text_of = |ids: &[u32]| text_of(ids, config, new_decoder());
    while let Some(parents) = search.step(&mut logits, &mut text_of)? {
        if on_step(search.length).is_break() {
            break;
        }
        next.select(&parents)?;
        let tokens: Vec<&[u32]> = search.running.iter().map(Running::last).collect();
        next.feed_rows(&tokens, &mut logits)?;
    }
    let best = search.finished.into_iter().filter(|beam| beam.ended).take(config.num_return_sequences);
    best.map(|beam| beam.into_answer(config, prompt.len(), &mut text_of)).collect()
}

/// The text of an answer, up to a stop text, and whether one was found.
fn text_of<D: TextDecoder>(ids: &[u32], config: &GenerationConfig, mut decoder: D) -> Result<(String, bool)> {
    let mut scanner = StopScanner::new(&config.stop);
    let mut text = String::new();
    for id in ids.iter().filter(|id| !config.eos_token_ids.contains(id)) {
        text += &scanner.push(&decoder.step(*id)?.unwrap_or_default());
    }
    text += &scanner.push(&decoder.finish()?.unwrap_or_default());
    text += &scanner.finish();
    Ok((text, scanner.found().is_some()))
}

/// See [`text_of`].
type TextOf<'a> = &'a mut dyn FnMut(&[u32]) -> Result<(String, bool)>;

fn check<'a>(next: &dyn NextTokens, config: &'a GenerationConfig) -> Result<&'a BeamSearch> {
    let refuse = |setting, expected, found| Err(Error::Generation { setting, expected, found });
    let Some(beams) = &config.beams else {
        return refuse("num_beams", "beams", "none set".to_owned());
    };
    if config.logprobs.is_some() {
        return refuse(
            "logprobs",
            "no log-probabilities in beam search (beams have scores)",
            "some".to_owned(),
        );
    }
    if next.rows() != 1 {
        return refuse("beams", "a model of one row", format!("{} rows", next.rows()));
    }
    Ok(beams)
}

/// A sequence that goes on.
#[derive(Debug, Clone)]
struct Running {
    processors: Processors,
    sum: f32,
}

impl Running {
    fn last(&self) -> &[u32] {
        let answer = self.processors.answer();
        &answer[answer.len().saturating_sub(1)..]
    }
}

/// A sequence that may be an answer.
#[derive(Debug, Clone)]
struct Finished {
    ids: Vec<u32>,
    score: f32,
    /// Not so for a sequence that only holds a place.
    ended: bool,
}

impl Finished {
    fn into_answer(
        self,
        config: &GenerationConfig,
        prompt_tokens: usize,
        text_of: TextOf<'_>,
    ) -> Result<Beam> {
        let (text, stopped) = text_of(&self.ids)?;
        let ended = self.ids.last().is_some_and(|id| config.eos_token_ids.contains(id));
        let finish_reason = if ended || stopped { FinishReason::Stop } else { FinishReason::Length };
        let generated = Generated { ids: self.ids, text, finish_reason, prompt_tokens, logprobs: Vec::new() };
        Ok(Beam { generated, score: self.score })
    }
}

/// A token that continues a beam.
#[derive(Debug, Clone, Copy)]
struct Continuation {
    beam: usize,
    id: u32,
    sum: f32,
    /// It is the last of its sequence.
    ends: bool,
}

impl Continuation {
    fn better(&self, other: &Self) -> Ordering {
        by_score(self.sum, other.sum).then((self.beam, self.id).cmp(&(other.beam, other.id)))
    }
}

/// The greater score first.
fn by_score(one: f32, other: f32) -> Ordering {
    other.total_cmp(&one)
}

/// The best `kept` of them, the best first.
fn best(mut all: Vec<Continuation>, kept: usize) -> Vec<Continuation> {
    if kept < all.len() {
        all.select_nth_unstable_by(kept, Continuation::better);
        all.truncate(kept);
    }
    all.sort_unstable_by(Continuation::better);
    all
}

/// The state of transformers' `_beam_search` for one prompt; sums and scores are f32 as there.
struct Search<'a> {
    beams: &'a BeamSearch,
    config: &'a GenerationConfig,
    max_length: usize,
    /// Tokens of the answers so far.
    length: usize,
    running: Vec<Running>,
    /// As many as beams, the best first.
    finished: Vec<Finished>,
    can_improve: bool,
}

impl<'a> Search<'a> {
    fn new(
        beams: &'a BeamSearch,
        config: &'a GenerationConfig,
        max_length: usize,
        start: Processors,
    ) -> Self {
        // Only the first beam counts at first, lest all find the same.
        let sums = (0..beams.num_beams).map(|beam| if beam == 0 { 0.0 } else { OUT });
        Self {
            beams,
            config,
            max_length,
            length: 0,
            running: sums.map(|sum| Running { processors: start.clone(), sum }).collect(),
            finished: vec![Finished { ids: Vec::new(), score: OUT, ended: false }; beams.num_beams],
            can_improve: true,
        }
    }

    /// Continues every beam by a token; which beam each of the new ones continues, or nothing when the search is over.
    fn step(&mut self, logits: &mut [Vec<f32>], text_of: TextOf<'_>) -> Result<Option<Vec<usize>>> {
        let mut best = self.continuations(logits)?;
        self.stop_at_texts(&mut best, text_of)?;
        self.length += 1;
        let (parents, running) = self.run_on(&best);
        self.finish(&best);
        self.running = running;
        self.can_improve &= self.may_improve();
        let going = self.can_improve && !self.is_full() && !best.iter().all(|one| one.ends);
        Ok(going.then_some(parents))
    }

    /// The best continuations of all beams, the best first: so many that even if every end token is among each beam's, enough go on.
    fn continuations(&self, logits: &mut [Vec<f32>]) -> Result<Vec<Continuation>> {
        let kept = (1 + self.config.eos_token_ids.len()).max(2) * self.beams.num_beams;
        let mut all = Vec::new();
        for (beam, (running, scores)) in self.running.iter().zip(logits.iter_mut()).enumerate() {
            log_softmax(scores);
            running.processors.apply(scores)?;
            let continuations = (0..).zip(scores.iter()).map(|(id, score)| Continuation {
                beam,
                id,
                sum: score + running.sum,
                ends: self.length + 1 >= self.max_length || self.config.eos_token_ids.contains(&id),
            });
            // What is not among the best of its own beam is not among the best of all.
            all.extend(best(continuations.collect(), kept));
        }
        let all = best(all, kept);
        match all.first() {
            Some(best) if best.sum > f32::NEG_INFINITY => Ok(all),
            _ => Err(self.running[0].processors.nothing_left(&logits[0])),
        }
    }

    /// Marks those that end with a stop text. A sequence that had one before is not continued.
    fn stop_at_texts(&self, best: &mut [Continuation], text_of: TextOf<'_>) -> Result<()> {
        if self.config.stop.is_empty() {
            return Ok(());
        }
        for one in best.iter_mut().filter(|one| !one.ends) {
            one.ends = text_of(&self.answer(one))?.1;
        }
        Ok(())
    }

    /// The tokens of a beam and the one that continues it.
    fn answer(&self, one: &Continuation) -> Vec<u32> {
        let mut ids = self.running[one.beam].processors.answer().to_vec();
        ids.push(one.id);
        ids
    }

    /// The beams of the next step, each with the one that it continues.
    fn run_on(&self, best: &[Continuation]) -> (Vec<usize>, Vec<Running>) {
        let mut going: Vec<Continuation> = best
            .iter()
            .map(|one| Continuation { sum: if one.ends { one.sum + OUT } else { one.sum }, ..*one })
            .collect();
        // Stable: of sums alike the one that was better stays so.
        going.sort_by(|one, other| by_score(one.sum, other.sum));
        going.truncate(self.beams.num_beams);
        going
            .into_iter()
            .map(|one| {
                let mut processors = self.running[one.beam].processors.clone();
                processors.observe(one.id);
                (one.beam, Running { processors, sum: one.sum })
            })
            .unzip()
    }

    /// Puts the continuations that end, if they are good enough, among the finished.
    fn finish(&mut self, best: &[Continuation]) {
        let full = self.is_full();
        for (rank, one) in best.iter().enumerate() {
            let ended = one.ends && rank < self.beams.num_beams;
            let mut score = self.normalised(one.sum, self.length);
            for bar in [full, !self.can_improve, !ended] {
                score += if bar { OUT } else { 0.0 };
            }
            self.finished.push(Finished { ids: self.answer(one), score, ended });
        }
        self.finished.sort_by(|one, other| by_score(one.score, other.score));
        self.finished.truncate(self.beams.num_beams);
    }

    /// Whether there are as many answers as beams, and that is enough.
    fn is_full(&self) -> bool {
        self.beams.early_stopping == EarlyStopping::WhenFull && self.finished.iter().all(|beam| beam.ended)
    }

    /// Whether the best running beam may still become better than the worst finished one.
    fn may_improve(&self) -> bool {
        let longest = self.beams.early_stopping == EarlyStopping::Never && self.beams.length_penalty > 0.0;
        let length = if longest { self.max_length } else { self.length };
        let best = self.normalised(self.running[0].sum, length);
        let worst = self.finished.iter().fold(f32::INFINITY, |worst, beam| worst.min(beam.score));
        self.finished.iter().any(|beam| best > if beam.ended { worst } else { OUT })
    }

    fn normalised(&self, sum: f32, length: usize) -> f32 {
        sum / (length as f64).powf(f64::from(self.beams.length_penalty)) as f32
    }
}
