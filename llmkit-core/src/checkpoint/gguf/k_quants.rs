//! Super-blocks of 256 values: half-precision scales for the whole, small integer scales for groups of 16 or 32 values.
//!
//! The low bits of four (two-bit) or two (four-bit) values share a byte; the values of one byte are 32 apart.

use super::block_quants::half_at;

/// 16 bytes of scale (low half) and offset (high half) of a group of 16; 64 bytes of two-bit values; `d`; `dmin`.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let (scale, offset) = (d * f32::from(scales[group] & 15), dmin * f32::from(scales[group] >> 4));
        let (quants, shift) = two_bit_group(quants, group);
        for (out, quant) in out.iter_mut().zip(quants) {
            *out = scale * f32::from(quant >> shift & 3) - offset;
        }
    }
}

/// 32 bytes of third bits; 64 bytes of two-bit values; 12 bytes of 16 six-bit scales, 32 is zero; `d`.
/// A value is `(third bit << 2 | two bits) - 4`.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (third, quants, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        // The lower four bits of scale i are in half-byte i / 8 of byte i % 8, the upper two in pair i / 4 of byte 8 + i % 4.
        let lower = scales[group % 8] >> (4 * (group / 8)) & 15;
        let upper = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = d * (f32::from(upper << 4 | lower) - 32.0);
        // Bit k of the third bits belongs to the k-th run of 32 values.
        let third = &third[16 * (group % 2)..];
        let (quants, shift) = two_bit_group(quants, group);
        for ((out, quant), third) in out.iter_mut().zip(quants).zip(third) {
            let value = quant >> shift & 3 | (third >> (group / 2) & 1) << 2;
            *out = scale * (f32::from(value) - 4.0);
        }
    }
}

/// `d`; `dmin`; 12 bytes of 8 six-bit scales and offsets; 128 bytes of four-bit values.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, quants) = (&block[4..16], &block[16..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = six_bit_pair(scales, group);
        let (scale, offset) = (d * f32::from(scale), dmin * f32::from(offset));
        let (quants, shift) = (&quants[32 * (group / 2)..], 4 * (group % 2));
        for (out, quant) in out.iter_mut().zip(quants) {
            *out = scale * f32::from(quant >> shift & 15) - offset;
        }
    }
}

/// As `q4_k`, with 32 bytes of fifth bits before the four-bit values; bit k belongs to the k-th run of 32 values.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, fifth, quants) = (&block[4..16], &block[16..48], &block[48..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = six_bit_pair(scales, group);
        let (scale, offset) = (d * f32::from(scale), dmin * f32::from(offset));
        let (quants, shift) = (&quants[32 * (group / 2)..], 4 * (group % 2));
        for ((out, quant), fifth) in out.iter_mut().zip(quants).zip(fifth) {
            let value = quant >> shift & 15 | (fifth >> group & 1) << 4;
            *out = scale * f32::from(value) - offset;
        }
    }
}

/// 128 bytes of lower four bits; 64 bytes of upper two; 16 signed scales of groups of 16; `d`. 32 is zero.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (lower, upper, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group].cast_signed());
        // Each half of 128 values has 64 bytes of lower bits, two runs of 32 values in their low halves and two in their high halves.
        let (half, within) = (group / 8, group % 8);
        let (lower, lower_shift) = (&lower[64 * half + 16 * (within % 4)..], 4 * (within / 4));
        let (upper, upper_shift) = two_bit_group(upper, group);
        for ((out, lower), upper) in out.iter_mut().zip(lower).zip(upper) {
            let value = lower >> lower_shift & 15 | (upper >> upper_shift & 3) << 4;
            *out = scale * (f32::from(value) - 32.0);
        }
    }
}

/// Where the two-bit values of a group of 16 start, and by how much to shift them. Each half of 128 values has 32 bytes, whose four pairs of
/// bits are four runs of 32 values.
fn two_bit_group(quants: &[u8], group: usize) -> (&[u8], usize) {
    let (half, within) = (group / 8, group % 8);
    (&quants[32 * half + 16 * (within % 2)..], 2 * (within / 2))
}

/// Scale and offset of group `i` of 8. The first four are the lower six bits of bytes `i` and `i + 4`; the others have their lower four bits
/// in byte `i + 4` and their upper two in the upper bits of the first eight bytes.
fn six_bit_pair(scales: &[u8], i: usize) -> (u8, u8) {
    if i < 4 {
        (scales[i] & 63, scales[i + 4] & 63)
    } else {
        let low = scales[i + 4];
        (low & 15 | scales[i - 4] >> 6 << 4, low >> 4 | scales[i] >> 6 << 4)
    }
}
