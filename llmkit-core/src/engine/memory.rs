use std::collections::VecDeque;

use crate::Result;
use crate::generate::NextToken;
use crate::models::CachedModel;
use crate::nn::KvCache;

/// Conversations that were answered, the latest first, with what the model remembers of them.
#[derive(Debug)]
pub(super) struct Memory {
    conversations: VecDeque<Conversation>,
    limit: usize,
}

#[derive(Debug)]
struct Conversation {
    adapter: Option<String>,
    tokens: Vec<u32>,
    cache: KvCache,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Self { conversations: VecDeque::new(), limit }
    }

    /// The cache of the conversation that has the longest beginning in common with `prompt`, cut back to that, and its length; at least
    /// one token of the prompt is left to be read, since its scores are needed.
    pub(super) fn recall(&mut self, adapter: Option<&str>, prompt: &[u32]) -> Option<(KvCache, usize)> {
        let shared = |conversation: &Conversation| {
            let pairs = conversation.tokens.iter().zip(&prompt[..prompt.len() - 1]);
            pairs.take_while(|(a, b)| a == b).count()
        };
        let candidates = self.conversations.iter().enumerate();
        let candidates = candidates.filter(|(_, conversation)| conversation.adapter.as_deref() == adapter);
        let (index, len) = candidates
            .map(|(index, conversation)| (index, shared(conversation)))
            .max_by_key(|(_, len)| *len)?;
        if len == 0 {
            return None;
        }
        let known = &self.conversations[index];
        let forgotten = known.tokens.len() - len;
        // One that goes on takes its cache with it; one that branches off leaves the other as it was.
        let mut cache = match forgotten {
            0 => self.conversations.remove(index)?.cache,
            _ => known.cache.clone(),
        };
        // Counted from the end, since a learned prompt may stand before the first token.
        cache.truncate(0, cache.len() - forgotten);
        Some((cache, len))
    }

    /// Remembers a conversation whose `tokens` the model of `cache` has read.
    pub(super) fn keep(&mut self, adapter: Option<String>, tokens: Vec<u32>, cache: KvCache) {
        if self.limit == 0 || tokens.is_empty() {
            return;
        }
        self.conversations.push_front(Conversation { adapter, tokens, cache });
        self.conversations.truncate(self.limit);
    }
}

/// A model that has read the first tokens of a prompt already, and notes what it reads.
pub(super) struct Reading<'a> {
    model: CachedModel<'a>,
    /// Tokens still to come that the model knows.
    known: usize,
    read: Vec<u32>,
}

impl<'a> Reading<'a> {
    /// The next `known` tokens are those that `model` has read.
    pub(super) fn new(model: CachedModel<'a>, known: usize) -> Self {
        Self { model, known, read: Vec::new() }
    }

    /// The tokens that were read, and the cache of them.
    pub(super) fn finish(self) -> (Vec<u32>, KvCache) {
        (self.read, self.model.into_cache())
    }
}

impl NextToken for Reading<'_> {
    fn feed(&mut self, tokens: &[u32], logits: &mut Vec<f32>) -> Result<()> {
        let known = self.known.min(tokens.len());
        self.known -= known;
        self.read.extend(&tokens[..known]);
        if known < tokens.len() {
            self.model.feed(&tokens[known..], logits)?;
            self.read.extend(&tokens[known..]);
        }
        Ok(())
    }

    fn position(&self) -> usize {
        self.model.position() - self.known
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
    }
}
