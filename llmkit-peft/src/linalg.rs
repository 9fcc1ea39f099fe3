//! Matrix factorisations on the host, for what is computed once a layer and not at every step.
//!
//! Matrices are `f32` and row-major, as burn's tensors come out. Nothing here is tracked by autodiff.

use burn::tensor::{Device, Tensor, TensorData};
use faer::{Mat, MatRef};
use rand::Rng;

use crate::random::normal;
use crate::{Error, Result};

/// A matrix on the host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// `[rows, columns]`, row by row.
    pub(crate) values: Vec<f32>,
}

/// `U diag(S) V^T`, with the singular values from the largest on.
#[derive(Debug, Clone)]
pub(crate) struct Svd {
    /// `[rows, rank]`, orthonormal columns.
    pub(crate) u: Matrix,
    /// `[rank]`
    pub(crate) s: Vec<f32>,
    /// `[rank, columns]`, orthonormal rows.
    pub(crate) vt: Matrix,
}

/// `Q R`, without pivoting.
#[derive(Debug, Clone)]
pub(crate) struct Qr {
    /// `[rows, min(rows, columns)]`, orthonormal columns.
    pub(crate) q: Matrix,
    /// `[min(rows, columns), columns]`, zero below the diagonal.
    pub(crate) r: Matrix,
}

impl Matrix {
    /// # Panics
    /// If `values` does not hold `rows * columns` numbers.
    pub(crate) fn new(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of [{rows}, {columns}]");
        Self { rows, columns, values }
    }

    /// A tensor's values.
    ///
    /// # Shapes
    /// `tensor [rows, columns]`
    pub(crate) fn from_tensor(tensor: Tensor<2>) -> Self {
        let [rows, columns] = tensor.dims();
        let values = tensor.without_autodiff().try_into_vec_as::<f32>();
        Self::new(rows, columns, values.expect("weights are numbers"))
    }

    /// # Shapes
    /// `[rows, columns]`
    pub(crate) fn to_tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.values.clone(), [self.rows, self.columns]), device)
    }

    pub(crate) fn transposed(&self) -> Self {
        from_faer(self.view().transpose())
    }

    /// `self other`.
    ///
    /// # Panics
    /// If the inner dimensions differ.
    pub(crate) fn matmul(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows, "a product of matrices");
        from_faer((self.view() * other.view()).as_ref())
    }

    /// The first `count` columns, or all.
    pub(crate) fn first_columns(&self, count: usize) -> Self {
        from_faer(self.view().get(.., ..count.min(self.columns)))
    }

    /// The first `count` rows, or all.
    pub(crate) fn first_rows(&self, count: usize) -> Self {
        let rows = count.min(self.rows);
        Self::new(rows, self.columns, self.values[..rows * self.columns].to_vec())
    }

    /// These rows, in this order.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn pick_rows(&self, rows: &[usize]) -> Self {
        let picked = rows.iter().flat_map(|row| &self.values[row * self.columns..][..self.columns]);
        Self::new(rows.len(), self.columns, picked.copied().collect())
    }

    /// The same with rows and columns of zeros behind.
    ///
    /// # Panics
    /// If it is larger than that already.
    pub(crate) fn padded(&self, rows: usize, columns: usize) -> Self {
        let mut values = vec![0.0; rows * columns];
        if self.columns > 0 {
            for (row, old) in self.values.chunks_exact(self.columns).enumerate() {
                values[row * columns..][..self.columns].copy_from_slice(old);
            }
        }
        Self::new(rows, columns, values)
    }

    /// Multiplies row `i` by `factors[i]`.
    pub(crate) fn scale_rows(&mut self, factors: &[f32]) {
        for (row, factor) in self.values.chunks_exact_mut(self.columns.max(1)).zip(factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
    }

    /// Multiplies column `i` by `factors[i]`.
    pub(crate) fn scale_columns(&mut self, factors: &[f32]) {
        for row in self.values.chunks_exact_mut(self.columns.max(1)) {
            row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
        }
    }

    fn view(&self) -> MatRef<'_, f32> {
        MatRef::from_row_major_slice(&self.values, self.rows, self.columns)
    }

    /// The factorisations search for ever on numbers that are none.
    fn check_finite(&self, path: &str) -> Result<()> {
        match self.values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(Error::Factorisation {
                path: path.to_owned(),
                reason: format!("element {index} of its values is {}", self.values[index]),
            }),
        }
    }
}

