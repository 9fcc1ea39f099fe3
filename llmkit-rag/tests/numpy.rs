//! Exact search against NumPy; `scripts/make_rag_fixtures.py` makes the fixture.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use approx::assert_relative_eq;
use llmkit_rag::{FlatIndex, Metric};

#[derive(serde::Deserialize)]
struct Fixture {
    rows: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    scores: HashMap<Metric, Vec<Vec<f32>>>,
    nearest: HashMap<Metric, Vec<Vec<usize>>>,
}

#[test]
fn the_nearest_vectors_and_their_scores_are_numpys() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/nearest.json")).unwrap();
    assert_eq!((fixture.rows.len(), fixture.scores.len()), (40, 3));
    for (metric, scores) in &fixture.scores {
        let mut index = FlatIndex::new(19, *metric);
        for (row, vector) in fixture.rows.iter().enumerate() {
            index.insert(row.to_string(), vector).unwrap();
        }
        for (query, vector) in fixture.queries.iter().enumerate() {
            let hits = index.search(vector, 10).unwrap();
            let found: Vec<usize> = hits.iter().map(|hit| hit.id.parse().unwrap()).collect();
            assert_eq!(found, fixture.nearest[metric][query], "{metric:?}");
            for hit in index.search(vector, 40).unwrap() {
                let row: usize = hit.id.parse().unwrap();
                assert_relative_eq!(hit.score, scores[query][row], epsilon = 2e-6, max_relative = 2e-6);
            }
        }
    }
}
