use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// `len` normal numbers of mean zero, by Box and Muller's method (1958).
pub(crate) fn normal(len: usize, std: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len)
        .map(|_| {
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            (std * radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
        })
        .collect()
}
