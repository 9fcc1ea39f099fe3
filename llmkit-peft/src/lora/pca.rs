use super::eva::sketch_rng;
use crate::Result;
use crate::linalg::{Matrix, svd_randomised};

/// The principal directions of rows that come in batches (Ross et al. 2008): each batch is worked into those of all before it, which need
/// not be kept.
#[derive(Debug)]
pub(super) struct IncrementalPca {
    size: usize,
    seen: f64,
    mean: Vec<f64>,
    /// The sum of the columns' squared distances from their mean.
    scatter: Vec<f64>,
    components: Option<Components>,
    converged: Vec<bool>,
}

/// Directions from the most important on.
#[derive(Debug, Clone)]
pub(super) struct Components {
    /// `[size, width]`, orthonormal rows.
    pub(super) directions: Matrix,
    /// `[size]`: the singular values.
    pub(super) lengths: Vec<f32>,
}

impl IncrementalPca {
    /// Looks for `size` directions.
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            seen: 0.0,
            mean: Vec::new(),
            scatter: Vec::new(),
            components: None,
            converged: vec![false; size],
        }
    }

    pub(super) fn components(&self) -> Option<&Components> {
        self.components.as_ref()
    }

    /// Whether the first `count` directions are as they were a batch before.
    pub(super) fn has_converged(&self, count: usize) -> bool {
        self.converged.iter().take(count).all(|converged| *converged)
    }

    /// The share of the variance that each direction explains.
    pub(super) fn explained(&self) -> Vec<f64> {
        let total: f64 = self.scatter.iter().sum();
        let Some(components) = &self.components else { return Vec::new() };
        components.lengths.iter().map(|s| f64::from(*s).powi(2) / total.max(f64::MIN_POSITIVE)).collect()
    }

    /// Works in the rows of `batch`, unless there are fewer than directions. `tau` is the cosine from which on a direction has converged.
    ///
    /// # Shapes
    /// `batch [rows, width]`
    pub(super) fn add(&mut self, batch: &Matrix, tau: f64, path: &str) -> Result<()> {
        let (rows, width) = (batch.rows as f64, batch.columns);
        if batch.rows < self.size || width == 0 {
            tracing::debug!(layer = path, rows, "fewer positions than directions: the batch is left out");
            return Ok(());
        }
        let mut mean = vec![0.0f64; width];
        for row in batch.values.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= rows);
        let mut scatter = vec![0.0f64; width];
        let mut centred = Vec::with_capacity((self.size + batch.rows + 1) * width);
        let before = self.components.take();
        if let Some(Components { directions, lengths }) = &before {
            let mut weighted = directions.clone();
            weighted.scale_rows(lengths);
            centred.extend(weighted.values);
        }
        for row in batch.values.chunks_exact(width) {
            for ((value, mean), scatter) in row.iter().zip(&mean).zip(&mut scatter) {
                let distance = f64::from(*value) - mean;
                *scatter += distance * distance;
                centred.push(distance as f32);
            }
        }
        let seen = self.seen + rows;
        if before.is_some() {
            // What the means of the two parts differ by is one more row.
            let weight = self.seen * rows / seen;
            for (column, mean) in mean.iter().enumerate() {
                let difference = self.mean[column] - mean;
                centred.push((weight.sqrt() * difference) as f32);
                scatter[column] += self.scatter[column] + weight * difference * difference;
            }
            for (mean, old) in mean.iter_mut().zip(&self.mean) {
                *mean = (*mean * rows + old * self.seen) / seen;
            }
        }
        let stacked = Matrix::new(centred.len() / width, width, centred);
        let mut svd = svd_randomised(&stacked, self.size, 4, &mut sketch_rng(), path)?;
        // Vectors and their negatives serve as well; this makes the choice the same everywhere.
        let signs: Vec<f32> = svd.vt.values.chunks_exact(width).map(sign_of_largest).collect();
        svd.vt.scale_rows(&signs);
        if let Some(Components { directions, .. }) = &before {
            let pairs = directions.values.chunks_exact(width).zip(svd.vt.values.chunks_exact(width));
            self.converged = pairs.map(|(old, new)| cosine(old, new) >= tau).collect();
        }
        (self.seen, self.mean, self.scatter) = (seen, mean, scatter);
        self.components = Some(Components { directions: svd.vt, lengths: svd.s });
        Ok(())
    }
}

fn sign_of_largest(row: &[f32]) -> f32 {
    let largest = row.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
    largest.map_or(1.0, f32::signum)
}

/// Of two vectors of length 1.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::IncrementalPca;
    use crate::linalg::Matrix;
    use crate::random::normal;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Three strong directions in eight dimensions, around a mean.
    fn rows(count: usize, seed: u64) -> Matrix {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut directions = Matrix::new(3, 8, normal(24, 1.0, &mut ChaCha8Rng::seed_from_u64(1)));
        directions.scale_rows(&[5.0, 2.0, 1.0]);
        let mut rows = Matrix::new(count, 3, normal(3 * count, 1.0, &mut rng)).matmul(&directions);
        let noise = normal(8 * count, 0.01, &mut rng);
        rows.values
            .iter_mut()
            .zip(noise)
            .enumerate()
            .for_each(|(i, (v, noise))| *v += noise + (i % 8) as f32);
        rows
    }

    #[test]
    fn batches_give_what_all_rows_at_once_give() {
        let (first, second) = (rows(40, 2), rows(25, 3));
        let all = Matrix::new(65, 8, [first.values.clone(), second.values.clone()].concat());
        let (mut apart, mut at_once) = (IncrementalPca::new(3), IncrementalPca::new(3));
        apart.add(&first, 0.99, "layer").unwrap();
        assert!(!apart.has_converged(1));
        apart.add(&second, 0.99, "layer").unwrap();
        assert!(apart.has_converged(1));
        at_once.add(&all, 0.99, "layer").unwrap();
        for (a, b) in apart.explained().iter().zip(at_once.explained()) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
        let (a, b) = (apart.components().unwrap(), at_once.components().unwrap());
        for (a, b) in a.directions.values.iter().zip(&b.directions.values) {
            assert!((a - b).abs() < 1e-2, "{a} {b}");
        }
        let explained: f64 = apart.explained().iter().sum();
        assert!((0.99..=1.0 + 1e-6).contains(&explained), "{explained}");
    }

    #[test]
    fn too_few_rows_are_left_out() {
        let mut pca = IncrementalPca::new(3);
        pca.add(&rows(2, 4), 0.99, "layer").unwrap();
        assert!(pca.components().is_none());
    }
}
