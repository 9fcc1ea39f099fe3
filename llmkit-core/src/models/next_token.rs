use burn::tensor::{Int, Tensor, TensorData};

use super::CausalLm;
use crate::adapter::Adapter;
use crate::generate::NextToken;
use crate::nn::KvCache;
use crate::{Error, Result};

/// A model, an adapter, and a cache of the tokens that they have read: what [`generate`](crate::generate::generate) continues.
#[derive(Clone)]
pub struct CachedModel<'a> {
    model: &'a dyn CausalLm,
    adapter: &'a dyn Adapter,
    cache: KvCache,
    vocab_size: usize,
}

impl<'a> CachedModel<'a> {
    /// A model that has read nothing; [`NoAdapter`](crate::NoAdapter) stands for the model as it is.
    pub fn new(model: &'a dyn CausalLm, adapter: &'a dyn Adapter) -> Self {
        Self { model, adapter, cache: KvCache::new(model.num_blocks()), vocab_size: model.vocab_size() }
    }

    /// Forgets everything that was read.
    pub fn clear(&mut self) {
        self.cache.clear();
    }
}

impl NextToken for CachedModel<'_> {
    fn feed(&mut self, tokens: &[u32], logits: &mut Vec<f32>) -> Result<()> {
        self.check(tokens)?;
        let ids = tokens.iter().map(|id| *id as i32).collect();
        let ids = TensorData::new::<i32, _>(ids, [1, tokens.len()]);
        let ids = Tensor::<2, Int>::from_data(ids, &self.model.device());
        let scores = self.model.forward_cached(ids, &mut self.cache, self.adapter).into_data_as::<f32>();
        logits.clear();
        logits.extend_from_slice(scores.as_slice().expect("the scores were just converted to f32"));
        Ok(())
    }

    fn position(&self) -> usize {
        self.cache.len()
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
    }
}

impl CachedModel<'_> {
    fn check(&self, tokens: &[u32]) -> Result<()> {
        let refuse = |expected, found| Err(Error::Generation { setting: "tokens", expected, found });
        if tokens.is_empty() {
            return refuse("at least one token", "none".to_owned());
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= self.vocab_size) {
            let found = format!("the id {id}, where the model knows {} (does its tokenizer belong to it?)", self.vocab_size);
            return refuse("ids of the model's vocabulary", found);
        }
        let room = self.max_positions().saturating_sub(self.position());
        if tokens.len() > room {
            let found = format!("{} tokens, with room for {room} of {}", tokens.len(), self.max_positions());
            return refuse("no more tokens than the context has room for", found);
        }
        Ok(())
    }
}
