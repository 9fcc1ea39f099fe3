//! The IQ types: super-blocks of 256 values whose magnitudes come in groups of four or eight out of a codebook ([`iq_grids`]), or one by one
//! out of sixteen uneven steps (IQ4). Products are taken in the order of llama.cpp's Python library, so that results equal its bit for bit.

use super::block_quants::half_at;
use super::iq_grids;

/// What the two bits of an IQ2 codebook entry stand for.
const IQ2_STEPS: [f32; 3] = [8.0, 25.0, 43.0];
/// What the three bits of an IQ3_XXS codebook entry stand for.
const IQ3_XXS_STEPS: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
/// What the four bits of an IQ4 value stand for.
const IQ4_STEPS: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];
/// By how much the values of an IQ1 group are moved up or down.
const IQ1_DELTA: f32 = 0.125;

/// `d`; for each 32 values four codebook indices of a byte, then 32 bits: four indices of signs (7 bits each) and a scale (4 bits).
pub(super) fn iq2_xxs(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = half_at(block, 0);
    for (group, out) in block[2..].chunks_exact(8).zip(out.chunks_exact_mut(32)) {
        let packed = u32_at(group, 4);
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.25;
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let signs = signs_of(packed >> (7 * i));
            iq2_values(iq_grids::IQ2_XXS[usize::from(group[i])], scale, signs, out);
        }
    }
}

/// `d`; 32 times a codebook index (9 bits) and an index of signs (7 bits); 16 four-bit scales.
pub(super) fn iq2_xs(block: &[u8; 74], out: &mut [f32; 256]) {
    let (d, scales) = (half_at(block, 0), &block[66..]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let packed = u16_at(block, 2 + 2 * i);
        let scale = d * (0.5 + f32::from(nibble(scales, i / 2))) * 0.25;
        iq2_values(iq_grids::IQ2_XS[usize::from(packed & 511)], scale, signs_of(u32::from(packed >> 9)), out);
    }
}

/// `d`; 32 lower bytes of codebook indices; 32 bytes of signs; 32 times the upper two bits of an index; 16 four-bit scales.
pub(super) fn iq2_s(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = half_at(block, 0);
    let (lower, signs, upper, scales) = (&block[2..34], &block[34..66], &block[66..74], &block[74..]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let index = usize::from(lower[i]) | usize::from(upper[i / 4] >> (2 * (i % 4)) & 3) << 8;
        let scale = d * (0.5 + f32::from(nibble(scales, i / 2))) * 0.25;
        iq2_values(iq_grids::IQ2_S[index], scale, signs[i], out);
    }
}

/// `d`; 64 codebook indices of a byte; for each 32 values 32 bits: four indices of signs (7 bits each) and a scale (4 bits).
pub(super) fn iq3_xxs(block: &[u8; 98], out: &mut [f32; 256]) {
    let (d, indices) = (half_at(block, 0), &block[2..66]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let packed = u32_at(block, 66 + 4 * group);
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.5;
        for (i, out) in out.chunks_exact_mut(4).enumerate() {
            let entry = iq_grids::IQ3_XXS[usize::from(indices[8 * group + i])];
            let signs = signs_of(packed >> (7 * (i / 2))) >> (4 * (i % 2));
            iq3_values(entry, |step| IQ3_XXS_STEPS[step], scale, signs, out);
        }
    }
}

/// `d`; 64 lower bytes of codebook indices; 64 ninth bits; 32 bytes of signs; 8 four-bit scales.
pub(super) fn iq3_s(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half_at(block, 0);
    let (lower, ninth, signs, scales) = (&block[2..66], &block[66..74], &block[74..106], &block[106..]);
    for (i, out) in out.chunks_exact_mut(4).enumerate() {
        let index = usize::from(lower[i]) | usize::from(ninth[i / 8] >> (i % 8) & 1) << 8;
        let scale = d * f32::from(1 + 2 * nibble(scales, i / 8));
        // The steps are the odd numbers from 1 to 15.
        iq3_values(
            iq_grids::IQ3_S[index],
            |step| (2 * step + 1) as f32,
            scale,
            signs[i / 2] >> (4 * (i % 2)),
            out,
        );
    }
}

