use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use super::CausalLm;
use crate::adapter::Adapter;
use crate::generate::{NextToken, NextTokens};
use crate::nn::KvCache;
use crate::{Error, Result};

/// A model, an adapter, and a cache of the tokens that they have read: what [`generate`](crate::generate::generate) continues.
///
/// It holds one sequence, or several side by side ([`with_rows`](Self::with_rows)).
#[derive(Clone)]
pub struct CachedModel<'a> {
    model: &'a dyn CausalLm,
    adapter: Acting<'a>,
    cache: KvCache,
    rows: usize,
    /// The tokens of each row, kept only for models that must read them again.
    read: Vec<Vec<u32>>,
    /// Whether `read` is everything: not where a cache came from elsewhere.
    read_all: bool,
}

/// The adapter that was given, or what it became when rows ended or branched.
#[derive(Clone)]
enum Acting<'a> {
    Given(&'a dyn Adapter),
    Selected(Arc<dyn Adapter>),
}

impl Acting<'_> {
    fn get(&self) -> &dyn Adapter {
        match self {
            Self::Given(adapter) => *adapter,
            Self::Selected(adapter) => adapter.as_ref(),
        }
    }
}

impl<'a> CachedModel<'a> {
    /// A model that has read nothing; [`NoAdapter`](crate::NoAdapter) stands for the model as it is.
    pub fn new(model: &'a dyn CausalLm, adapter: &'a dyn Adapter) -> Self {
        Self::with_cache(model, adapter, KvCache::new(model.num_blocks()))
    }

    /// A model that has read what `cache` remembers, which must come from the same model and adapter.
    pub fn with_cache(model: &'a dyn CausalLm, adapter: &'a dyn Adapter, cache: KvCache) -> Self {
        let rows = cache.rows().max(1);
        let read_all = cache.rows() == 0;
        Self { model, adapter: Acting::Given(adapter), cache, rows, read: vec![Vec::new(); rows], read_all }
    }

    /// A model that continues `rows` sequences side by side and has read nothing of them. An adapter that treats rows differently must be
    /// for as many.
    ///
    /// # Panics
    /// If `rows` is 0.
    pub fn with_rows(self, rows: usize) -> Self {
        assert!(rows > 0, "a model continues at least one sequence");
        let cache = KvCache::new(self.model.num_blocks());
        Self { rows, cache, read: vec![Vec::new(); rows], read_all: true, ..self }
    }

    /// Forgets everything that was read.
    pub fn clear(&mut self) {
        self.cache.clear();
        self.read.iter_mut().for_each(Vec::clear);
        self.read_all = true;
    }

    /// The cache of what was read, to go on with later.
    pub fn into_cache(self) -> KvCache {
        self.cache
    }

    /// Remembers `tokens` if the model may have to read them again, and says whether it must do so now: some row grows beyond the length
    /// at which the model begins to compute it differently.
    fn remember(&mut self, tokens: &[&[u32]]) -> Result<bool> {
        let Some(at) = self.model.switches_at() else { return Ok(false) };
        let lens = self.cache.lens();
        let grows = |(&len, tokens): (&usize, &&[u32])| (1..=at).contains(&len) && len + tokens.len() > at;
        let switches = lens.iter().zip(tokens).any(grows);
        if switches && !self.read_all {
            return Err(Error::Generation {
                setting: "tokens",
                expected: "a sequence whose first tokens are known, so that the model can read them anew beyond this length",
                found: format!("a cache from elsewhere that grows beyond {at} tokens"),
            });
        }
        self.read.iter_mut().zip(tokens).for_each(|(read, tokens)| read.extend_from_slice(tokens));
        Ok(switches)
    }

