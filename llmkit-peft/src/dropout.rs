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