/// The `rank` largest singular values (or all, where there are fewer) with their vectors. `path` names the layer, for errors.
///
/// # Errors
/// [`Error::Factorisation`] for values that are not finite.
pub(crate) fn svd_thin(matrix: &Matrix, rank: usize, path: &str) -> Result<Svd> {
    matrix.check_finite(path)?;
    let svd = matrix.view().thin_svd().map_err(|error| Error::Factorisation {
        path: path.to_owned(),
        reason: format!("no singular value decomposition was found: {error:?}"),
    })?;
    let rank = rank.min(matrix.rows).min(matrix.columns);
    Ok(Svd {
        u: from_faer(svd.U().get(.., ..rank)),
        s: svd.S().column_vector().iter().take(rank).copied().collect(),
        vt: from_faer(svd.V().get(.., ..rank).transpose()),
    })
}

/// The same computed in double precision, where what is left out lies close to what is kept: twice the time, and right to the last digits.
///
/// # Errors
/// As [`svd_thin`].
pub(crate) fn svd_double(matrix: &Matrix, rank: usize, path: &str) -> Result<Svd> {
    matrix.check_finite(path)?;
    let view = matrix.view();
    let double =
        Mat::<f64>::from_fn(matrix.rows, matrix.columns, |row, column| f64::from(view[(row, column)]));
    let svd = double.thin_svd().map_err(|error| Error::Factorisation {
        path: path.to_owned(),
        reason: format!("no singular value decomposition was found: {error:?}"),
    })?;
    let rank = rank.min(matrix.rows).min(matrix.columns);
    let single = |rows: usize, columns: usize, at: &dyn Fn(usize, usize) -> f64| {
        let values = (0..rows * columns).map(|index| at(index / columns, index % columns) as f32);
        Matrix::new(rows, columns, values.collect())
    };
    let (u, v) = (svd.U(), svd.V());
    Ok(Svd {
        u: single(matrix.rows, rank, &|row, column| u[(row, column)]),
        s: svd.S().column_vector().iter().take(rank).map(|value| *value as f32).collect(),
        vt: single(rank, matrix.columns, &|row, column| v[(column, row)]),
    })
}

/// About the `rank` largest singular values and their vectors, from a random sketch that `iterations` power iterations sharpen
/// (Halko, Martinsson and Tropp 2011): much faster than [`svd_thin`] where `rank` is small. The sketch is a few columns wider than `rank`.
///
/// # Errors
/// As [`svd_thin`].
pub(crate) fn svd_randomised(
    matrix: &Matrix,
    rank: usize,
    iterations: usize,
    rng: &mut impl Rng,
    path: &str,
) -> Result<Svd> {
    const OVERSAMPLING: usize = 8;
    matrix.check_finite(path)?;
    let rank = rank.min(matrix.rows).min(matrix.columns);
    let width = (rank + OVERSAMPLING).min(matrix.rows).min(matrix.columns);
    let sketch = normal(matrix.columns * width, 1.0, rng);
    let view = matrix.view();
    let orthonormal = |product: Mat<f32>| product.qr().compute_thin_Q();
    let mut q = orthonormal(view * Matrix::new(matrix.columns, width, sketch).view());
    // Orthonormalised at every product, or the smaller directions drown in rounding.
    for _ in 0..iterations {
        q = orthonormal(view * orthonormal(view.transpose() * q));
    }
    let svd = svd_thin(&from_faer((q.transpose() * view).as_ref()), rank, path)?;
    Ok(Svd { u: from_faer((q * svd.u.view()).as_ref()), ..svd })
}

/// The thin QR factorisation by Householder reflections.
///
/// # Errors
/// [`Error::Factorisation`] for values that are not finite.
pub(crate) fn qr(matrix: &Matrix, path: &str) -> Result<Qr> {
    matrix.check_finite(path)?;
    let qr = matrix.view().qr();
    Ok(Qr { q: from_faer(qr.compute_thin_Q().as_ref()), r: from_faer(qr.thin_R()) })
}

fn from_faer(matrix: MatRef<'_, f32>) -> Matrix {
    let (rows, columns) = matrix.shape();
    let mut values = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        values.extend((0..columns).map(|column| matrix[(row, column)]));
    }
    Matrix::new(rows, columns, values)
}

#[cfg(test)]
mod tests {
    use super::{Matrix, Svd, qr, svd_double, svd_randomised, svd_thin};
    use crate::Error;
    use crate::random::normal;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn random(rows: usize, columns: usize, seed: u64) -> Matrix {
        Matrix::new(rows, columns, normal(rows * columns, 1.0, &mut ChaCha8Rng::seed_from_u64(seed)))
    }

