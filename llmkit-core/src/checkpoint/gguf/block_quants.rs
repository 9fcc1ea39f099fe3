//! Blocks of 32 values with one scale `d`, and in the `_1` types one offset `m`, both half precision: `d * q` or `d * q + m`.
//!
//! Of two values that share a byte, the low half is value `i` and the high half value `i + 16`.

use half::f16;

/// `d`, 32 signed bytes.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, quant) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(quant.cast_signed());
    }
}

/// `d`, 16 bytes of two values; 8 is zero.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (i, quants) in block[2..].iter().enumerate() {
        out[i] = d * (f32::from(quants & 15) - 8.0);
        out[i + 16] = d * (f32::from(quants >> 4) - 8.0);
    }
}

/// `d`, `m`, 16 bytes of two values.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, quants) in block[4..].iter().enumerate() {
        out[i] = d * f32::from(quants & 15) + m;
        out[i + 16] = d * f32::from(quants >> 4) + m;
    }
}

/// `d`, the 32 fifth bits, 16 bytes of two values' lower four; 16 is zero.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let fifth = fifth_bits(block, 2);
    for (i, quants) in block[6..].iter().enumerate() {
        out[i] = d * (f32::from(quants & 15 | fifth(i)) - 16.0);
        out[i + 16] = d * (f32::from(quants >> 4 | fifth(i + 16)) - 16.0);
    }
}

/// `d`, `m`, the 32 fifth bits, 16 bytes of two values' lower four.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let fifth = fifth_bits(block, 4);
    for (i, quants) in block[8..].iter().enumerate() {
        out[i] = d * f32::from(quants & 15 | fifth(i)) + m;
        out[i + 16] = d * f32::from(quants >> 4 | fifth(i + 16)) + m;
    }
}

/// The half-precision number at a byte offset.
pub(super) fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Value `i`'s fifth bit, in place, from the 32-bit mask at a byte offset.
fn fifth_bits(block: &[u8], at: usize) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    move |i| ((bits >> i & 1) << 4) as u8
}
