use burn::tensor::{Tensor, TensorData};

/// Dropout whose choices can be made again.
///
/// The choice depends on the key and the element's place alone, so that recomputing a block, resuming a run, or running on another
/// device drops the same elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    probability: f64,
    key: u64,
}

impl Dropout {
    /// Drops with `probability`, in [0, 1); `key` fixes what.
    pub fn new(probability: f64, key: u64) -> Self {
        Self { probability, key }
    }

    /// Other choices for each `part`.
    pub fn derive(self, part: u64) -> Self {
        Self { key: derive(self.key, part), ..self }
    }

    /// The same choices with another probability.
    pub fn with_probability(self, probability: f64) -> Self {
        Self { probability, ..self }
    }

    /// Zeroes each element with the probability `p` and scales the others by `1 / (1 - p)`.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        let shape = x.dims();
        let keep = (1.0 / (1.0 - self.probability)) as f32;
        // An element is dropped if its 32 random bits lie below this.
        let threshold = (self.probability * f64::from(u32::MAX)) as u32;
        let len = shape.iter().product::<usize>();
        let mut mask = Vec::with_capacity(len + 1);
        for pair in 0..len.div_ceil(2) as u64 {
            let bits = mix(self.key.wrapping_add(pair.wrapping_mul(GOLDEN)));
            for bits in [bits as u32, (bits >> 32) as u32] {
                mask.push(if bits < threshold { 0.0 } else { keep });
            }
        }
        mask.truncate(len);
        let mask = Tensor::from_data(TensorData::new(mask, shape), &x.device().without_autodiff());
        x * mask
    }
}

/// What methods draw beside the zeros of [`Dropout::apply`].
impl Dropout {
    /// A number in [0, 1).
    fn chance(self, part: u64) -> f64 {
        (derive(self.key, part) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `0..len`.
    pub(crate) fn choose(self, len: usize) -> usize {
        // Another key than those of the blocks.
        ((self.derive(0).chance(0) * len as f64) as usize).min(len - 1)
    }

    /// Which of `len` blocks are dropped: the share `p` of them, rounded down.
    pub(crate) fn blocks(self, len: usize) -> Vec<bool> {
        let mut order: Vec<usize> = (0..len).collect();
        order.sort_by_key(|&block| derive(self.key, block as u64));
        let mut dropped = vec![false; len];
        order[..(self.probability * len as f64) as usize].iter().for_each(|&block| dropped[block] = true);
        dropped
    }

    /// Drops a layer's whole update with the probability `module`, and otherwise each of its outputs with the probability `row`; with
    /// `rescale` those that are kept grow by the share that was dropped.
    ///
    /// # Shapes
    /// `[batch, seq, out]`, both.
    pub(crate) fn drop_update(self, update: Tensor<3>, module: f64, row: f64, rescale: bool) -> Tensor<3> {
        if module > 0.0 && self.chance(0) < module {
            // Not left out: every parameter keeps a gradient.
            return update * 0.0;
        }
        if row == 0.0 {
            return update;
        }
        let [_, _, len] = update.dims();
        let rows = self.derive(1);
        let mut mask: Vec<f32> =
            (0..len as u64).map(|place| if rows.chance(place) < row { 0.0 } else { 1.0 }).collect();
        let kept = mask.iter().sum::<f32>();
        // Where all are dropped there is nothing to grow.
        if rescale && kept > 0.0 {
            mask.iter_mut().for_each(|value| *value *= len as f32 / kept);
        }
        let device = update.device().without_autodiff();
        update * Tensor::<3>::from_data(TensorData::new(mask, [1, 1, len]), &device)
    }
}

/// The increment of the SplitMix64 generator (Steele, Lea and Flood 2014).
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function: every bit of the input changes about half of the output's.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A key of its own for each `part` under `key`.
pub(crate) fn derive(key: u64, part: u64) -> u64 {
    mix(key ^ mix(part.wrapping_add(GOLDEN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(shape: [usize; 3]) -> Tensor<3> {
        Tensor::ones(shape, &llmkit_core::Device::from_env().unwrap().resolve().unwrap())
    }

    #[test]
    fn a_share_of_the_blocks_is_dropped() {
        let mut times = [0; 10];
        for key in 0..200 {
            let dropped = Dropout::new(0.35, key).blocks(10);
            assert_eq!(dropped.iter().filter(|dropped| **dropped).count(), 3);
            times.iter_mut().zip(dropped).for_each(|(times, dropped)| *times += usize::from(dropped));
        }
        assert!(times.iter().all(|times| (30..90).contains(times)), "{times:?}");
        let chosen: Vec<_> = (0..100).map(|key| Dropout::new(0.5, key).choose(3)).collect();
        assert!((0..3).all(|one| chosen.iter().filter(|chosen| **chosen == one).count() > 15), "{chosen:?}");
    }

    #[test]
    fn an_update_loses_rows_or_everything() {
        let (mut whole, mut rows) = (0, 0);
        for key in 0..300 {
            let update = Dropout::new(0.5, key).drop_update(ones([2, 3, 64]), 0.25, 0.5, true);
            let values = update.try_into_vec_as::<f32>().unwrap();
            let first = &values[..64];
            assert!(values.chunks(64).all(|token| token == first), "tokens differ");
            if first.iter().all(|value| *value == 0.0) {
                whole += 1;
            } else {
                rows += first.iter().filter(|value| **value == 0.0).count();
                assert!((first.iter().sum::<f32>() - 64.0).abs() < 1e-3, "the mean changed");
            }
        }
        assert!((50..100).contains(&whole), "{whole}");
        let share = rows as f64 / ((300 - whole) * 64) as f64;
        assert!((0.45..0.55).contains(&share), "{share}");
        let kept = Dropout::new(0.5, 7).drop_update(ones([1, 1, 64]), 0.0, 0.5, false);
        assert!(kept.try_into_vec_as::<f32>().unwrap().iter().all(|v| *v == 0.0 || *v == 1.0));
    }
}
