mod svg;

use std::fmt;

use llmkit_core::models::Model;

use crate::combine::Factors;
use crate::extract::decompose;
use crate::weights::{LayerKind, pairs, squares};
use crate::{Lora, Result};

/// Matrices up to this size are decomposed exactly.
const EXACT_SIZE: usize = 128;

/// The singular values of what an adapter changes in each layer: whether its rank is used, and where more would help.
///
/// As text ([`Display`](fmt::Display)) it is a table, by [`to_svg`](Self::to_svg) a plot.
///
/// ```
/// # use llmkit_core::{checkpoint::Checkpoint, models::load_causal_lm, Device};
/// use llmkit_peft::{InitLora, Lora, LoraConfig, Spectrum, Targets};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../llmkit-core/tests/fixtures/llama/gqa-tied");
/// # let model = load_causal_lm(&Checkpoint::open(folder)?, &Device::Auto.resolve()?)?;
/// let config = LoraConfig::new(Targets::AllLinear).with_rank(4).with_init(InitLora::Random);
/// let lora = Lora::new(model.as_ref(), config, 0)?;
/// let spectrum = Spectrum::of_lora(&lora)?;
/// println!("{spectrum}");
/// assert!(spectrum.layers.iter().all(|layer| layer.effective_rank() <= 4.0 + 1e-3));
/// assert!(spectrum.to_svg().starts_with("<svg"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// The layers, in the model's order.
    pub layers: Vec<LayerSpectrum>,
}

/// The singular values of the change of one layer's weight.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpectrum {
    /// The layer's path.
    pub path: String,
    /// From the largest on. Of a LoRA, as many as its rank.
    pub singular_values: Vec<f32>,
    /// The sum of squares of the change's numbers: that of all singular values, those that are not listed included.
    pub energy: f64,
}

impl Spectrum {
    /// The spectrum of `scale B A` in each layer of a LoRA. It costs little, whatever the layers' size.
    ///
    /// # Errors
    /// [`Error::Combination`](crate::Error::Combination) if a layer has more than two factors (a bias of `lora_B`, DoRA): use
    /// [`between`](Self::between) with the merged model. [`Error::Factorisation`](crate::Error::Factorisation) for weights that are not finite.
    pub fn of_lora(lora: &Lora) -> Result<Self> {
        let mut factors = Factors::of(lora)?;
        let mut layers = Vec::new();
        for layer in lora.layers() {
            let path = crate::TunedLayer::path(layer);
            let Some(factors) = factors.remove(path) else { continue };
            let singular_values = factors.svd(path)?.s;
            let energy = squares(&singular_values);
            layers.push(LayerSpectrum { path: path.to_owned(), singular_values, energy });
        }
        Ok(Self { layers })
    }

    /// The `most` largest singular values of the difference between two models' linear layers and embeddings, such as a base and what an
    /// adapter of any method was merged into. Layers that are the same are left out. Where `most` is far less than a matrix's smaller side (above
    /// 128), a random sketch with 8 power iterations finds them, which is right where few directions change and close elsewhere.
    ///
    /// # Errors
    /// [`Error::OtherModel`](crate::Error::OtherModel) if the models are not of one architecture.
    pub fn between(base: &dyn Model, tuned: &dyn Model, most: usize) -> Result<Self> {
        let mut layers = Vec::new();
        for pair in pairs(base, tuned)? {
            let path = pair.before.path.clone();
            // A tied head is the embedding once more.
            let again = tuned.is_tied() && tuned.head_path() == Some(path.as_str());
            if pair.before.kind == LayerKind::Norm || again {
                continue;
            }
            let change = pair.difference();
            let energy = squares(&change.values);
            if energy > 0.0 {
                let singular_values = decompose(&change, most, EXACT_SIZE, &path)?.s;
                layers.push(LayerSpectrum { path, singular_values, energy });
            }
        }
        Ok(Self { layers })
    }

    /// The spectrum as a picture that needs nothing else: a panel for each kind of layer (the last part of its path), in it a curve for each
    /// block, the singular values over the largest one, from light (the first block) to dark (the last). The dot marks the effective rank.
    pub fn to_svg(&self) -> String {
        svg::draw(self)
    }
}

impl LayerSpectrum {
    /// The norm (Frobenius) of the change.
    pub fn norm(&self) -> f64 {
        self.energy.sqrt()
    }

    /// How many directions the change really has: `exp` of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007).
    /// It is the rank where all are equal, 1 where one has everything, and 0 without a change.
    pub fn effective_rank(&self) -> f64 {
        let total: f64 = self.singular_values.iter().map(|value| f64::from(*value)).sum();
        if total <= 0.0 {
            return 0.0;
        }
        let shares = self.singular_values.iter().map(|value| f64::from(*value) / total);
        shares.filter(|share| *share > 0.0).map(|share| -share * share.ln()).sum::<f64>().exp()
    }

    /// The smallest rank that keeps this share of the energy, if the listed values do.
    pub fn rank_for(&self, share: f64) -> Option<usize> {
        (0..=self.singular_values.len())
            .find(|rank| squares(&self.singular_values[..*rank]) >= share * self.energy * (1.0 - 1e-6))
    }
}

impl fmt::Display for Spectrum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|layer| layer.path.len()).max().unwrap_or(0).max(5);
        writeln!(
            formatter,
            "{:width$}  {:>6}  {:>9}  {:>8}  {:>10}  {:>10}",
            "layer", "values", "effective", "for 90 %", "largest", "norm"
        )?;
        for layer in &self.layers {
            let for_most = layer.rank_for(0.9).map_or_else(|| "more".to_owned(), |rank| rank.to_string());
            writeln!(
                formatter,
                "{:width$}  {:>6}  {:>9.2}  {:>8}  {:>10.3e}  {:>10.3e}",
                layer.path,
                layer.singular_values.len(),
                layer.effective_rank(),
                for_most,
                layer.singular_values.first().copied().unwrap_or(0.0),
                layer.norm()
            )?;
        }
        let mean = self.layers.iter().map(LayerSpectrum::effective_rank).sum::<f64>()
            / self.layers.len().max(1) as f64;
        write!(formatter, "{} layers, effective rank {mean:.2} on average", self.layers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::LayerSpectrum;

    fn layer(values: &[f32]) -> LayerSpectrum {
        let energy = super::squares(values);
        LayerSpectrum { path: "a".into(), singular_values: values.to_vec(), energy }
    }

    #[test]
    fn the_effective_rank_counts_directions() {
        assert!((layer(&[2.0, 2.0, 2.0]).effective_rank() - 3.0).abs() < 1e-9);
        assert!((layer(&[5.0, 0.0, 0.0]).effective_rank() - 1.0).abs() < 1e-9);
        assert_eq!(layer(&[0.0, 0.0]).effective_rank(), 0.0);
        // Shares 3/4 and 1/4: exp(0.5623).
        assert!((layer(&[3.0, 1.0]).effective_rank() - 1.7548).abs() < 1e-3);
    }

    #[test]
    fn a_rank_for_a_share_of_the_energy() {
        let layer = layer(&[3.0, 1.0, 0.0]);
        assert_eq!(
            [0.0, 0.9, 0.95, 1.0].map(|share| layer.rank_for(share)),
            [Some(0), Some(1), Some(2), Some(2)]
        );
        let cut = LayerSpectrum { energy: 20.0, ..layer };
        assert_eq!(cut.rank_for(0.9), None);
    }
}