/// `d`; 32 lower bytes of codebook indices; for each 32 values 16 bits: the upper three bits of four indices, a scale (3 bits), a direction.
pub(super) fn iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    let (d, lower) = (half_at(block, 0), &block[2..34]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let packed = u16_at(block, 34 + 2 * (i / 4));
        let index = usize::from(lower[i]) | usize::from(packed >> (3 * (i % 4)) & 7) << 8;
        let scale = d * f32::from(2 * (packed >> 12 & 7) + 1);
        let delta = if packed & 0x8000 == 0 { IQ1_DELTA } else { -IQ1_DELTA };
        iq1_values(iq_grids::IQ1_S[index], scale, delta, out);
    }
}

/// 32 lower bytes of codebook indices; for each 8 values four bits: the upper three of an index, a direction; 16 three-bit scales in the
/// lower twelve bits of four 16-bit numbers, whose upper four bits make up `d`.
pub(super) fn iq1_m(block: &[u8; 56], out: &mut [f32; 256]) {
    let (lower, upper) = (&block[..32], &block[32..48]);
    let packed = [0, 1, 2, 3].map(|i| u16_at(block, 48 + 2 * i));
    let d = packed.iter().enumerate().fold(0, |bits, (i, part)| bits | (part & 0xf000) >> (12 - 4 * i));
    let d = half::f16::from_bits(d).to_f32();
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let upper = nibble(upper, i);
        let index = usize::from(lower[i]) | usize::from(upper & 7) << 8;
        let group = i / 2;
        let scale = d * f32::from(2 * (packed[group / 4] >> (3 * (group % 4)) & 7) + 1);
        let delta = if upper & 8 == 0 { IQ1_DELTA } else { -IQ1_DELTA };
        iq1_values(iq_grids::IQ1_S[index], scale, delta, out);
    }
}

/// `d`; 16 bytes of two values, laid out as in Q4_0.
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    iq4_values(&block[2..], d, out);
}

/// `d`; the upper two bits of eight six-bit scales, 32 is zero; their lower four bits; eight runs of 16 bytes laid out as in Q4_0.
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let (d, upper, lower) = (half_at(block, 0), u16_at(block, 2), &block[4..8]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let scale = u16::from(nibble(lower, group)) | (upper >> (2 * group) & 3) << 4;
        iq4_values(&block[8 + 16 * group..24 + 16 * group], d * (f32::from(scale) - 32.0), out);
    }
}

fn iq4_values(quants: &[u8], scale: f32, out: &mut [f32]) {
    for (i, quants) in quants.iter().enumerate() {
        out[i] = scale * IQ4_STEPS[usize::from(quants & 15)];
        out[i + 16] = scale * IQ4_STEPS[usize::from(quants >> 4)];
    }
}

/// Eight values of an IQ2 codebook entry; bit i of `signs` makes value i negative.
fn iq2_values(entry: u16, scale: f32, signs: u8, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        // The codebooks hold no index 3.
        let step = IQ2_STEPS[usize::from(entry >> (2 * i) & 3).min(2)];
        *out = signed(scale * step, signs >> i);
    }
}

/// Four values of an IQ3 codebook entry; bit i of `signs` makes value i negative.
fn iq3_values(entry: u16, step: impl Fn(usize) -> f32, scale: f32, signs: u8, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = signed(scale * step(usize::from(entry >> (4 * i) & 7)), signs >> i);
    }
}

/// Eight values of an IQ1 codebook entry, each -1, 0 or 1 and moved by `delta`.
fn iq1_values(entry: u16, scale: f32, delta: f32, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = scale * (f32::from(entry >> (2 * i) & 3) - 1.0 + delta);
    }
}

fn signed(value: f32, sign: u8) -> f32 {
    if sign & 1 == 0 { value } else { -value }
}

/// Eight signs from the lower seven bits of an index: those, and an eighth that makes the number of minus signs even.
fn signs_of(index: u32) -> u8 {
    let seven = (index & 127) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Half-byte `i`, the lower half of a byte first.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (4 * (i % 2)) & 15
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
