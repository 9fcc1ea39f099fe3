use std::cmp::Ordering;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How near two vectors `a` and `b` are. Higher is nearer for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The inner product `sum(a * b)`.
    Dot,
    /// The cosine of their angle, `sum(a * b) / (|a| |b|)`, in [-1, 1].
    Cosine,
    /// The negated Euclidean distance, `-sqrt(sum((a - b)^2))`, at most 0.
    Euclidean,
}

/// One result of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The vector's id.
    pub id: String,
    /// The [`Metric`]'s value: finite, higher is nearer. Sums beyond `f32` are shown as its largest value.
    pub score: f32,
}

/// Vectors in memory, all of which each search compares: exact, and quick enough for about 100,000 of them.
///
/// Only usable vectors get in, as data or as query: of the index's length, finite, and not zero (an embedding of zeros is a model's
/// failure under every metric). So every score is a number.
///
/// ```
/// use llmkit_rag::{FlatIndex, Metric};
///
/// # fn main() -> Result<(), llmkit_rag::Error> {
/// let mut index = FlatIndex::new(2, Metric::Cosine);
/// index.insert("east", &[2.0, 0.0])?;
/// index.insert("north", &[0.0, 1.0])?;
/// index.insert("north-east", &[3.0, 3.0])?;
///
/// let hits = index.search(&[1.0, 0.1], 2)?;
/// assert_eq!(hits[0].id, "east");
/// assert_eq!(hits[1].id, "north-east");
/// assert!(index.search(&[0.0, 0.0], 2).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FlatIndex {
    metric: Metric,
    dimensions: usize,
    ids: Vec<String>,
    places: HashMap<String, usize>,
    // Row `i` belongs to `ids[i]`. Under the cosine, rows have length 1.
    rows: Vec<f32>,
}

impl FlatIndex {
    /// An empty index for vectors of `dimensions` numbers.
    pub fn new(dimensions: usize, metric: Metric) -> Self {
        Self { metric, dimensions, ids: Vec::new(), places: HashMap::new(), rows: Vec::new() }
    }

    /// How nearness is measured.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The length of each vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether there is a vector of this id.
    pub fn contains(&self, id: &str) -> bool {
        self.places.contains_key(id)
    }

    /// Adds a vector.
    ///
    /// # Errors
    /// [`Error::DuplicateId`], [`Error::Dimensions`], [`Error::NotFinite`] or [`Error::ZeroVector`]; the index is then as it was.
    pub fn insert(&mut self, id: impl Into<String>, vector: &[f32]) -> Result<()> {
        let id = id.into();
        if self.contains(&id) {
            return Err(Error::DuplicateId { id });
        }
        let row = self.usable(&id, vector)?;
        self.rows.extend_from_slice(&row);
        self.places.insert(id.clone(), self.ids.len());
        self.ids.push(id);
        Ok(())
    }

