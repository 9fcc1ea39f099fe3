use half::{bf16, f16};
use rayon::prelude::*;

/// Below this many values, handing work to other threads costs more than it saves.
const PARALLEL_VALUES: usize = 1 << 16;

/// Turns fixed-size blocks of `BYTES` bytes into `VALUES` floats each, on all cores when there are many.
///
/// # Panics
/// If `bytes` is not a whole number of blocks; readers check that when they open a file.
pub(super) fn unpack<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    block: impl Fn(&[u8; BYTES], &mut [f32; VALUES]) + Sync,
) -> Vec<f32> {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    assert!(rest.is_empty(), "{} bytes are not a whole number of {BYTES}-byte blocks", bytes.len());
    let mut values = vec![0.0; blocks.len() * VALUES];
    let (out, _) = values.as_chunks_mut::<VALUES>();
    if out.len() * VALUES < PARALLEL_VALUES {
        out.iter_mut().zip(blocks).for_each(|(out, bytes)| block(bytes, out));
    } else {
        let share = (PARALLEL_VALUES / VALUES).max(1);
        out.par_chunks_mut(share)
            .zip(blocks.par_chunks(share))
            .for_each(|(out, blocks)| out.iter_mut().zip(blocks).for_each(|(out, bytes)| block(bytes, out)));
    }
    values
}

/// Little-endian `f32`; `bytes` need not be aligned.
pub(super) fn from_f32(bytes: &[u8]) -> Vec<f32> {
    unpack(bytes, |raw: &[u8; 4], out: &mut [f32; 1]| out[0] = f32::from_le_bytes(*raw))
}

/// Little-endian IEEE half precision.
pub(super) fn from_f16(bytes: &[u8]) -> Vec<f32> {
    unpack(bytes, |raw: &[u8; 2], out: &mut [f32; 1]| out[0] = f16::from_le_bytes(*raw).to_f32())
}

/// Little-endian bfloat16.
pub(super) fn from_bf16(bytes: &[u8]) -> Vec<f32> {
    unpack(bytes, |raw: &[u8; 2], out: &mut [f32; 1]| out[0] = bf16::from_le_bytes(*raw).to_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_the_same_values_in_one_piece_and_in_many() {
        let halves: Vec<f16> =
            (0..PARALLEL_VALUES * 3 + 5).map(|i| f16::from_f32(i as f32 * 0.37 - 900.0)).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        let expected: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
        assert_eq!(from_f16(&bytes), expected);
        assert_eq!(from_f16(&bytes[..200]), expected[..100]);
    }

    #[test]
    fn reads_unaligned_bytes() {
        let bytes = [0u8, 0, 0, 0x80, 0x3f, 0x40, 0x40];
        assert_eq!(from_f32(&bytes[1..5]), [1.0]);
        assert_eq!(from_bf16(&bytes[3..]), [bf16::from_bits(0x3f80).to_f32(), 3.0]);
    }
}
