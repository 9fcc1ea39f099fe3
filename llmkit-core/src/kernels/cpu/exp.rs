//! The exponential as a polynomial, for loops that the compiler vectorises: libm's is a call for each element.

use super::simd::mul_add;

/// 1.5 * 2^23: adding it rounds a small number to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `exp(x)` to within 2 units in the last place: 0 from minus infinity, infinity beyond 88.7, denormal in between, NaN from NaN.
///
/// `x = n ln 2 + r` with an integer `n` and `|r| <= ln 2 / 2`; `exp(r)` is a Taylor polynomial of degree 7 (its remainder is below
/// 1e-8), and `2^n` is written into the exponent in two halves, so that neither overflows before the result does.
#[inline(always)]
pub(in crate::kernels) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    // Written so that a NaN stays: comparisons with it are false.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };

    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let power = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let r = mul_add::<FMA>(n, -LN_2_HIGH, x);
    let r = mul_add::<FMA>(n, -LN_2_LOW, r);

    let mut p = 1.0 / 5040.0;
    p = mul_add::<FMA>(p, r, 1.0 / 720.0);
    p = mul_add::<FMA>(p, r, 1.0 / 120.0);
    p = mul_add::<FMA>(p, r, 1.0 / 24.0);
    p = mul_add::<FMA>(p, r, 1.0 / 6.0);
    p = mul_add::<FMA>(p, r, 0.5);
    p = mul_add::<FMA>(p, r, 1.0);
    p = mul_add::<FMA>(p, r, 1.0);

    let half = power >> 1;
    let power_of_two = |exponent: i32| f32::from_bits((exponent.wrapping_add(127) as u32) << 23);
    p * power_of_two(half) * power_of_two(power.wrapping_sub(half))
}

/// The logistic function.
#[inline(always)]
pub(in crate::kernels) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

#[cfg(test)]
mod tests {
    use super::super::vectorised;
    use super::exp;

    vectorised! {
        fn exp_all(values: &mut [f32]) {
            for value in values {
                *value = exp::<FMA>(*value);
            }
        }
    }

    fn ulps(found: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        let unit = f64::from(f32::from_bits(rounded.to_bits() + 1)) - f64::from(rounded);
        (f64::from(found) - exact).abs() / unit
    }

    /// Steps through the bit patterns of the floats in `[-87, 88.7]`, about 700,000 of them.
    fn samples() -> Vec<f32> {
        let positive = (0..88.7f32.to_bits()).step_by(3001).map(f32::from_bits);
        let negative = (0..87.0f32.to_bits()).step_by(3001).map(|bits| -f32::from_bits(bits));
        positive.chain(negative).collect()
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let inputs = samples();
        let mut fast = inputs.clone();
        exp_all(&mut fast);
        for (&x, &found) in inputs.iter().zip(&fast) {
            let exact = f64::from(x).exp();
            assert!(ulps(found, exact) <= 2.0, "exp({x}) = {found}, expected {exact}");
            let portable = exp::<false>(x);
            assert!(ulps(portable, exact) <= 2.0, "portable exp({x}) = {portable}, expected {exact}");
        }
    }

    #[test]
    fn exp_at_the_edges() {
        let mut values =
            [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.0, -0.0, -1e30, 1e30, 88.8, -104.1, -100.0];
        exp_all(&mut values);
        assert_eq!(values[..2], [0.0, f32::INFINITY]);
        assert!(values[2].is_nan());
        assert_eq!(values[3..9], [1.0, 1.0, 0.0, f32::INFINITY, f32::INFINITY, 0.0]);
        // Denormal: 26.6 units of 2^-149.
        assert_eq!(values[9], (-100.0f64).exp() as f32);
    }
}