    /// Removes a vector and says whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(place) = self.places.remove(id) else { return false };
        // The order of rows has no meaning, so the last one may fill the gap.
        self.ids.swap_remove(place);
        if let Some(moved) = self.ids.get(place) {
            self.places.insert(moved.clone(), place);
        }
        let (dimensions, last) = (self.dimensions, self.ids.len());
        self.rows.copy_within(last * dimensions.., place * dimensions);
        self.rows.truncate(last * dimensions);
        true
    }

    /// The `k` nearest vectors, nearest first, or all where there are fewer. Equal scores are ordered by id.
    ///
    /// # Errors
    /// [`Error::Dimensions`], [`Error::NotFinite`] or [`Error::ZeroVector`] if the query is unusable.
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<Hit>> {
        let query = self.usable("the query", query)?;
        let mut scored: Vec<(f32, &str)> = self
            .rows
            .chunks_exact(self.dimensions)
            .zip(&self.ids)
            .map(|(row, id)| (self.score(&query, row), id.as_str()))
            .collect();
        let nearer =
            |a: &(f32, &str), b: &(f32, &str)| -> Ordering { b.0.total_cmp(&a.0).then(a.1.cmp(b.1)) };
        if k < scored.len() {
            scored.select_nth_unstable_by(k, nearer);
            scored.truncate(k);
        }
        scored.sort_unstable_by(nearer);
        Ok(scored.into_iter().map(|(score, id)| Hit { id: id.to_owned(), score }).collect())
    }

    /// `vector` as a row: checked, and of length 1 under the cosine.
    fn usable(&self, id: &str, vector: &[f32]) -> Result<Vec<f32>> {
        if vector.len() != self.dimensions {
            return Err(Error::Dimensions {
                id: id.to_owned(),
                expected: self.dimensions,
                found: vector.len(),
            });
        }
        if let Some(position) = vector.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { id: id.to_owned(), position, value: vector[position] });
        }
        if vector.iter().all(|value| *value == 0.0) {
            return Err(Error::ZeroVector { id: id.to_owned() });
        }
        if self.metric != Metric::Cosine {
            return Ok(vector.to_vec());
        }
        // In f64 the square of the smallest f32 is not yet 0, nor that of the largest infinite.
        let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        Ok(vector.iter().map(|value| (f64::from(*value) / norm) as f32).collect())
    }

    fn score(&self, query: &[f32], row: &[f32]) -> f32 {
        let score = match self.metric {
            Metric::Dot => finite_sum(query, row, |a, b| a * b, |a, b| a * b),
            Metric::Cosine => sum(query, row, |a, b| a * b).clamp(-1.0, 1.0),
            Metric::Euclidean => {
                let squares = sum(query, row, |a, b| (a - b) * (a - b));
                match squares.is_normal() {
                    true => -squares.sqrt(),
                    // Too large or too small for f32: the square root may not be.
                    false => -bounded(sum64(query, row, |a, b| (a - b) * (a - b)).sqrt()),
                }
            }
        };
        // -0 equals 0 and must tie with it.
        score + 0.0
    }
}

/// `sum(term(a, b))` in `f32`, or in `f64` where that overflows.
fn finite_sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32, term64: impl Fn(f64, f64) -> f64) -> f32 {
    let total = sum(a, b, term);
    if total.is_finite() { total } else { bounded(sum64(a, b, term64)) }
}

/// `sum(term(a, b))` over slices of one length, in eight lanes that the compiler turns into vector instructions.
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| term(*a, *b)).sum();
    for (a, b) in a.zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += term(*a, *b);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

fn sum64(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    a.iter().zip(b).map(|(a, b)| term(f64::from(*a), f64::from(*b))).sum()
}

