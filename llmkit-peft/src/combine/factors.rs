use std::collections::BTreeMap;

use crate::layers::{MemoryTensors, TunedLayer};
use crate::linalg::{Matrix, Svd, qr, svd_double};
use crate::{AdapterFolder, Error, Lora, Result};

/// A LoRA's update of one layer, `scale B A`, on the host.
#[derive(Debug, Clone)]
pub(crate) struct Factors {
    /// `[r, in]`
    pub(crate) a: Matrix,
    /// `[out, r]`
    pub(crate) b: Matrix,
    pub(crate) scale: f64,
    pub(crate) place: FactorsPlace,
}

/// What kind of layer factors belong to, which decides about their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FactorsPlace {
    Linear,
    /// Here `in` is the vocabulary and `out` the vectors' length.
    Embedding,
}

impl FactorsPlace {
    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Linear => ["lora_A.weight", "lora_B.weight"],
            Self::Embedding => ["lora_embedding_A", "lora_embedding_B"],
        }
    }
}

impl Factors {
    /// The updates of all layers, by path.
    ///
    /// # Errors
    /// [`Error::Combination`] if some layer's is more than a product of two factors.
    pub(crate) fn of(lora: &Lora) -> Result<BTreeMap<String, Self>> {
        let of_layer = |layer: &crate::LoraLayer| {
            let path = layer.path();
            let place = if layer.is_embedding() { FactorsPlace::Embedding } else { FactorsPlace::Linear };
            if let Some(more) =
                layer.tensors().iter().find(|named| !place.names().contains(&named.key.as_str()))
            {
                return Err(not_a_product(path, &format!("has `{}`", more.key)));
            }
            if let Some(head) = layer.other_paths().first() {
                return Err(not_a_product(path, &format!("acts on {head} as well")));
            }
            let (a, b) = layer.factors();
            let (a, b) = (Matrix::from_tensor(a), Matrix::from_tensor(b));
            Ok((path.to_owned(), Self { a, b, scale: layer.sizes().scale, place }))
        };
        lora.layers().iter().map(of_layer).collect()
    }

    pub(crate) fn rank(&self) -> usize {
        self.a.rows
    }

    /// `scale B A`, `[out, in]`.
    pub(crate) fn update(&self) -> Matrix {
        let mut product = self.b.matmul(&self.a);
        product.values.iter_mut().for_each(|value| *value *= self.scale as f32);
        product
    }

    /// The factors of the sum of `weight B A` over `parts`, whose own scales are not looked at.
    pub(crate) fn side_by_side<'a>(parts: impl Iterator<Item = (&'a Self, f64)>) -> Self {
        let (mut a, mut place) = (Vec::new(), FactorsPlace::Linear);
        let (mut rank, mut columns, mut transposed) = (0, 0, Vec::new());
        for (factors, weight) in parts {
            rank += factors.rank();
            columns = factors.a.columns;
            place = factors.place;
            a.extend(factors.a.values.iter().map(|value| value * weight as f32));
            transposed.extend(factors.b.transposed().values);
        }
        let rows = transposed.len() / rank.max(1);
        Self {
            a: Matrix::new(rank, columns, a),
            b: Matrix::new(rank, rows, transposed).transposed(),
            scale: 1.0,
            place,
        }
    }

    /// The singular values of the update and their vectors, by way of the factors: `B = Q_b R_b`, `A^T = Q_a R_a`, and the decomposition of
    /// `R_b R_a^T`, a matrix of the rank's size.
    ///
    /// # Errors
    /// [`Error::Factorisation`] for values that are not finite.
    pub(crate) fn svd(&self, path: &str) -> Result<Svd> {
        let (of_b, of_a) = (qr(&self.b, path)?, qr(&self.a.transposed(), path)?);
        let core = of_b.r.matmul(&of_a.r.transposed());
        let mut svd = svd_double(&core, self.rank(), path)?;
        svd.s.iter_mut().for_each(|value| *value *= self.scale.abs() as f32);
        let mut u = of_b.q.matmul(&svd.u);
        if self.scale < 0.0 {
            u.values.iter_mut().for_each(|value| *value = -*value);
        }
        Ok(Svd { u, s: svd.s, vt: svd.vt.matmul(&of_a.q.transposed()) })
    }

    /// The `rank` largest directions: `B = U S`, `A = V^T`.
    pub(crate) fn from_svd(svd: Svd, rank: usize, place: FactorsPlace) -> Self {
        let mut b = svd.u.first_columns(rank);
        b.scale_columns(&svd.s);
        Self { a: svd.vt.first_rows(rank), b, scale: 1.0, place }
    }

    /// Makes the rank `rank`, with zeros.
    pub(crate) fn pad(&mut self, rank: usize) {
        let missing = rank.saturating_sub(self.rank());
        if missing > 0 {
            self.a.values.resize(rank * self.a.columns, 0.0);
            self.a.rows = rank;
            let mut transposed = self.b.transposed();
            transposed.values.resize(rank * transposed.columns, 0.0);
            transposed.rows = rank;
            self.b = transposed.transposed();
        }
    }

    /// Puts the factors of the layer called `path` among the tensors of an adapter's file.
    pub(crate) fn insert_into(self, path: &str, tensors: &mut MemoryTensors) {
        let [a, b] = self.place.names().map(|end| format!("{}{path}.{end}", AdapterFolder::PREFIX));
        tensors.insert(a, vec![self.a.rows, self.a.columns], self.a.values);
        tensors.insert(b, vec![self.b.rows, self.b.columns], self.b.values);
    }
}

fn not_a_product(path: &str, why: &str) -> Error {
    Error::Combination { reason: format!("{path} {why}, and is more than a product of two factors") }
}
