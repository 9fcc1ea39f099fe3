//! Loops compiled three times, for AVX-512, for AVX2 and for any processor; which one runs is found out at run time.

/// Defines a function whose body is compiled for several instruction sets. The body may use the constant `FMA`, which says whether
/// fused multiply-add is an instruction, and must be plain loops over slices, which the compiler vectorises. Keep
/// arithmetic out of closures given to iterators: what is not inlined is compiled without the vector instructions, many times slower.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("fma")
                {
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}

pub(in crate::kernels) use vectorised;

/// Independent accumulators of a sum: four vector registers of 8 or two of 16 hide the latency of an addition.
const LANES: usize = 32;

/// `a * b + c`, fused only where that is one instruction (elsewhere it would be a call).
#[inline(always)]
pub(in crate::kernels) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Sums `term` over a slice in a fixed order.
#[inline(always)]
pub(in crate::kernels) fn sum(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder().iter().fold(0.0, |total, &x| total + term(x));
    for x in chunks {
        for (lane, &x) in lanes.iter_mut().zip(x) {
            *lane += term(x);
        }
    }
    total(lanes) + tail
}

/// The dot product of two slices of one length, in a fixed order.
#[inline(always)]
pub(in crate::kernels) fn dot<const FMA: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let tail = xs.remainder().iter().zip(ys.remainder());
    let tail = tail.fold(0.0, |total, (&x, &y)| mul_add::<FMA>(x, y, total));
    for (x, y) in xs.zip(ys) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane = mul_add::<FMA>(x, y, *lane);
        }
    }
    total(lanes) + tail
}

/// `sum(x * y * z)` over three slices of one length, in a fixed order.
#[inline(always)]
pub(in crate::kernels) fn dot3<const FMA: bool>(x: &[f32], y: &[f32], z: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (xs, ys, zs) = (x.chunks_exact(LANES), y.chunks_exact(LANES), z.chunks_exact(LANES));
    let tail = xs.remainder().iter().zip(ys.remainder()).zip(zs.remainder());
    let tail = tail.fold(0.0, |total, ((&x, &y), &z)| mul_add::<FMA>(x * y, z, total));
    for ((x, y), z) in xs.zip(ys).zip(zs) {
        for (((lane, &x), &y), &z) in lanes.iter_mut().zip(x).zip(y).zip(z) {
            *lane = mul_add::<FMA>(x * y, z, *lane);
        }
    }
    total(lanes) + tail
}

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    // Seen together with these additions, the loop before them is vectorised as narrowly as the last of them are; passing through
    // memory keeps the two apart.
    let lanes = std::hint::black_box(lanes);
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
        };
        // SAFETY: SSE is in every x86-64 processor; both arrays are 32 floats without padding.
        unsafe {
            let [a, b, c, d, e, f, g, h] = std::mem::transmute::<[f32; LANES], [__m128; LANES / 4]>(lanes);
            let low = _mm_add_ps(_mm_add_ps(a, e), _mm_add_ps(c, g));
            let high = _mm_add_ps(_mm_add_ps(b, f), _mm_add_ps(d, h));
            let x = _mm_add_ps(low, high);
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let x: [f32; 16] = std::array::from_fn(|i| lanes[i] + lanes[i + 16]);
        let x: [f32; 8] = std::array::from_fn(|i| x[i] + x[i + 8]);
        let x: [f32; 4] = std::array::from_fn(|i| x[i] + x[i + 4]);
        (x[0] + x[2]) + (x[1] + x[3])
    }
}

/// The largest value; minus infinity if there is none. A NaN may be passed over.
#[inline(always)]
pub(in crate::kernels) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    let mut largest = f32::NEG_INFINITY;
    for &value in tail {
        largest = larger(largest, value);
    }
    for value in lanes {
        largest = larger(largest, value);
    }
    largest
}