/// The nearest finite `f32`.
fn bounded(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: [Metric; 3] = [Metric::Dot, Metric::Cosine, Metric::Euclidean];

    fn index(metric: Metric, rows: &[(&str, [f32; 2])]) -> FlatIndex {
        let mut index = FlatIndex::new(2, metric);
        for (id, row) in rows {
            index.insert(*id, row).unwrap();
        }
        index
    }

    fn scores(index: &FlatIndex, query: [f32; 2]) -> Vec<(String, f32)> {
        index.search(&query, usize::MAX).unwrap().into_iter().map(|hit| (hit.id, hit.score)).collect()
    }

    #[test]
    fn each_metric_has_its_own_nearest() {
        let rows = [("far", [9.0, 9.0]), ("near", [1.0, 0.5]), ("along", [4.0, 0.0])];
        let first = |metric| scores(&index(metric, &rows), [2.0, 0.0]).remove(0);
        assert_eq!(first(Metric::Dot), ("far".to_owned(), 18.0));
        assert_eq!(first(Metric::Cosine), ("along".to_owned(), 1.0));
        assert_eq!(first(Metric::Euclidean), ("near".to_owned(), -1.25_f32.sqrt()));
    }

    #[test]
    fn equal_scores_are_ordered_by_id_also_where_k_cuts_them() {
        for metric in METRICS {
            let rows = [("c", [1.0, 0.0]), ("a", [1.0, 0.0]), ("d", [1.0, 0.0]), ("b", [1.0, 0.0])];
            let hits = index(metric, &rows).search(&[1.0, 0.0], 2).unwrap();
            assert_eq!(hits.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        }
        // 0 and -0.
        let zeros = index(Metric::Dot, &[("b", [0.0, 1.0]), ("a", [-0.0, -1.0])]);
        assert_eq!(scores(&zeros, [1.0, 0.0]), [("a".to_owned(), 0.0), ("b".to_owned(), 0.0)]);
    }

    #[test]
    fn unusable_vectors_are_errors_as_data_and_as_query() {
        for metric in METRICS {
            let mut index = index(metric, &[("a", [1.0, 2.0])]);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(matches!(index.insert("b", &[1.0, bad]), Err(Error::NotFinite { position: 1, .. })));
                assert!(matches!(index.search(&[1.0, bad], 1), Err(Error::NotFinite { position: 1, .. })));
            }
            assert!(matches!(index.insert("b", &[0.0, -0.0]), Err(Error::ZeroVector { .. })));
            assert!(matches!(index.search(&[0.0, -0.0], 1), Err(Error::ZeroVector { .. })));
            for bad in [&[1.0][..], &[1.0, 2.0, 3.0], &[]] {
                assert!(matches!(index.insert("b", bad), Err(Error::Dimensions { expected: 2, .. })));
                assert!(matches!(index.search(bad, 1), Err(Error::Dimensions { expected: 2, .. })));
            }
            assert!(matches!(index.insert("a", &[1.0, 2.0]), Err(Error::DuplicateId { .. })));
            assert_eq!(index.len(), 1);
        }
        assert!(FlatIndex::new(0, Metric::Dot).insert("a", &[]).is_err());
        assert!(FlatIndex::new(0, Metric::Dot).search(&[], 1).is_err());
    }

    #[test]
    fn extreme_vectors_have_finite_scores() {
        let (huge, tiny) = (f32::MAX, f32::from_bits(1));
        let rows = [("+", [huge, huge]), ("-", [-huge, -huge]), ("±", [huge, -huge]), ("0", [tiny, tiny])];
        for metric in METRICS {
            for (_, query) in rows {
                let scores = scores(&index(metric, &rows), query);
                assert!(scores.iter().all(|(_, score)| score.is_finite()), "{metric:?} {query:?} {scores:?}");
            }
        }
        let cosine = scores(&index(Metric::Cosine, &rows), [tiny, tiny]);
        assert!((cosine[0].1 - 1.0).abs() < 1e-6 && cosine[1].1 > 0.999, "{cosine:?}");
        // The differences' squares are below f32; the distance is not.
        let near = index(Metric::Euclidean, &[("a", [3e-30, 1e-30])]);
        assert!((scores(&near, [0.0, 5e-30])[0].1 / -5e-30 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_removed_vector_is_not_found_and_the_others_keep_theirs() {
        let rows = [("a", [1.0, 0.0]), ("b", [2.0, 0.0]), ("c", [3.0, 0.0])];
        for (gone, left) in [("a", ["c", "b"]), ("b", ["c", "a"]), ("c", ["b", "a"])] {
            let mut index = index(Metric::Dot, &rows);
            assert!(index.remove(gone));
            assert!(!index.remove(gone));
            let expected: Vec<(String, f32)> = left
                .iter()
                .map(|id| ((*id).to_owned(), rows.iter().find(|row| row.0 == *id).unwrap().1[0]))
                .collect();
            assert_eq!(scores(&index, [1.0, 0.0]), expected);
            index.insert(gone, &[9.0, 0.0]).unwrap();
            assert_eq!(scores(&index, [1.0, 0.0])[0], (gone.to_owned(), 9.0));
        }
    }
}
