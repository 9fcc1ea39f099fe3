use std::borrow::Cow;
use std::f64::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};

use crate::kernels;

/// What a model's configuration says about rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// How many components of each head's vectors turn: the first ones, an even number. The others stay.
    pub rotary_dim: usize,
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
    /// Every frequency divided by `factor` (Chen et al. 2023, <https://arxiv.org/abs/2306.15595>).
    Linear {
        /// How many times longer the context becomes.
        factor: f64,
    },
    /// A base that grows with the sequence, once it is longer than `max_position`:
    /// `theta * (factor * len / max_position - (factor - 1)) ^ (d / (d - 2))`.
    Dynamic {
        /// How fast the base grows.
        factor: f64,
        /// The context length of pre-training, in tokens.
        max_position: usize,
    },
    /// YaRN (Peng et al. 2023, <https://arxiv.org/abs/2309.00071>): components that turn at least `beta_fast` times within the original
    /// context keep their frequency, those that turn at most `beta_slow` times have it divided by `factor`, those between are blended.
    Yarn {
        /// How many times longer the context becomes.
        factor: f64,
        /// The context length of pre-training, in tokens.
        original_max_position: usize,
        /// Default 32.
        beta_fast: f64,
        /// Default 1.
        beta_slow: f64,
        /// Whether the ends of the blend are rounded to whole components. Default true.
        truncate: bool,
        /// What cosines and sines are multiplied by; `0.1 ln(factor) + 1` where a configuration says nothing.
        attention_factor: f64,
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
    /// LongRoPE (Ding et al. 2024, <https://arxiv.org/abs/2402.13753>): each frequency divided by a factor of its own.
    LongRope {
        /// The divisors for sequences up to `original_max_position`, one for each frequency.
        short_factor: Vec<f32>,
        /// The divisors for longer sequences, one for each frequency.
        long_factor: Vec<f32>,
        /// The context length of pre-training, in tokens.
        original_max_position: usize,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
    },
}

/// Rotary position embedding in Hugging Face's rotate-half convention: component `i` pairs with `i + rotary_dim / 2`
/// (Su et al. 2021).
#[derive(Debug, Clone)]
pub struct Rope {
    rotary_dim: usize,
    theta: f64,
    frequencies: Frequencies,
    attention_factor: f32,
}

/// Frequencies `[rotary_dim / 2]`, in radians a position.
#[derive(Debug, Clone)]
enum Frequencies {
    Fixed(Vec<f32>),
    Dynamic { factor: f64, max_position: usize, short: Vec<f32> },
    Switched { short: Vec<f32>, long: Vec<f32>, at: usize },
}

impl RopeConfig {
    /// How many positions a model reaches whose configuration says `max_position`: dynamic scaling begins where others end.
    pub fn reach(&self, max_position: usize) -> usize {
        match &self.scaling {
            RopeScaling::Dynamic { factor, .. } => max_position.max((max_position as f64 * factor) as usize),
            _ => max_position,
        }
    }
}

