use std::ops::ControlFlow;

use super::answer::Answer;
use super::stream::{check_prompt, refuse_beams};
use super::{Event, Generated, GenerationConfig, NextTokens, PREFILL_CHUNK, TextDecoder};
use crate::{Error, Result};

/// A prompt and how it is answered.
#[derive(Debug, Clone, Copy)]
pub struct BatchRequest<'a> {
    /// The tokens of the prompt.
    pub prompt: &'a [u32],
    /// How it is answered, and by [`num_return_sequences`](GenerationConfig::num_return_sequences) how often. The second answer
    /// draws with the seed plus 1, and so on.
    pub config: &'a GenerationConfig,
}

/// A row of the model: which request it reads, and which answer it writes.
#[derive(Debug, Clone, Copy)]
struct Row {
    request: usize,
    answer: usize,
}

/// Answers all `requests` side by side; each answer is the one that [`generate`](super::generate) would give it alone.
///
/// `next` has one row for each request, or one row, which is copied for each: what it was fed so far (a common beginning of all prompts, say)
/// is then read once. A prompt with several answers is read once as well. Rows whose answers are over are dropped, so `next` ends with the
/// rows of those that finish last.
///
/// `on_event` is told which answer an event belongs to. Answers are counted from 0 in the order of the requests, those of one request side
/// by side, which is the order of the result too; a prompt's [`Event::Prefill`] goes to its first answer. A break ends that answer with
/// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled), or at a prefill all answers of the request, and the others go on.
///
/// # Errors
/// - [`Error::Generation`] when a setting is out of range or asks for beams, a prompt is empty or longer than the room left in the context, or
///   `next` has another number of rows;
/// - [`Error::Logits`] when the model's output is unusable;
/// - whatever `next` and the decoders report.
pub fn generate_batch<D: TextDecoder>(
    next: &mut dyn NextTokens,
    requests: &[BatchRequest<'_>],
    new_decoder: &mut dyn FnMut() -> D,
    on_event: &mut dyn FnMut(usize, Event) -> ControlFlow<()>,
) -> Result<Vec<Generated>> {
    let mut answers = Vec::new();
    let mut rows = Vec::new();
    for (request, &BatchRequest { prompt, config }) in requests.iter().enumerate() {
        refuse_beams(config)?;
        rows.push(Row { request, answer: answers.len() });
        config.validate()?;
        for sequence in 0..config.num_return_sequences {
            let seed = config.seed.wrapping_add(sequence as u64);
            answers.push(Answer::new(config, prompt, seed, new_decoder())?);
        }
    }
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    if next.rows() != requests.len() && next.rows() != 1 {
        return Err(Error::Generation {
            setting: "requests",
            expected: "one for each row of the model, or a model of one row",
            found: format!("{} requests for {} rows", requests.len(), next.rows()),
        });
    }
    let row_of = |request: usize| if next.rows() == 1 { 0 } else { request };
    for (request, BatchRequest { prompt, .. }) in requests.iter().enumerate() {
        check_prompt(prompt, next.row_position(row_of(request)), next.max_positions())?;
    }
    if next.rows() != requests.len() {
        next.select(&vec![0; requests.len()])?;
    }

    let mut batch = Batch { next, logits: vec![Vec::new(); rows.len()], rows };
    batch.read_prompts(requests, on_event)?;
    batch.split_sequences(requests)?;
    while !batch.rows.is_empty() {
        let mut going = Vec::new();
        for row in 0..batch.rows.len() {
            let full = batch.next.row_position(row) >= batch.next.max_positions();
            let index = batch.rows[row].answer;
            let event = answers[index].choose(&mut batch.logits[row], full, None)?;
            let flow = on_event(index, event);
            if !answers[index].is_over() && flow.is_continue() {
                going.push(row);
            }
        }
        batch.keep(&going)?;
        let chosen: Vec<&[u32]> = batch
            .rows
            .iter()
            .map(|row| answers[row.answer].last().map_or(&[][..], std::slice::from_ref))
            .collect();
        if !chosen.is_empty() {
            batch.next.feed_rows(&chosen, &mut batch.logits)?;
        }
    }
    Ok(answers.into_iter().map(Answer::into_generated).collect())
}

/// The rows that are still at work, each with its logits.
struct Batch<'a> {
    next: &'a mut dyn NextTokens,
    rows: Vec<Row>,
    logits: Vec<Vec<f32>>,
}

impl Batch<'_> {
    /// Feeds every row its prompt, in parts that bound the memory: at most [`PREFILL_CHUNK`] places in all rows together (and one in each),
    /// as a row that rests may take as much room as one that reads.
    fn read_prompts(
        &mut self,
        requests: &[BatchRequest<'_>],
        on_event: &mut dyn FnMut(usize, Event) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut fed = vec![0; requests.len()];
        loop {
            let mut unread =
                self.rows.iter().map(|row| requests[row.request].prompt.len() - fed[row.request]);
            if unread.all(|tokens| tokens == 0) {
                return Ok(());
            }
            let most = (PREFILL_CHUNK / self.rows.len()).max(1);
            let parts: Vec<&[u32]> = self
                .rows
                .iter()
                .map(|row| {
                    let rest = &requests[row.request].prompt[fed[row.request]..];
                    &rest[..most.min(rest.len())]
                })
                .collect();
            self.next.feed_rows(&parts, &mut self.logits)?;
            let mut going = Vec::new();
            for (index, (row, part)) in self.rows.iter().zip(parts).enumerate() {
                fed[row.request] += part.len();
                let event =
                    Event::Prefill { fed: fed[row.request], total: requests[row.request].prompt.len() };
                if part.is_empty() || on_event(row.answer, event).is_continue() {
                    going.push(index);
                }
            }
            self.keep(&going)?;
        }
    }

    /// Copies the row of each request for every answer that it gets.
    fn split_sequences(&mut self, requests: &[BatchRequest<'_>]) -> Result<()> {
        let mut parents = Vec::new();
        let mut rows = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            for sequence in 0..requests[row.request].config.num_return_sequences {
                parents.push(index);
                rows.push(Row { request: row.request, answer: row.answer + sequence });
            }
        }
        if parents.len() > self.rows.len() {
            self.next.select(&parents)?;
            self.logits = parents.iter().map(|&parent| self.logits[parent].clone()).collect();
            self.rows = rows;
        }
        Ok(())
    }

    /// Drops all rows but these, which are in ascending order. The last ones stay where none would be left: a model has at least one row.
    fn keep(&mut self, rows: &[usize]) -> Result<()> {
        if rows.len() == self.rows.len() {
            return Ok(());
        }
        if !rows.is_empty() {
            self.next.select(rows)?;
        }
        self.rows = rows.iter().map(|&row| self.rows[row]).collect();
        self.logits = rows.iter().map(|&row| std::mem::take(&mut self.logits[row])).collect();
        Ok(())
    }
}
