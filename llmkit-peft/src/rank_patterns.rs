use std::path::Path;

use indexmap::IndexMap;
use regex::Regex;

use crate::layers::{AdapterFolder, compile_pattern, lookup_pattern};
use crate::{Attach, Error, Result, Sizes};

/// The rank and the scale `alpha / r` of each layer, by PEFT's `rank_pattern` and `alpha_pattern`, ready to be asked.
#[derive(Debug, Clone)]
pub struct RankPatterns {
    rank: usize,
    alpha: f64,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl RankPatterns {
    /// Checks and compiles them; `origin` is where they came from, for errors.
    ///
    /// # Errors
    /// [`Error::Config`] for ranks out of 1..=65536, alphas that are not finite, and patterns that don't compile.
    pub fn new(
        rank: usize,
        alpha: f64,
        rank_pattern: &IndexMap<String, usize>,
        alpha_pattern: &IndexMap<String, f64>,
        origin: &Path,
    ) -> Result<Self> {
        let wrong = |field: &str, expected: &str, found: String| Error::Config {
            origin: origin.into(),
            field: field.into(),
            expected: expected.into(),
            found,
        };
        let mut every_rank = std::iter::once(&rank).chain(rank_pattern.values());
        if let Some(rank) = every_rank.find(|rank| !(1..=1 << 16).contains(*rank)) {
            return Err(wrong("r", "an integer in 1..=65536", rank.to_string()));
        }
        let mut every_alpha = std::iter::once(&alpha).chain(alpha_pattern.values());
        if let Some(alpha) = every_alpha.find(|alpha| !alpha.is_finite()) {
            return Err(wrong("alpha", "a finite number", alpha.to_string()));
        }
        Ok(Self {
            rank,
            alpha,
            ranks: compile_pattern(
                rank_pattern.iter().map(|(key, rank)| (key, *rank)),
                "rank_pattern",
                origin,
            )?,
            alphas: compile_pattern(
                alpha_pattern.iter().map(|(key, alpha)| (key, *alpha)),
                "alpha_pattern",
                origin,
            )?,
        })
    }

    /// Those of the layer of this path.
    pub fn of(&self, path: &str) -> Sizes {
        let rank = lookup_pattern(&self.ranks, path).copied().unwrap_or(self.rank);
        let alpha = lookup_pattern(&self.alphas, path).copied().unwrap_or(self.alpha);
        Sizes { rank, scale: alpha / rank as f64 }
    }
}

/// Checks a probability of dropout; `field` and `origin` are for the error.
pub(crate) fn check_probability(probability: f64, field: &str, origin: &Path) -> Result<()> {
    if (0.0..1.0).contains(&probability) {
        return Ok(());
    }
    Err(Error::Config {
        origin: origin.into(),
        field: field.into(),
        expected: "a probability in [0, 1)".into(),
        found: probability.to_string(),
    })
}

/// Checks, where an adapter's file is read, that it has tensors of these shapes for the layer, before memory is taken for them.
pub(crate) fn expect_in_file<S>(
    attach: &Attach<'_, S>,
    path: &str,
    tensors: &[(&str, &[usize])],
) -> Result<()> {
    let Some(file) = attach.file else { return Ok(()) };
    let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
    for (end, shape) in tensors {
        let key = format!("{}{path}.{end}", AdapterFolder::PREFIX);
        match file.info(&key) {
            None => missing.push(key),
            Some(info) if info.shape != *shape => {
                mismatched.push(format!("{key}: expected {shape:?}, found {:?}", info.shape));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() && mismatched.is_empty() {
        return Ok(());
    }
    Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected: Vec::new(), mismatched })
}
