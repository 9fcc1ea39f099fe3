use std::fmt;

use super::ConfigReader;
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::generate::PREFILL_CHUNK;

/// Weights and activations are computed in `f32`.
const BYTES: u64 = 4;

/// What a model will take of its device's memory, known from its configuration and the headers of its files before anything is loaded.
///
/// All sizes are in bytes. What the program itself takes (some 10 MiB) comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// The weights, unpacked to `f32`.
    pub weights: u64,
    /// What loading needs beside the weights: one tensor as it comes from the file.
    pub loading: u64,
    /// Keys and values of the sequences that are generated.
    pub kv_cache: u64,
    /// The largest set of intermediate results that exist at once.
    pub activations: u64,
    /// What trains.
    pub adapter: u64,
    /// The gradients of what trains.
    pub gradients: u64,
    /// The optimizer's state.
    pub optimizer: u64,
}

/// The sizes of a transformer that decide how much memory a pass takes, as its `config.json` states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelSizes {
    /// The length of the residual stream's vectors.
    pub hidden: u64,
    /// What the feed-forward network of a block writes between its projections, for one token.
    pub intermediate: u64,
    /// Blocks.
    pub blocks: u64,
    /// The queries of a token in one block.
    pub queries: u64,
    /// The keys of a token in one block; its values are as many.
    pub keys: u64,
    /// Tokens in the vocabulary.
    pub vocab: u64,
}

impl ModelSizes {
    /// Reads the configuration of `checkpoint`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming a size that is missing or impossible.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let config = ConfigReader::new(checkpoint.path(), checkpoint.config());
        let hidden = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        let head_dim = config.size_or("head_dim", (hidden / heads).max(1))?;
        // Each token of a mixture passes through a few of the experts.
        let intermediate = config.size("intermediate_size")?;
        let experts = config.size_or("num_experts_per_tok", 1)?;
        let intermediate = experts * config.size_or("moe_intermediate_size", intermediate)?;
        Ok(Self {
            hidden: hidden as u64,
            intermediate: intermediate as u64,
            blocks: config.size("num_hidden_layers")? as u64,
            queries: (heads * head_dim) as u64,
            keys: (config.size_or("num_key_value_heads", heads)? * head_dim) as u64,
            vocab: config.size("vocab_size")? as u64,
        })
    }

    /// The numbers that one token leaves in a block for its backward pass: the inputs of its norms and projections, queries, keys, values,
    /// what was attended, gate, up, and their product.
    pub fn kept_numbers(&self) -> u64 {
        4 * self.hidden + 2 * self.queries + 2 * self.keys + 3 * self.intermediate
    }

    /// The most numbers of one token that exist at once in a block without a backward pass: the residual stream and its normalised copy,
    /// and either queries, keys, values and what was attended, or gate and up.
    pub fn passing_numbers(&self) -> u64 {
        2 * self.hidden + (2 * self.queries + 2 * self.keys).max(2 * self.intermediate)
    }
}

impl MemoryPlan {
    /// Loading `checkpoint` and generating `rows` sequences side by side, prompt and answer of at most `tokens` each.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming a size that is missing or impossible.
    pub fn generation(checkpoint: &Checkpoint, rows: usize, tokens: usize) -> Result<Self> {
        let sizes = ModelSizes::read(checkpoint)?;
        let (rows, tokens) = (rows as u64, tokens as u64);
        // The cache's room doubles where it is used up; at the end of growing, the smaller buffer of one layer still exists.
        let capacity = tokens.checked_next_power_of_two().unwrap_or(tokens).max(64);
        let layer = product([rows, capacity, 2 * BYTES, sizes.keys]);
        let fed = product([tokens.min(PREFILL_CHUNK as u64), rows, sizes.passing_numbers(), BYTES]);
        Ok(Self {
            kv_cache: product([layer, sizes.blocks]).saturating_add(layer / 2),
            activations: fed.saturating_add(product([2 * BYTES, rows, sizes.vocab])),
            ..Self::weights(checkpoint)
        })
    }

    /// Loading `checkpoint` and nothing else.
    pub fn weights(checkpoint: &Checkpoint) -> Self {
        let source = checkpoint.source();
        let tied = checkpoint.config()["tie_word_embeddings"] == true;
        let sizes = source.names().into_iter().filter(|name| !(tied && name == "lm_head.weight"));
        let sizes = sizes.filter_map(|name| source.info(&name)).map(|info| {
            let numbers = info.shape.iter().fold(1u64, |product, size| product.saturating_mul(*size as u64));
            let stored = match info.dtype.as_str() {
                "F32" => 4,
                "F16" | "BF16" => 2,
                // Packed types take a byte or less.
                _ => 1,
            };
            (numbers.saturating_mul(BYTES), numbers.saturating_mul(stored))
        });
        let (weights, largest) = sizes.fold((0u64, 0u64), |(sum, largest), (unpacked, stored)| {
            (sum.saturating_add(unpacked), largest.max(stored))
        });
        Self {
            weights,
            loading: largest,
            kv_cache: 0,
            activations: 0,
            adapter: 0,
            gradients: 0,
            optimizer: 0,
        }
    }

    /// The highest sum that exists at once: while loading, or later.
    pub fn peak(&self) -> u64 {
        let later = [self.kv_cache, self.activations, self.adapter, self.gradients, self.optimizer];
        let later = later.into_iter().fold(0, u64::saturating_add);
        self.weights.saturating_add(self.loading.max(later))
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("weights", self.weights),
            ("loading", self.loading),
            ("key-value cache", self.kv_cache),
            ("activations", self.activations),
            ("adapter", self.adapter),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
        ];
        for (name, bytes) in rows.into_iter().filter(|(_, bytes)| *bytes > 0) {
            writeln!(formatter, "{name:16} {:>10.1} MiB", mebibytes(bytes))?;
        }
        write!(formatter, "{:16} {:>10.1} MiB", "peak", mebibytes(self.peak()))
    }
}

/// A product that stays at the largest number where it would be larger, as a hostile configuration may want it.
fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
