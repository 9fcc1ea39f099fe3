use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Example;
use crate::dropout::derive;

/// Examples side by side, padded at the end to the longest.
///
/// Padding needs no mask: attention is causal, so no real token sees it, and it is never learned.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[batch, seq]`
    pub ids: Tensor<2, Int>,
    /// Places whose next token is learned, as `row * seq + column`, in order.
    pub positions: Vec<usize>,
    /// That next token, one for each place.
    pub targets: Vec<u32>,
}

impl Batch {
    /// Puts `examples` side by side on `device`.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(examples: &[&Example], device: &Device) -> Self {
        let seq = examples.iter().map(|example| example.ids.len()).max().expect("a batch has examples");
        let mut ids = Vec::with_capacity(examples.len() * seq);
        let mut positions = Vec::new();
        let mut targets = Vec::new();
        for (row, example) in examples.iter().enumerate() {
            for column in example.prompt_len.max(1)..example.ids.len() {
                positions.push(row * seq + column - 1);
                targets.push(example.ids[column]);
            }
            ids.extend(example.ids.iter().map(|id| *id as i32));
            // Any token will do.
            ids.resize((row + 1) * seq, 0);
        }
        let ids = Tensor::from_data(TensorData::new(ids, [examples.len(), seq]), device);
        Self { ids, positions, targets }
    }

    /// How many tokens are learned.
    pub fn trained_tokens(&self) -> usize {
        self.targets.len()
    }

    /// How many tokens are read, padding included.
    pub fn tokens(&self) -> usize {
        self.ids.dims().iter().product()
    }
}

/// Batches of examples for one epoch, as indices: shuffled by `seed` and `epoch` alone, with examples of like length together so that
/// little is padded.
///
/// Lengths are sorted only within windows of 16 batches, and the batches shuffled again, so that an epoch doesn't run from short to
/// long.
pub fn batch_order(lengths: &[usize], batch_size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    const WINDOW: usize = 16;
    let mut rng = ChaCha8Rng::seed_from_u64(derive(seed, epoch as u64));
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.shuffle(&mut rng);
    for window in order.chunks_mut(batch_size * WINDOW) {
        window.sort_by_key(|index| lengths[*index]);
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[usize]>::to_vec).collect();
    batches.shuffle(&mut rng);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_sees_every_example_once() {
        let lengths: Vec<usize> = (0..103).map(|i| 5 + i * 7 % 50).collect();
        let batches = batch_order(&lengths, 4, 7, 0);
        let mut seen: Vec<usize> = batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..103).collect::<Vec<_>>());
        assert_eq!(batches, batch_order(&lengths, 4, 7, 0));
        assert_ne!(batches, batch_order(&lengths, 4, 7, 1));
        assert_ne!(batches, batch_order(&lengths, 4, 8, 0));
    }
}
