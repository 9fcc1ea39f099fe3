//! Floats into GGUF's blocks, byte for byte as llama.cpp and its Python library do.

use half::f16;
use rayon::prelude::*;

/// Values in a block of Q8_0 and Q4_0.
const BLOCK: usize = 32;
/// Blocks that one thread takes at a time.
const SHARE: usize = 2048;

/// Little-endian half precision, rounded to the nearest, ties to even.
pub(super) fn f16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
}

/// Little-endian single precision.
pub(super) fn f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// `d = max |x| / 127` in half precision, then 32 times `x / d` rounded to the nearest, ties away from zero. A whole number of blocks.
pub(super) fn q8_0(values: &[f32]) -> Vec<u8> {
    blocks(values, |values, out: &mut [u8; 34]| {
        let d = values.iter().fold(0f32, |max, value| max.max(value.abs())) / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        for (out, value) in out[2..].iter_mut().zip(values) {
            *out = ((value * inverse).round() as i8).cast_unsigned();
        }
    })
}

/// `d = m / -8` in half precision with `m` the value that is largest without its sign, the first of equals; then 32 times `x / d + 8`
/// rounded to the nearest and at most 15, the first half of the values in the low halves of the bytes. A whole number of blocks.
pub(super) fn q4_0(values: &[f32]) -> Vec<u8> {
    blocks(values, |values, out: &mut [u8; 18]| {
        let largest = values.iter().fold(0f32, |m, value| if value.abs() > m.abs() { *value } else { m });
        let d = largest / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let quant = |value: f32| ((value * inverse + 8.5) as u8).min(15);
        out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        for (i, out) in out[2..].iter_mut().enumerate() {
            *out = quant(values[i]) | quant(values[i + BLOCK / 2]) << 4;
        }
    })
}

fn blocks<const BYTES: usize>(
    values: &[f32],
    block: impl Fn(&[f32; BLOCK], &mut [u8; BYTES]) + Sync,
) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "{} values are not a whole number of blocks of {BLOCK}", values.len());
    let mut bytes = vec![0; blocks.len() * BYTES];
    let (out, _) = bytes.as_chunks_mut::<BYTES>();
    out.par_chunks_mut(SHARE)
        .zip(blocks.par_chunks(SHARE))
        .for_each(|(out, blocks)| blocks.iter().zip(out).for_each(|(values, out)| block(values, out)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_keeps_its_sign_in_q4_0_and_zeros_have_no_scale() {
        let mut values = [0.5f32; 32];
        values[3] = -8.0;
        let bytes = q4_0(&values);
        assert_eq!(f16::from_le_bytes([bytes[0], bytes[1]]), f16::from_f32(1.0));
        // -8 is 0, 0.5 is 8.5 + 0.5 cut to 9.
        assert_eq!((bytes[2 + 3], bytes[2]), (0x90, 0x99));
        assert_eq!(q8_0(&[0.0; 32]), [0; 34]);
    }
}
