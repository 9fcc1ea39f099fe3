//! Ternary super-blocks (TQ) and four-bit floats with a shared scale (MXFP4, NVFP4).

use super::block_quants::half_at;

/// Twice the values of a four-bit float: a sign, two bits of exponent, one of mantissa.
const E2M1_DOUBLED: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// 52 bytes of base-three digits, five in each of the first 48 and four in each of the others; `d`. Digit 1 is zero.
///
/// A byte is `256 / 243` of its digits read as a fraction, so the leading digit is what a multiplication by three carries out of the byte.
/// The bytes are three runs (32, 16, 4); the values of a run are all its first digits, then all its second ones, and so on.
pub(super) fn tq1_0(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = half_at(block, 52);
    let mut values = out.iter_mut();
    for (run, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        for digit in 0..digits {
            for (byte, out) in run.iter().zip(&mut values) {
                let rest = byte.wrapping_mul(3u8.pow(digit));
                *out = d * (f32::from(((u16::from(rest) * 3) >> 8) as u8) - 1.0);
            }
        }
    }
}

/// Two runs of 32 bytes of four two-bit values, the values of one byte 32 apart; `d`. 1 is zero.
pub(super) fn tq2_0(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = half_at(block, 64);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        for (out, quants) in out.iter_mut().zip(&block[32 * (group / 4)..]) {
            *out = d * (f32::from(quants >> (2 * (group % 4)) & 3) - 1.0);
        }
    }
}

/// A power of two as an exponent; 16 bytes of two four-bit floats, laid out as in Q4_0.
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    // Half of 2^(e - 127), whose lowest two are subnormal, because the table is doubled.
    let exponent = u32::from(block[0]);
    let half = f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 });
    e2m1_values(&block[1..], half, out);
}

/// Four scales, unsigned floats of four bits of exponent and three of mantissa; for each 16 values 8 bytes of two four-bit floats.
pub(super) fn nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        e2m1_values(&block[4 + 8 * group..12 + 8 * group], half_of_e4m3(block[group]), out);
    }
}

/// The low halves of the bytes, then the high ones.
fn e2m1_values(quants: &[u8], scale: f32, out: &mut [f32]) {
    let half = quants.len();
    for (i, quants) in quants.iter().enumerate() {
        out[i] = scale * E2M1_DOUBLED[usize::from(quants & 15)];
        out[i + half] = scale * E2M1_DOUBLED[usize::from(quants >> 4)];
    }
}

/// Half of an unsigned float whose exponent is biased by 7; 0x7f is not a number there and counts as 0, as in llama.cpp.
fn half_of_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    match (bits, exponent) {
        (0 | 0x7f, _) => 0.0,
        (_, 0) => mantissa * 2f32.powi(-10),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 8),
    }
}
