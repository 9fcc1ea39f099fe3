use std::f64::consts::TAU;

use serde_json::{Value, json};

/// How far a reproduced factor may be from the file's, relatively: the converter computes them in single precision.
const TOLERANCE: f64 = 1e-4;

/// The `rope_scaling` of a Hugging Face configuration that divides RoPE's frequencies by `factors`.
///
/// GGUF stores the factors and not the parameters that they came from. Llama 3 divides slow frequencies by `factor`, keeps fast ones, and goes
/// smoothly from one to the other; all published models use the same three other parameters (`low_freq_factor` 1, `high_freq_factor` 4,
/// `original_max_position_embeddings` 8192). If these reproduce the factors, the result is that; else it is `longrope` with the
/// factors themselves for short and long texts alike and without its change of the attention's scale, which is the same function.
pub(super) fn rope_scaling(factors: &[f32], theta: f64, max_position: u32) -> Value {
    if factors.iter().all(|factor| *factor == 1.0) {
        return Value::Null;
    }
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let llama3 = Llama3 { factor: f64::from(factor), low: 1.0, high: 4.0, original: 8192.0 };
    let dim = 2 * factors.len();
    let same = factors.iter().enumerate().all(|(i, found)| {
        let expected = llama3.divisor(theta.powf((2 * i) as f64 / dim as f64) * TAU);
        (expected - f64::from(*found)).abs() <= TOLERANCE * expected
    });
    if same {
        json!({
            "rope_type": "llama3",
            "factor": llama3.factor,
            "low_freq_factor": llama3.low,
            "high_freq_factor": llama3.high,
            "original_max_position_embeddings": llama3.original as u32,
        })
    } else {
        json!({
            "rope_type": "longrope",
            "short_factor": factors,
            "long_factor": factors,
            "attention_factor": 1.0,
            "original_max_position_embeddings": max_position,
        })
    }
}

/// RoPE scaling of Llama 3.1 and later.
pub(super) struct Llama3 {
    pub(super) factor: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// The context that the model was trained on before it was extended, in tokens.
    pub(super) original: f64,
}

impl Llama3 {
    /// By what to divide each frequency of a head, `[head_dim / 2]`.
    pub(super) fn divisors(&self, theta: f64, head_dim: u32) -> Vec<f32> {
        let frequency = |i: u32| theta.powf(f64::from(2 * i) / f64::from(head_dim));
        (0..head_dim / 2).map(|i| self.divisor(frequency(i) * TAU) as f32).collect()
    }

    /// By what to divide the frequency of this wavelength (in tokens).
    fn divisor(&self, wavelength: f64) -> f64 {
        if wavelength < self.original / self.high {
            1.0
        } else if wavelength > self.original / self.low {
            self.factor
        } else {
            let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
            1.0 / ((1.0 - smooth) / self.factor + smooth)
        }
    }
}