impl Rope {
    /// The frequencies of `config`.
    ///
    /// # Panics
    /// If `rotary_dim` is odd, or LongRoPE's factors are not `rotary_dim / 2` in number.
    pub fn new(config: &RopeConfig) -> Self {
        let RopeConfig { rotary_dim, theta, scaling } = config;
        assert!(rotary_dim.is_multiple_of(2), "rotary positions need an even rotary_dim, found {rotary_dim}");
        let base = inverse_powers(*theta, *rotary_dim);
        let (frequencies, attention_factor) = match scaling {
            RopeScaling::Default => (fixed(base), 1.0),
            RopeScaling::Linear { factor } => (fixed(base.map(|freq| freq / factor)), 1.0),
            RopeScaling::Dynamic { factor, max_position } => {
                let short = base.map(|freq| freq as f32).collect();
                (Frequencies::Dynamic { factor: *factor, max_position: *max_position, short }, 1.0)
            }
            RopeScaling::Yarn { factor, attention_factor, .. } => {
                let kept = yarn_kept(config);
                let blended = base.zip(kept).map(|(freq, keep)| blend(freq, *factor, keep));
                (fixed(blended), *attention_factor)
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                let blended = base.map(|freq| {
                    let turns = *original_max_position as f64 * freq / TAU;
                    let keep = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    blend(freq, *factor, keep.clamp(0.0, 1.0))
                });
                (fixed(blended), 1.0)
            }
            RopeScaling::LongRope { short_factor, long_factor, original_max_position, attention_factor } => {
                let divided = |factors: &[f32]| -> Vec<f32> {
                    assert_eq!(2 * factors.len(), *rotary_dim, "rope factors for rotary_dim {rotary_dim}");
                    let base = inverse_powers(*theta, *rotary_dim);
                    base.zip(factors).map(|(freq, factor)| (freq / f64::from(*factor)) as f32).collect()
                };
                let (short, long) = (divided(short_factor), divided(long_factor));
                let frequencies = if short == long {
                    Frequencies::Fixed(short)
                } else {
                    Frequencies::Switched { short, long, at: *original_max_position }
                };
                (frequencies, *attention_factor)
            }
        };
        Self {
            rotary_dim: *rotary_dim,
            theta: *theta,
            frequencies,
            attention_factor: attention_factor as f32,
        }
    }

    /// The frequencies in a sequence of `len` positions, in radians a position.
    ///
    /// # Shapes
    /// `[rotary_dim / 2]`
    pub fn frequencies(&self, len: usize) -> Cow<'_, [f32]> {
        match &self.frequencies {
            Frequencies::Fixed(frequencies) => frequencies.into(),
            Frequencies::Dynamic { max_position, short, .. } if len <= *max_position => short.into(),
            Frequencies::Dynamic { factor, max_position, .. } => {
                let dim = self.rotary_dim as f64;
                let stretch = factor * len as f64 / *max_position as f64 - (factor - 1.0);
                let theta = self.theta * stretch.powf(dim / (dim - 2.0));
                inverse_powers(theta, self.rotary_dim).map(|freq| freq as f32).collect::<Vec<_>>().into()
            }
            Frequencies::Switched { short, at, .. } if len <= *at => short.into(),
            Frequencies::Switched { long, .. } => long.into(),
        }
    }

    /// What cosines and sines are multiplied by; 1 for most scalings.
    pub fn attention_factor(&self) -> f32 {
        self.attention_factor
    }

    /// The length in tokens beyond which a sequence has other frequencies from its first token on, as with LongRoPE: what was cached of
    /// it before must be computed anew.
    pub fn switches_at(&self) -> Option<usize> {
        match self.frequencies {
            Frequencies::Switched { at, .. } => Some(at),
            Frequencies::Fixed(_) | Frequencies::Dynamic { .. } => None,
        }
    }

    /// The rotations of `len` positions from each of `starts` on, for one forward pass. One start stands for all sequences.
    pub fn table(&self, starts: &[usize], len: usize, device: &Device) -> RopeTable {
        self.table_of_rows(starts, len, None, device)
    }

    /// The same for padded sequences, which end after `counts` of these positions: where frequencies depend on the length of the
    /// sequence, padding does not count.
    pub fn table_of_rows(
        &self,
        starts: &[usize],
        len: usize,
        counts: Option<&[usize]>,
        device: &Device,
    ) -> RopeTable {
        let half = self.rotary_dim / 2;
        let depends_on_length = !matches!(self.frequencies, Frequencies::Fixed(_));
        let rows: Vec<(usize, usize)> = match counts {
            // Sequences that start together part here if their lengths matter.
            Some(counts) if depends_on_length => counts
                .iter()
                .enumerate()
                .map(|(row, count)| {
                    let start = if starts.len() == 1 { starts[0] } else { starts[row] };
                    (start, start + count)
                })
                .collect(),
            _ => starts.iter().map(|start| (*start, start + len)).collect(),
        };
        let mut cos = Vec::with_capacity(rows.len() * len * half);
        let mut sin = Vec::with_capacity(rows.len() * len * half);
        for &(start, end) in &rows {
            let frequencies = self.frequencies(end);
            for position in start..start + len {
                for freq in frequencies.iter() {
                    let (s, c) = (position as f32 * freq).sin_cos();
                    sin.push(s * self.attention_factor);
                    cos.push(c * self.attention_factor);
                }
            }
        }
        let shape = [rows.len(), len, half];
        RopeTable {
            cos: Tensor::from_data(TensorData::new(cos, shape), device),
            sin: Tensor::from_data(TensorData::new(sin, shape), device),
        }
    }
}

