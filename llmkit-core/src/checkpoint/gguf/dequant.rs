use super::super::unpack::{from_bf16, from_f16, from_f32, unpack};
use super::dtype::GgmlType;
use super::{block_quants, iq_quants, k_quants, small_quants};

/// The types that [`dequantize`] knows, for error messages.
pub(super) const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, \
    IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4 or NVFP4";

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
        "IQ1_S" => unpack(bytes, iq_quants::iq1_s),
        "IQ1_M" => unpack(bytes, iq_quants::iq1_m),
        "IQ2_XXS" => unpack(bytes, iq_quants::iq2_xxs),
        "IQ2_XS" => unpack(bytes, iq_quants::iq2_xs),
        "IQ2_S" => unpack(bytes, iq_quants::iq2_s),
        "IQ3_XXS" => unpack(bytes, iq_quants::iq3_xxs),
        "IQ3_S" => unpack(bytes, iq_quants::iq3_s),
        "IQ4_NL" => unpack(bytes, iq_quants::iq4_nl),
        "IQ4_XS" => unpack(bytes, iq_quants::iq4_xs),
        "TQ1_0" => unpack(bytes, small_quants::tq1_0),
        "TQ2_0" => unpack(bytes, small_quants::tq2_0),
        "MXFP4" => unpack(bytes, small_quants::mxfp4),
        "NVFP4" => unpack(bytes, small_quants::nvfp4),
        _ => return None,
    })
}
