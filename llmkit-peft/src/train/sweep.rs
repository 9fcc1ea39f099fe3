use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::{Objective, Observer, TrainConfig, Trainer};
use crate::{Error, PeftModule, Result, parameters};

/// What [`rank_sweep`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct RankSweep {
    /// One for each rank, in the order that was asked for.
    pub rows: Vec<RankRow>,
}

/// How one rank did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankRow {
    /// The rank.
    pub rank: usize,
    /// What trained.
    pub parameters: usize,
    /// The mean loss over the run's steps.
    pub train_loss: f64,
    /// The mean loss on the held-out data at the end.
    pub heldout_loss: f64,
    /// The share of the held-out labels told right at the end, where the objective decides between some.
    pub heldout_accuracy: Option<f64>,
    /// How long the run took, in seconds.
    pub seconds: f64,
}

/// Trains a fresh adapter of each rank for the same steps over the same data in the same order, and scores each on `heldout`.
///
/// `fresh` makes the adapter of a rank; give it a fixed seed. The learning rate is the same for all, so a scale that doesn't depend on the
/// rank (`alpha / rank` with an alpha that grows with it, or rsLoRA) keeps the comparison fair.
///
/// # Errors
/// [`Error::NoData`] without ranks or held-out data, and what [`Trainer::fit`] and `fresh` say.
pub fn rank_sweep<A: PeftModule, O: Objective + ?Sized>(
    model: &Arc<O>,
    ranks: &[usize],
    fresh: impl Fn(usize) -> Result<A>,
    config: TrainConfig,
    (train, heldout): (&[O::Example], &[O::Example]),
    observer: &mut dyn Observer,
) -> Result<RankSweep> {
    if ranks.is_empty() {
        return Err(Error::NoData { reason: "no rank to try".into() });
    }
    let mut rows = Vec::new();
    for rank in ranks {
        let begin = Instant::now();
        let adapter = fresh(*rank)?;
        let parameters = parameters::sizes(&adapter).into_iter().map(|(_, size)| size).sum();
        let mut trainer = Trainer::new(model.clone(), adapter, config)?;
        let report = trainer.fit(train, heldout, observer)?;
        let heldout_loss = report.heldout_loss.ok_or_else(|| Error::NoData {
            reason: "a rank is judged by held-out data, of which there is none".into(),
        })?;
        rows.push(RankRow {
            rank: *rank,
            parameters,
            train_loss: report.mean_loss,
            heldout_loss,
            heldout_accuracy: report.heldout_accuracy,
            seconds: begin.elapsed().as_secs_f64(),
        });
    }
    Ok(RankSweep { rows })
}

impl RankSweep {
    /// The row of the lowest held-out loss; of equal ones, that of the lowest rank.
    pub fn best(&self) -> &RankRow {
        let lower =
            |a: &&RankRow, b: &&RankRow| a.heldout_loss.total_cmp(&b.heldout_loss).then(a.rank.cmp(&b.rank));
        self.rows.iter().min_by(lower).expect("a sweep has a row")
    }

    /// The row of the lowest rank whose held-out loss is at most `share` above the best: 0.01 for one percent.
    pub fn smallest_within(&self, share: f64) -> &RankRow {
        let most = self.best().heldout_loss * (1.0 + share);
        let near = self.rows.iter().filter(|row| row.heldout_loss <= most);
        near.min_by_key(|row| row.rank).unwrap_or_else(|| self.best())
    }
}

impl fmt::Display for RankSweep {
    /// A Markdown table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| rank | parameters | train loss | held-out loss | accuracy | seconds |")?;
        writeln!(f, "|---:|---:|---:|---:|---:|---:|")?;
        for row in &self.rows {
            let RankRow { rank, parameters, train_loss, heldout_loss, heldout_accuracy, seconds } = row;
            let accuracy = heldout_accuracy.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
            writeln!(
                f,
                "| {rank} | {parameters} | {train_loss:.4} | {heldout_loss:.4} | {accuracy} | {seconds:.1} |"
            )?;
        }
        Ok(())
    }
}