    /// Reads tokens by [`CausalLm::forward_cached`] or, where rows get different numbers of them, [`CausalLm::forward_ragged`].
    ///
    /// # Shapes
    /// `[rows, 1, vocab]`
    fn read(&mut self, tokens: &[&[u32]]) -> Tensor<3> {
        let longest = tokens.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(self.rows * longest);
        for tokens in tokens {
            ids.extend(tokens.iter().map(|id| *id as i32));
            ids.resize(ids.len() + longest - tokens.len(), 0);
        }
        let ids = TensorData::new(ids, [self.rows, longest]);
        let ids = Tensor::<2, Int>::from_data(ids, &self.model.device());
        let counts: Vec<usize> = tokens.iter().map(|tokens| tokens.len()).collect();
        if counts.iter().all(|count| *count == longest) {
            self.model.forward_cached(ids, &mut self.cache, self.adapter.get())
        } else {
            self.model.forward_ragged(ids, &counts, &mut self.cache, self.adapter.get())
        }
    }

    fn check(&self, row: usize, tokens: &[u32]) -> Result<()> {
        let refuse = |expected, found| Err(Error::Generation { setting: "tokens", expected, found });
        let known = self.model.vocab_size();
        if let Some(id) = tokens.iter().find(|id| **id as usize >= known) {
            let found =
                format!("the id {id}, where the model knows {known} (does its tokenizer belong to it?)");
            return refuse("ids of the model's vocabulary", found);
        }
        let limit = self.model.max_positions();
        let room = limit.saturating_sub(self.row_position(row));
        if tokens.len() > room {
            let found = format!("{} tokens, with room for {room} of {limit}", tokens.len());
            return refuse("no more tokens than the context has room for", found);
        }
        Ok(())
    }
}

impl NextToken for CachedModel<'_> {
    fn feed(&mut self, tokens: &[u32], logits: &mut Vec<f32>) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::Generation {
                setting: "tokens",
                expected: "at least one token",
                found: "none".to_owned(),
            });
        }
        self.feed_rows(&[tokens], std::slice::from_mut(logits))
    }

    fn position(&self) -> usize {
        self.row_position(0)
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
    }
}

impl NextTokens for CachedModel<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn feed_rows(&mut self, tokens: &[&[u32]], logits: &mut [Vec<f32>]) -> Result<()> {
        assert_eq!((tokens.len(), logits.len()), (self.rows, self.rows), "tokens and logits for each row");
        for (row, tokens) in tokens.iter().enumerate() {
            self.check(row, tokens)?;
        }
        if tokens.iter().all(|tokens| tokens.is_empty()) {
            return Ok(());
        }
        let scores = if self.remember(tokens)? {
            self.cache.clear();
            let all = self.read.clone();
            self.read(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())
        } else {
            self.read(tokens)
        };
        let scores = scores.into_data_as::<f32>();
        let scores = scores.as_slice::<f32>().expect("the scores were just converted to f32");
        let rows = scores.chunks_exact(scores.len() / self.rows);
        for ((scores, logits), tokens) in rows.zip(logits).zip(tokens) {
            if !tokens.is_empty() {
                logits.clear();
                logits.extend_from_slice(scores);
            }
        }
        Ok(())
    }

    fn select(&mut self, parents: &[usize]) -> Result<()> {
        if parents.is_empty() || parents.iter().any(|parent| *parent >= self.rows) {
            return Err(Error::Generation {
                setting: "parents",
                expected: "at least one row, and only rows that there are",
                found: format!("{parents:?} of {}", self.rows),
            });
        }
        if self.cache.rows() > 0 {
            self.cache.select(parents);
        }
        if let Some(selected) = self.adapter.get().select(parents) {
            self.adapter = Acting::Selected(selected);
        }
        self.read = parents.iter().map(|parent| self.read[*parent].clone()).collect();
        self.rows = parents.len();
        Ok(())
    }

    fn row_position(&self, row: usize) -> usize {
        // What an adapter puts before the first token takes room as tokens do.
        let learned = || self.adapter.get().prefix_len() + self.adapter.get().prompt_len();
        self.cache.lens().get(row).copied().unwrap_or_else(learned)
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
    }
}
