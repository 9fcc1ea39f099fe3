use rand::Rng;

/// A normal number of mean 0 and standard deviation 1, by Box and Muller's method (1958).
pub(crate) fn standard_normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// `len` normal numbers of mean 0.
pub(crate) fn normal(len: usize, std: f64, rng: &mut impl Rng) -> Vec<f32> {
    (0..len).map(|_| (std * standard_normal(rng)) as f32).collect()
}

/// `len` numbers uniform in `±bound`.
pub(crate) fn uniform(len: usize, bound: f64, rng: &mut impl Rng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-bound..bound) as f32).collect()
}
