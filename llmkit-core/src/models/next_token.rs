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
    adapter: &'a dyn Adapter,
    cache: KvCache,
    rows: usize,
}

impl<'a> CachedModel<'a> {
    /// A model that has read nothing; [`NoAdapter`](crate::NoAdapter) stands for the model as it is.
    pub fn new(model: &'a dyn CausalLm, adapter: &'a dyn Adapter) -> Self {
        Self::with_cache(model, adapter, KvCache::new(model.num_blocks()))
    }

    /// A model that has read what `cache` remembers, which must come from the same model and adapter.
    pub fn with_cache(model: &'a dyn CausalLm, adapter: &'a dyn Adapter, cache: KvCache) -> Self {
        let rows = cache.rows().max(1);
        Self { model, adapter, cache, rows }
    }

    /// A model that continues `rows` sequences side by side and has read nothing of them.
    ///
    /// # Panics
    /// If `rows` is 0.
    pub fn with_rows(self, rows: usize) -> Self {
        assert!(rows > 0, "a model continues at least one sequence");
        Self { rows, cache: KvCache::new(self.model.num_blocks()), ..self }
    }

    /// Forgets everything that was read.
    pub fn clear(&mut self) {
        self.cache.clear();
    }

    /// The cache of what was read, to go on with later.
    pub fn into_cache(self) -> KvCache {
        self.cache
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
        let longest = tokens.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        if longest == 0 {
            return Ok(());
        }
        let mut ids = Vec::with_capacity(self.rows * longest);
        for tokens in tokens {
            ids.extend(tokens.iter().map(|id| *id as i32));
            ids.resize(ids.len() + longest - tokens.len(), 0);
        }
        let ids = TensorData::new(ids, [self.rows, longest]);
        let ids = Tensor::<2, Int>::from_data(ids, &self.model.device());
        let counts: Vec<usize> = tokens.iter().map(|tokens| tokens.len()).collect();
        let scores = if counts.iter().all(|count| *count == longest) {
            self.model.forward_cached(ids, &mut self.cache, self.adapter)
        } else {
            self.model.forward_ragged(ids, &counts, &mut self.cache, self.adapter)
        };
        let scores = scores.into_data_as::<f32>();
        let scores = scores.as_slice::<f32>().expect("the scores were just converted to f32");
        let rows = scores.chunks_exact(scores.len() / self.rows);
        for ((scores, logits), count) in rows.zip(logits).zip(counts) {
            if count > 0 {
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
        self.rows = parents.len();
        Ok(())
    }

    fn row_position(&self, row: usize) -> usize {
        self.cache.lens().get(row).copied().unwrap_or(0)
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
    }
}
