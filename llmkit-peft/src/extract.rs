use std::fmt;
use std::path::Path;

use llmkit_core::models::Model;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::combine::{Factors, FactorsPlace};
use crate::layers::MemoryTensors;
use crate::linalg::{Matrix, Svd, svd_double, svd_randomised};
use crate::weights::{LayerKind, Pair, pairs, squares};
use crate::{AdapterFolder, Error, Lora, LoraConfig, Result, Scope, Targets};

/// Matrices up to this size are decomposed exactly.
const EXACT_SIZE: usize = 1024;
/// Power iterations beyond it.
const ITERATIONS: usize = 8;

/// How a LoRA is taken out of a model that was fine-tuned whole.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractConfig {
    /// The linear layers that get an update of low rank; default all but the head.
    pub targets: Targets,
    /// Of which rank.
    pub rank: ExtractRank,
    /// Whether other layers that changed (norms, embeddings, the head) are put into the adapter whole, as PEFT's `modules_to_save`; default
    /// true. Otherwise their change is lost, and the report names them.
    pub save_others: bool,
}

/// The rank of an extracted update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExtractRank {
    /// The same in every layer.
    Fixed(usize),
    /// In each layer the smallest that keeps this share of the change's energy (the sum of squares of its numbers).
    Energy {
        /// The share, above 0 and up to 1.
        share: f64,
        /// The highest rank, whatever it keeps.
        most: usize,
    },
}

impl ExtractConfig {
    /// Updates of this rank in all linear layers but the head.
    pub fn new(rank: ExtractRank) -> Self {
        Self { targets: Targets::AllLinear, rank, save_others: true }
    }

    /// Sets which layers get an update of low rank.
    pub fn with_targets(self, targets: Targets) -> Self {
        Self { targets, ..self }
    }

    /// Sets whether other layers that changed are saved whole.
    pub fn with_save_others(self, save_others: bool) -> Self {
        Self { save_others, ..self }
    }

    fn validate(&self) -> Result<()> {
        let (expected, found) = match self.rank {
            ExtractRank::Fixed(rank) | ExtractRank::Energy { most: rank, .. }
                if !(1..=1 << 16).contains(&rank) =>
            {
                ("a rank in 1..=65536", rank.to_string())
            }
            ExtractRank::Energy { share, .. } if !(share > 0.0 && share <= 1.0) => {
                ("a share of energy above 0 and up to 1", share.to_string())
            }
            _ => return Ok(()),
        };
        Err(Error::Config {
            origin: "ExtractConfig".into(),
            field: "rank".into(),
            expected: expected.into(),
            found,
        })
    }
}

/// What was extracted, and what was not.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractReport {
    /// The layers that got an update of low rank, in the model's order.
    pub layers: Vec<ExtractedLayer>,
    /// Other layers that changed and were saved whole.
    pub saved_whole: Vec<String>,
    /// Layers whose change is lost.
    pub left_out: Vec<String>,
}

/// An update of low rank and what it keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractedLayer {
    /// The layer's path.
    pub path: String,
    /// The update's rank.
    pub rank: usize,
    /// The norm (Frobenius) of the change.
    pub change: f64,
    /// The share of the change's energy that the update keeps.
    pub energy: f64,
}

impl fmt::Display for ExtractReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|layer| layer.path.len()).max().unwrap_or(0).max(5);
        writeln!(formatter, "{:width$}  {:>5}  {:>10}  {:>7}", "layer", "rank", "change", "kept")?;
        for ExtractedLayer { path, rank, change, energy } in &self.layers {
            writeln!(formatter, "{path:width$}  {rank:>5}  {change:>10.3e}  {:>6.2}%", 100.0 * energy)?;
        }
        let list = |layers: &[String]| if layers.is_empty() { "none".to_owned() } else { layers.join(", ") };
        writeln!(formatter, "saved whole: {}", list(&self.saved_whole))?;
        write!(formatter, "left out: {}", list(&self.left_out))
    }
}