/// `theta^(-2i / dim)` for each `i` below `dim / 2`.
fn inverse_powers(theta: f64, dim: usize) -> impl Iterator<Item = f64> {
    (0..dim / 2).map(move |i| 1.0 / theta.powf((2 * i) as f64 / dim as f64))
}

fn fixed(frequencies: impl Iterator<Item = f64>) -> Frequencies {
    Frequencies::Fixed(frequencies.map(|freq| freq as f32).collect())
}

/// From the divided frequency (0) to the kept one (1).
fn blend(freq: f64, factor: f64, keep: f64) -> f64 {
    (1.0 - keep) * freq / factor + keep * freq
}

/// How much of each frequency YaRN keeps, from 0 to 1.
fn yarn_kept(config: &RopeConfig) -> impl Iterator<Item = f64> + use<> {
    let RopeScaling::Yarn { original_max_position, beta_fast, beta_slow, truncate, .. } = config.scaling
    else {
        unreachable!("only asked of YaRN")
    };
    let dim = config.rotary_dim as f64;
    let component =
        |turns: f64| dim * (original_max_position as f64 / (turns * TAU)).ln() / (2.0 * config.theta.ln());
    let (low, high) = (component(beta_fast), component(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let low = low.max(0.0);
    let high = high.min(dim - 1.0);
    // As transformers does, so that a blend of no width is a step.
    let high = if low == high { high + 0.001 } else { high };
    (0..config.rotary_dim / 2).map(move |i| 1.0 - ((i as f64 - low) / (high - low)).clamp(0.0, 1.0))
}

/// Cosines and sines of consecutive positions.
///
/// # Shapes
/// `[batch or 1, seq, rotary_dim / 2]`, both.
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

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig { rotary_dim: 64, theta: 10_000.0, scaling }
    }

    #[test]
    fn llama3_keeps_fast_frequencies_and_divides_slow_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192,
        };
        let scaled = Rope::new(&config(scaling));
        let plain = Rope::new(&config(RopeScaling::Default));
        let (scaled, plain) = (scaled.frequencies(1), plain.frequencies(1));
        assert_eq!(scaled[0], plain[0]);
        let (slow, base) = (scaled[31], plain[31]);
        assert!((slow * 8.0 - base).abs() < base * 1e-6, "{slow} is not an eighth of {base}");
    }

    #[test]
    fn a_row_turns_by_its_own_length_and_not_by_its_padding() {
        let scaling = RopeScaling::LongRope {
            short_factor: vec![1.0; 32],
            long_factor: vec![3.0; 32],
            original_max_position: 4,
            attention_factor: 1.5,
        };
        let rope = Rope::new(&config(scaling));
        assert_eq!(rope.switches_at(), Some(4));
        let device = crate::Device::from_env().and_then(|device| device.resolve()).expect("a device");
        let both = rope.table_of_rows(&[0], 6, Some(&[6, 3]), &device);
        let [long, short] = [6, 3].map(|len| rope.table(&[0], len, &device)).map(|table| table.sin);
        assert_eq!(both.sin.dims(), [2, 6, 32]);
        let row = |index, len| both.sin.clone().slice([index..index + 1, 0..len, 0..32]).into_data();
        assert_eq!(row(0, 6), long.into_data());
        assert_eq!(row(1, 3), short.into_data());
        assert_ne!(row(0, 3), row(1, 3));
    }
}
