use burn::tensor::{Tensor, TensorData};

/// Zeroes each element with probability `probability` and scales the others by `1 / (1 - probability)`.
///
/// The choice depends on `key` and the element's place alone, so that recomputing a block, resuming a run, or running on another
/// device drops the same elements.
///
/// # Shapes
/// `[batch, seq, hidden]`, both.
pub(crate) fn dropout(x: Tensor<3>, probability: f64, key: u64) -> Tensor<3> {
    let shape = x.dims();
    let keep = (1.0 / (1.0 - probability)) as f32;
    // An element is dropped if its 32 random bits lie below this.
    let threshold = (probability * f64::from(u32::MAX)) as u32;
    let len = shape.iter().product::<usize>();
    let mut mask = Vec::with_capacity(len + 1);
    for pair in 0..len.div_ceil(2) as u64 {
        let bits = mix(key.wrapping_add(pair.wrapping_mul(GOLDEN)));
        for bits in [bits as u32, (bits >> 32) as u32] {
            mask.push(if bits < threshold { 0.0 } else { keep });
        }
    }
    mask.truncate(len);
    let mask = Tensor::from_data(TensorData::new(mask, shape), &x.device().without_autodiff());
    x * mask
}

/// The increment of the SplitMix64 generator (Steele, Lea and Flood 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

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
