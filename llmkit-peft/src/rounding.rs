use std::fmt;
use std::path::Path;

use llmkit_core::checkpoint::gguf::GgufType;
use llmkit_core::models::{Model, Pretrained};

use crate::weights::{LayerKind, pairs, squares};
use crate::{Error, Result};

/// Below this share of an update that is left, a file would hold the base model rather than the fine-tuned one.
const LEAST_KEPT: f64 = 0.5;

/// What storing a fine-tuned model in few bits does to what it has learned.
///
/// A base that comes out of a quantised file lies on that file's grid: an update of less than half a step is rounded away when the merged
/// model is stored in the same type, so that the file holds the base again. `kept` measures that: the projection of what the file has more than
/// the base onto the update, 1 where the update is whole (give or take noise), 0 where it is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundingReport {
    /// The type of the file's weights.
    pub weights: GgufType,
    /// The layers that the update changes, in the model's order.
    pub layers: Vec<LayerRounding>,
}

/// The same for one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRounding {
    /// Its path.
    pub path: String,
    /// The norm (Frobenius) of the update.
    pub update: f64,
    /// The norm of the rounding error.
    pub rounding: f64,
    /// The share of the update that is left.
    pub kept: f64,
}

impl RoundingReport {
    /// The share of the whole update that is left; 1 if there is no update.
    pub fn kept(&self) -> f64 {
        let total: f64 = self.layers.iter().map(|layer| layer.update.powi(2)).sum();
        if total == 0.0 {
            return 1.0;
        }
        self.layers.iter().map(|layer| layer.kept * layer.update.powi(2)).sum::<f64>() / total
    }

    /// The norm of all rounding errors over that of the whole update: how loud the noise is beside it.
    pub fn noise(&self) -> f64 {
        let total = |of: fn(&LayerRounding) -> f64| -> f64 {
            self.layers.iter().map(|layer| of(layer).powi(2)).sum::<f64>().sqrt()
        };
        let update = total(|layer| layer.update);
        if update == 0.0 { 0.0 } else { total(|layer| layer.rounding) / update }
    }
}

impl fmt::Display for RoundingReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|layer| layer.path.len()).max().unwrap_or(0).max(5);
        writeln!(formatter, "{:width$}  {:>10}  {:>10}  {:>6}", "layer", "update", "rounding", "kept")?;
        for LayerRounding { path, update, rounding, kept } in &self.layers {
            writeln!(formatter, "{path:width$}  {update:>10.3e}  {rounding:>10.3e}  {:>5.1}%", 100.0 * kept)?;
        }
        write!(
            formatter,
            "as {:?}, {:.1} % of the update is left, beside rounding noise of {:.2} times its size",
            self.weights,
            100.0 * self.kept(),
            self.noise()
        )
    }
}

/// Says what storing `merged` as a GGUF file of `weights` would do to its difference from `base`.
///
/// # Errors
/// [`Error::OtherModel`] if the two are not of one architecture.
pub fn rounding_report(base: &dyn Model, merged: &dyn Model, weights: GgufType) -> Result<RoundingReport> {
    let mut layers = Vec::new();
    for pair in pairs(base, merged)? {
        // Norms are stored in full. A tied head is the embedding once more.
        let again = merged.is_tied() && merged.head_path() == Some(&pair.after.path);
        if pair.after.kind == LayerKind::Norm || again {
            continue;
        }
        let update = pair.difference();
        let update_squares = squares(&update.values);
        if update_squares == 0.0 {
            continue;
        }
        let is_output = match pair.after.kind {
            LayerKind::Embedding => merged.is_tied(),
            _ => merged.head_path() == Some(&pair.after.path),
        };
        let kind = if weights == GgufType::Q4_0 && is_output { GgufType::Q8_0 } else { weights };
        let (before, after) = (pair.before.matrix(), pair.after.matrix());
        let stored = kind.round(&after.values, after.columns);
        let (mut along, mut rounding) = (0.0, 0.0);
        for (((stored, after), before), update) in
            stored.iter().zip(&after.values).zip(&before.values).zip(&update.values)
        {
            along += f64::from(stored - before) * f64::from(*update);
            rounding += f64::from(stored - after).powi(2);
        }
        layers.push(LayerRounding {
            path: pair.after.path.clone(),
            update: update_squares.sqrt(),
            rounding: rounding.sqrt(),
            kept: along / update_squares,
        });
    }
    Ok(RoundingReport { weights, layers })
}

/// Writes a merged model as a GGUF file, unless that would lose what it has learned, and reports what rounding did to it.
///
/// # Errors
/// [`Error::UpdateLost`] if less than half of the update would be left; whatever
/// [`Pretrained::save_gguf`](llmkit_core::models::Pretrained::save_gguf) reports.
pub fn save_merged_gguf(
    base: &dyn Model,
    merged: &Pretrained,
    path: impl AsRef<Path>,
    weights: GgufType,
) -> Result<RoundingReport> {
    let path = path.as_ref();
    let report = rounding_report(base, merged.model.as_ref(), weights)?;
    if report.kept() < LEAST_KEPT {
        let weights = format!("{weights:?}");
        return Err(Error::UpdateLost { path: path.to_path_buf(), weights, kept: report.kept() });
    }
    merged.save_gguf(path, weights)?;
    Ok(report)
}
