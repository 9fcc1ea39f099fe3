use std::collections::VecDeque;

use serde_json::Value;

use super::adapters::AdapterId;
use crate::Result;
use crate::generate::NextToken;
use crate::models::CachedModel;
use crate::nn::KvCache;

/// Conversations that were answered, the latest first, with what the model remembers of them.
#[derive(Debug)]
pub(super) struct Memory {
    conversations: VecDeque<Conversation>,
    limit: usize,
    /// Sequences longer than this are neither kept nor continued.
    longest: usize,
}

#[derive(Debug)]
struct Conversation {
    adapter: Option<AdapterId>,
    tokens: Vec<u32>,
    cache: KvCache,
}

impl Memory {
    /// Room for `limit` conversations with the model of `config`.
    pub(super) fn new(limit: usize, config: &Value) -> Self {
        Self { conversations: VecDeque::new(), limit, longest: reusable_length(config) }
    }

    /// The cache of the conversation that has the longest beginning in common with `prompt`, cut back to that, and its length; at least
    /// one token of the prompt is left to be read, since its scores are needed. `new_tokens` may follow the prompt.
    pub(super) fn recall(
        &mut self,
        adapter: Option<AdapterId>,
        prompt: &[u32],
        new_tokens: usize,
    ) -> Option<(KvCache, usize)> {
        let (_, needed) = prompt.split_last()?;
        let shared =
            |known: &Conversation| known.tokens.iter().zip(needed).take_while(|(a, b)| a == b).count();
        let total = prompt.len().saturating_add(new_tokens);
        let candidates = self.conversations.iter().enumerate();
        let (index, len) = candidates
            .filter(|(_, known)| known.adapter == adapter)
            .filter(|(_, known)| total.saturating_add(known.learned()) <= self.longest)
            .map(|(index, known)| (index, shared(known)))
            .filter(|(_, len)| *len > 0)
            .max_by_key(|(_, len)| *len)?;
        let known = self.conversations.remove(index)?;
        if known.tokens.len() == len {
            // It goes on, and takes its cache with it.
            return Some((known.cache, len));
        }
        // It branches off, and leaves the other as it was, which is now the latest used.
        let beginning = known.cache.beginning(0, known.learned() + len);
        self.conversations.push_front(known);
        Some((beginning, len))
    }

    /// Forgets the conversations that were not used for longest, so that another can be held within the limit.
    pub(super) fn make_room(&mut self) {
        self.conversations.truncate(self.limit.saturating_sub(1));
    }

    /// Remembers a conversation whose `tokens` the model of `cache` has read.
    pub(super) fn keep(&mut self, adapter: Option<AdapterId>, tokens: Vec<u32>, cache: KvCache) {
        if self.limit == 0 || tokens.is_empty() || cache.len() > self.longest {
            return;
        }
        // What it contains need not be remembered twice.
        self.conversations.retain(|known| known.adapter != adapter || !tokens.starts_with(&known.tokens));
        self.conversations.push_front(Conversation { adapter, tokens, cache });
        self.conversations.truncate(self.limit);
    }

    /// Forgets every conversation with the adapter `id`.
    pub(super) fn forget(&mut self, id: AdapterId) {
        self.conversations.retain(|known| known.adapter != Some(id));
    }
}

impl Conversation {
    /// Positions that stand before the first token, as prompt tuning learns them.
    fn learned(&self) -> usize {
        self.cache.len() - self.tokens.len()
    }
}