/// Makes a LoRA of what `tuned` has more than `base`: in each target the best approximation of the change of some rank, by the singular value
/// decomposition (Eckart and Young 1936), `B = U sqrt(S)`, `A = sqrt(S) V^T`.
///
/// Matrices whose smaller side is above 1024 are decomposed by a random sketch with 8 power iterations, which falls short of the best
/// approximation by little; the report says what each update keeps. Changed biases of targets go into the bias of `lora_B`.
///
/// # Errors
/// [`Error::OtherModel`] if the models are not of one architecture, [`Error::Combination`] if no target changed, [`Error::Config`] for an
/// impossible rank, [`Error::Factorisation`] for weights that are not finite.
pub fn extract(base: &dyn Model, tuned: &dyn Model, config: &ExtractConfig) -> Result<(Lora, ExtractReport)> {
    config.validate()?;
    let scope = Scope::new(config.targets.clone());
    let targets = scope.targets(None, Path::new("ExtractConfig"))?;
    let mut tensors = MemoryTensors::new("(an extracted LoRA)");
    let mut report = ExtractReport { layers: Vec::new(), saved_whole: Vec::new(), left_out: Vec::new() };
    let mut updates: Vec<(String, Factors)> = Vec::new();
    let mut biases: Vec<(String, Vec<f32>)> = Vec::new();
    for pair in pairs(base, tuned)? {
        let path = pair.before.path.clone();
        let change = pair.difference();
        let bias = pair.bias_difference().filter(|bias| squares(bias) > 0.0);
        let energy = squares(&change.values);
        let target = pair.before.kind == LayerKind::Linear
            && targets.matches(&path, base.head_path() == Some(path.as_str()));
        match (target, energy > 0.0 || bias.is_some()) {
            (_, false) => {}
            (true, true) => {
                let (factors, extracted) = update(&path, &change, energy, config.rank)?;
                report.layers.push(extracted);
                updates.push((path.clone(), factors));
                biases.extend(bias.map(|bias| (path, bias)));
            }
            (false, true) if config.save_others => {
                save_whole(&pair, &mut tensors);
                report.saved_whole.push(path);
            }
            (false, true) => report.left_out.push(path),
        }
    }
    let Some(rank) = updates.iter().map(|(_, factors)| factors.rank()).max() else {
        let reason = "no target layer differs between the two models, so there is nothing to extract".into();
        return Err(Error::Combination { reason });
    };

    let scope = Scope { modules_to_save: report.saved_whole.clone(), ..scope_of(&updates) };
    let mut lora = LoraConfig::new(scope).with_rank(rank).with_alpha(rank as f64);
    lora.lora_bias = !biases.is_empty();
    for (path, factors) in updates {
        if factors.rank() != rank {
            let pattern = format!("^{}$", regex::escape(&path));
            lora = lora.with_rank_for(pattern.clone(), factors.rank());
            lora = lora.with_alpha_for(pattern, factors.rank() as f64);
        }
        if lora.lora_bias {
            let bias = biases.iter().find(|(of, _)| *of == path).map(|(_, bias)| bias.clone());
            let bias = bias.unwrap_or_else(|| vec![0.0; factors.b.rows]);
            tensors.insert(format!("{}{path}.lora_B.bias", AdapterFolder::PREFIX), vec![bias.len()], bias);
        }
        factors.insert_into(&path, &mut tensors);
    }
    Ok((Lora::with_tensors(base, lora, &tensors)?, report))
}

fn scope_of(updates: &[(String, Factors)]) -> Scope {
    Scope::new(Targets::names(updates.iter().map(|(path, _)| path.clone())))
}

/// The update of one layer.
fn update(path: &str, change: &Matrix, energy: f64, rank: ExtractRank) -> Result<(Factors, ExtractedLayer)> {
    let most = match rank {
        ExtractRank::Fixed(rank) | ExtractRank::Energy { most: rank, .. } => rank,
    };
    let Svd { u, s, vt } = decompose(change, most, EXACT_SIZE, path)?;
    let squared = |values: &[f32]| squares(values) / energy.max(f64::MIN_POSITIVE);
    let rank = match rank {
        ExtractRank::Fixed(rank) => rank.min(s.len()),
        ExtractRank::Energy { share, .. } => {
            (1..=s.len()).find(|rank| squared(&s[..*rank]) >= share).unwrap_or(s.len())
        }
    };
    let kept = if energy == 0.0 { 1.0 } else { squared(&s[..rank]).min(1.0) };
    let roots: Vec<f32> = s.iter().take(rank).map(|value| value.sqrt()).collect();
    let (mut a, mut b) = (vt.first_rows(rank), u.first_columns(rank));
    a.scale_rows(&roots);
    b.scale_columns(&roots);
    let extracted = ExtractedLayer { path: path.to_owned(), rank, change: energy.sqrt(), energy: kept };
    Ok((Factors { a, b, scale: 1.0, place: FactorsPlace::Linear }, extracted))
}

/// The `most` largest singular values of `matrix` and their vectors: exactly where the smaller side is at most `exact_size` or not much more
/// than `most`, else by a random sketch.
pub(crate) fn decompose(matrix: &Matrix, most: usize, exact_size: usize, path: &str) -> Result<Svd> {
    let size = matrix.rows.min(matrix.columns);
    if size <= exact_size || 4 * most >= size {
        svd_double(matrix, most, path)
    } else {
        svd_randomised(matrix, most, ITERATIONS, &mut ChaCha8Rng::seed_from_u64(0), path)
    }
}

fn save_whole(pair: &Pair, tensors: &mut MemoryTensors) {
    let key = |end: &str| format!("{}{}.{end}", AdapterFolder::PREFIX, pair.after.path);
    let weight = pair.after.matrix();
    let shape = match pair.after.kind {
        LayerKind::Norm => vec![weight.columns],
        LayerKind::Linear | LayerKind::Embedding => vec![weight.rows, weight.columns],
    };
    tensors.insert(key("weight"), shape, weight.values);
    if let Some(bias) = pair.after.bias() {
        tensors.insert(key("bias"), vec![bias.len()], bias);
    }
}
