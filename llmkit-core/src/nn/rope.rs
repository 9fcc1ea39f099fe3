use burn::tensor::{Device, Tensor, TensorData};

use crate::kernels;

/// What a model's configuration says about rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// The length of one head's vectors.
    pub head_dim: usize,
    /// The base of the frequencies; 10,000 where a configuration says nothing.
    pub theta: f64,
    /// How the frequencies are stretched for contexts longer than those of pre-training.
    pub scaling: RopeScaling,
}

/// Ways of stretching rotary frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency divided by `factor` (Chen et al. 2023).
    Linear {
        /// How many times longer the context becomes.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// How many times longer the context becomes.
        factor: f64,
        /// Wavelengths above `original_max_position / low_freq_factor` are divided fully.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The context length of pre-training, in tokens.
        original_max_position: usize,
    },
    /// Each frequency divided by its own factor, as a GGUF file's `rope_freqs` stores it.
    Factors(Vec<f32>),
}

/// Rotary position embedding in Hugging Face's rotate-half convention: component `i` pairs with `i + head_dim / 2`
/// (Su et al. 2021).
#[derive(Debug, Clone)]
pub struct Rope {
    /// `[head_dim / 2]`, radians a position
    inv_freq: Vec<f32>,
}

impl Rope {
    /// The frequencies of `config`.
    ///
    /// # Panics
    /// If `head_dim` is odd, or [`RopeScaling::Factors`] are not `head_dim / 2` in number.
    pub fn new(config: &RopeConfig) -> Self {
        assert!(
            config.head_dim.is_multiple_of(2),
            "rotary positions need an even head_dim, found {}",
            config.head_dim
        );
        let half = config.head_dim / 2;
        let base = |i: usize| 1.0 / config.theta.powf((2 * i) as f64 / config.head_dim as f64);
        let inv_freq = (0..half).map(base);
        let inv_freq: Vec<f32> = match &config.scaling {
            RopeScaling::Default => inv_freq.map(|freq| freq as f32).collect(),
            RopeScaling::Linear { factor } => inv_freq.map(|freq| (freq / factor) as f32).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                inv_freq
                    .map(|freq| {
                        let wavelength = std::f64::consts::TAU / freq;
                        let turns = *original_max_position as f64 / wavelength;
                        // 0 where the frequency is divided fully, 1 where it is kept.
                        let keep = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        let keep = keep.clamp(0.0, 1.0);
                        ((1.0 - keep) * freq / factor + keep * freq) as f32
                    })
                    .collect()
            }
            RopeScaling::Factors(factors) => {
                assert_eq!(factors.len(), half, "rope factors for head_dim {}", config.head_dim);
                inv_freq.zip(factors).map(|(freq, factor)| (freq / f64::from(*factor)) as f32).collect()
            }
        };
        Self { inv_freq }
    }

    /// The rotations of `len` positions from each of `starts` on, for one forward pass. One start stands for all sequences.
    pub fn table(&self, starts: &[usize], len: usize, device: &Device) -> RopeTable {
        let half = self.inv_freq.len();
        let positions = starts.iter().flat_map(|&start| start..start + len);
        let angles =
            positions.flat_map(|position| self.inv_freq.iter().map(move |freq| position as f32 * freq));
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
        let shape = [starts.len(), len, half];
        RopeTable {
            cos: Tensor::from_data(TensorData::new(cos, shape), device),
            sin: Tensor::from_data(TensorData::new(sin, shape), device),
        }
    }
}

/// Cosines and sines of consecutive positions.
///
/// # Shapes
/// `[batch or 1, seq, head_dim / 2]`, both.
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl RopeTable {
    /// Rotates queries or keys.
    ///
    /// # Shapes
    /// `[batch, seq, heads, head_dim]`, both.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::rope(x, self.cos.clone(), self.sin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_fast_frequencies_and_divides_slow_ones() {
        let plain = RopeConfig { head_dim: 64, theta: 10_000.0, scaling: RopeScaling::Default };
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192,
        };
        let scaled = Rope::new(&RopeConfig { scaling, ..plain.clone() });
        let plain = Rope::new(&plain);
        assert_eq!(scaled.inv_freq[0], plain.inv_freq[0]);
        let (slow, base) = (scaled.inv_freq[31], plain.inv_freq[31]);
        assert!((slow * 8.0 - base).abs() < base * 1e-6, "{slow} is not an eighth of {base}");
    }
}