    fn largest_difference(a: &Matrix, b: &Matrix) -> f32 {
        assert_eq!((a.rows, a.columns), (b.rows, b.columns));
        a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    fn identity(size: usize) -> Matrix {
        let mut values = vec![0.0; size * size];
        values.iter_mut().step_by(size + 1).for_each(|value| *value = 1.0);
        Matrix::new(size, size, values)
    }

    fn product(svd: &Svd) -> Matrix {
        let mut vt = svd.vt.clone();
        vt.scale_rows(&svd.s);
        svd.u.matmul(&vt)
    }

    #[test]
    fn products_and_transposes_are_row_major() {
        let a = Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(a.transposed().values, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(a.matmul(&a.transposed()).values, [14.0, 32.0, 32.0, 77.0]);
        assert_eq!(a.first_columns(2).values, [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(a.first_rows(1).values, [1.0, 2.0, 3.0]);
        assert_eq!(a.pick_rows(&[1, 1, 0]).values, [4.0, 5.0, 6.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
        assert_eq!(a.first_columns(1).padded(3, 2).values, [1.0, 0.0, 4.0, 0.0, 0.0, 0.0]);
        let mut b = a.clone();
        b.scale_columns(&[1.0, 10.0, 100.0]);
        assert_eq!(b.values, [1.0, 20.0, 300.0, 4.0, 50.0, 600.0]);
    }

    #[test]
    fn a_full_svd_gives_the_matrix_back_and_a_short_one_its_best_approximation() {
        for (rows, columns) in [(7, 5), (5, 7), (6, 6), (1, 4)] {
            let matrix = random(rows, columns, 1);
            let svd = svd_thin(&matrix, 99, "layer").unwrap();
            let double = svd_double(&matrix, 99, "layer").unwrap();
            assert!(largest_difference(&product(&double), &matrix) < 1e-6);
            assert!(svd.s.iter().zip(&double.s).all(|(a, b)| (a - b).abs() < 1e-5));
            assert!(largest_difference(&product(&svd), &matrix) < 1e-5);
            assert!(svd.s.is_sorted_by(|a, b| a >= b));
            assert!(largest_difference(&svd.u.transposed().matmul(&svd.u), &identity(svd.s.len())) < 1e-5);

            // By Eckart and Young, the error's norm is that of the singular values left out.
            let short = svd_thin(&matrix, 2, "layer").unwrap();
            let error: f32 =
                product(&short).values.iter().zip(&matrix.values).map(|(a, b)| (a - b).powi(2)).sum();
            let left_out: f32 = svd.s.iter().skip(2).map(|s| s * s).sum();
            assert!((error - left_out).abs() < 1e-4, "{error} {left_out}");
        }
    }

    #[test]
    fn a_random_sketch_finds_a_matrix_of_low_rank() {
        let matrix = random(40, 4, 2).matmul(&random(4, 30, 3));
        let svd = svd_randomised(&matrix, 4, 1, &mut ChaCha8Rng::seed_from_u64(4), "layer").unwrap();
        assert!(largest_difference(&product(&svd), &matrix) < 1e-4);
    }

    #[test]
    fn power_iterations_approach_the_exact_svd() {
        let matrix = random(48, 64, 5);
        let exact = product(&svd_thin(&matrix, 4, "layer").unwrap());
        let error = |iterations| {
            let mut rng = ChaCha8Rng::seed_from_u64(6);
            largest_difference(
                &product(&svd_randomised(&matrix, 4, iterations, &mut rng, "layer").unwrap()),
                &exact,
            )
        };
        assert!(error(32) < 1e-3 && error(32) < error(1), "{} {}", error(32), error(1));
    }

    #[test]
    fn qr_gives_the_matrix_back() {
        for (rows, columns) in [(7, 5), (5, 7)] {
            let matrix = random(rows, columns, 7);
            let qr = qr(&matrix, "layer").unwrap();
            assert!(largest_difference(&qr.q.matmul(&qr.r), &matrix) < 1e-5);
            assert!(largest_difference(&qr.q.transposed().matmul(&qr.q), &identity(5)) < 1e-5);
            assert!((0..5).all(|row| (0..row).all(|column| qr.r.values[row * columns + column] == 0.0)));
        }
    }

    #[test]
    fn what_is_not_finite_is_an_error_that_names_the_layer() {
        let matrix = Matrix::new(1, 2, vec![1.0, f32::NAN]);
        for error in [svd_thin(&matrix, 1, "a.b").err(), qr(&matrix, "a.b").err()] {
            let Some(Error::Factorisation { path, reason }) = error else { panic!("{error:?}") };
            assert_eq!(path, "a.b");
            assert!(reason.contains("NaN"), "{reason}");
        }
    }
}
