use super::super::unpack::{from_bf16, from_f16, from_f32, unpack};
use super::dtype::GgmlType;
use super::{block_quants, k_quants};

/// The types that [`dequantize`] knows, for error messages.
pub(super) const SUPPORTED: &str =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K or Q6_K";

/// The values of `bytes`, or `None` if the type is not one of [`SUPPORTED`]. On all cores when there are many.
///
/// # Panics
/// If `bytes` is not a whole number of blocks; the reader checks that.
pub(super) fn dequantize(dtype: GgmlType, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype.name {
        "F32" => from_f32(bytes),
        "F16" => from_f16(bytes),
        "BF16" => from_bf16(bytes),
        "Q8_0" => unpack(bytes, block_quants::q8_0),
        "Q4_0" => unpack(bytes, block_quants::q4_0),
        "Q4_1" => unpack(bytes, block_quants::q4_1),
        "Q5_0" => unpack(bytes, block_quants::q5_0),
        "Q5_1" => unpack(bytes, block_quants::q5_1),
        "Q2_K" => unpack(bytes, k_quants::q2_k),
        "Q3_K" => unpack(bytes, k_quants::q3_k),
        "Q4_K" => unpack(bytes, k_quants::q4_k),
        "Q5_K" => unpack(bytes, k_quants::q5_k),
        "Q6_K" => unpack(bytes, k_quants::q6_k),
        _ => return None,
    })
}