/// The length in tokens up to which what a model remembers of a token doesn't depend on how many come after it. Rotations that change
/// with the length of the sequence (LongRoPE, dynamic NTK) are the same only up to the length of pre-training.
fn reusable_length(config: &Value) -> usize {
    let scaling = ["rope_parameters", "rope_scaling"].map(|field| &config[field]);
    // Models with several kinds of layers have one entry for each.
    let nested = scaling.iter().filter_map(|scaling| scaling.as_object()).flat_map(|fields| fields.values());
    let lengths = scaling.into_iter().chain(nested).filter_map(|scaling| {
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"))?.as_str()?;
        let original = || {
            let field = "original_max_position_embeddings";
            scaling.get(field).or_else(|| config.get(field)).and_then(Value::as_u64)
        };
        let length = match kind {
            "longrope" | "su" => original(),
            "dynamic" => original().or_else(|| config["max_position_embeddings"].as_u64()),
            _ => return None,
        };
        // A length that nobody states is never relied upon.
        Some(length.map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX)))
    });
    lengths.min().unwrap_or(usize::MAX)
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use serde_json::json;

    use super::*;
    use crate::nn::KeyValue;

    /// A cache of positions whose keys and values are their numbers, `learned` of them before the first token.
    fn cache(learned: usize, tokens: usize) -> KvCache {
        let len = learned + tokens;
        let numbers: Vec<f32> = (0..len).map(|number| number as f32).collect();
        let key = Tensor::<1>::from_floats(numbers.as_slice(), &Device::flex()).reshape([1, len, 1, 1]);
        let mut cache = KvCache::new(1);
        cache.layer(0).append(KeyValue { key: key.clone(), value: -key }, None);
        cache.advance(1, len, None);
        cache
    }

    fn kept(memory: &Memory) -> Vec<Vec<u32>> {
        memory.conversations.iter().map(|known| known.tokens.clone()).collect()
    }

    #[test]
    fn the_longest_common_beginning_is_recalled_and_a_branch_leaves_the_other() {
        let mut memory = Memory::new(3, &json!({}));
        memory.keep(None, vec![1, 2, 3, 4], cache(2, 4));
        memory.keep(None, vec![1, 2, 9], cache(0, 3));
        memory.keep(Some(AdapterId::new(1)), vec![1, 2, 3, 4, 5], cache(0, 5));
        assert!(memory.recall(None, &[7, 8], 10).is_none());
        assert!(memory.recall(None, &[1], 10).is_none(), "one token must be left to read");
        let (mut branch, len) = memory.recall(None, &[1, 2, 3, 8], 10).unwrap();
        assert_eq!((len, branch.len()), (3, 5));
        let next = Tensor::<4>::full([1, 1, 1, 1], 100.0, &Device::flex());
        let (seen, _) = branch.layer(0).append(KeyValue { key: next.clone(), value: -next }, None);
        assert_eq!(seen.key.into_data().try_to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 100.0]);
        assert_eq!(
            seen.value.into_data().try_to_vec::<f32>().unwrap(),
            [0.0, -1.0, -2.0, -3.0, -4.0, -100.0]
        );
        // Untouched, and now the latest.
        assert_eq!(kept(&memory)[0], [1, 2, 3, 4]);
        let (whole, len) = memory.recall(None, &[1, 2, 3, 4, 5], 10).unwrap();
        assert_eq!((len, whole.len()), (4, 6));
        assert_eq!(kept(&memory), [vec![1, 2, 3, 4, 5], vec![1, 2, 9]]);
    }

    #[test]
    fn what_is_contained_in_another_conversation_is_not_kept_beside_it() {
        let mut memory = Memory::new(2, &json!({}));
        memory.keep(None, vec![5], cache(0, 1));
        for tokens in [vec![1, 2], vec![1, 2], vec![1, 2, 3]] {
            let len = tokens.len();
            memory.keep(None, tokens, cache(0, len));
        }
        assert_eq!(kept(&memory), [vec![1, 2, 3], vec![5]]);
        memory.make_room();
        assert_eq!(kept(&memory), [vec![1, 2, 3]]);
        memory.keep(Some(AdapterId::new(1)), vec![1, 2, 3, 4], cache(0, 4));
        memory.keep(None, vec![6], cache(0, 1));
        assert_eq!(kept(&memory), [vec![6], vec![1, 2, 3, 4]]);
        memory.forget(AdapterId::new(2));
        assert_eq!(kept(&memory), [vec![6], vec![1, 2, 3, 4]]);
        memory.forget(AdapterId::new(1));
        assert_eq!(kept(&memory), [vec![6]]);
        let mut none = Memory::new(0, &json!({}));
        none.keep(None, vec![1], cache(0, 1));
        assert!(kept(&none).is_empty());
    }

    #[test]
    fn keys_that_depend_on_the_sequence_s_length_are_not_reused_beyond_pre_training() {
        assert_eq!(
            reusable_length(&json!({ "rope_scaling": { "type": "linear", "factor": 2.0 } })),
            usize::MAX
        );
        let phi = json!({ "rope_scaling": { "type": "longrope" }, "original_max_position_embeddings": 8 });
        assert_eq!(reusable_length(&phi), 8);
        let dynamic = json!({ "rope_scaling": { "rope_type": "dynamic" }, "max_position_embeddings": 9 });
        assert_eq!(reusable_length(&dynamic), 9);
        let layers = json!({ "rope_parameters": {
            "full_attention": { "rope_type": "longrope", "original_max_position_embeddings": 7 },
            "sliding_attention": { "rope_type": "default" },
        } });
        assert_eq!(reusable_length(&layers), 7);
        assert_eq!(reusable_length(&json!({ "rope_parameters": { "rope_type": "longrope" } })), 0);

        let mut memory = Memory::new(2, &phi);
        memory.keep(None, (0..9).collect(), cache(0, 9));
        assert!(kept(&memory).is_empty());
        memory.keep(None, vec![1, 2, 3], cache(1, 3));
        assert!(memory.recall(None, &[1, 2, 3, 4], 4).is_none());
        assert_eq!(memory.recall(None, &[1, 2, 3, 4], 3).unwrap().1, 3);
    }
}
