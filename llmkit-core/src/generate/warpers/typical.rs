use super::super::candidate::Candidate;
use super::{log_probabilities, retain};

/// Locally typical sampling (Meister et al. 2022, arXiv 2202.00666): keeps the candidates whose surprise `-ln p` is closest to the entropy,
/// as few as have a probability of at least `mass` together, and those just as close as the last of them.
pub(in super::super) fn keep(candidates: &mut Vec<Candidate>, mass: f32) {
    if mass >= 1.0 {
        return;
    }
    let (logs, entropy) = log_probabilities(candidates);
    // Rounded to f32: two tokens that are equally close, one likelier and one less likely, must not be told apart by rounding.
    let distances: Vec<f32> = logs.iter().map(|log| (-log - entropy).abs() as f32).collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
    let mut sum = 0.0;
    let mut farthest = f32::INFINITY;
    for index in order {
        sum += logs[index].exp();
        if sum >= f64::from(mass) {
            farthest = distances[index];
            break;
        }
    }
    retain(candidates, distances.iter().map(|distance| *distance <= farthest));
}
