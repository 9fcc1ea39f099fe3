use burn::tensor::{Int, Tensor};

use super::{Linear, Weights};

/// A table of vectors, one for each token.
#[derive(Debug, Clone)]
pub struct Embedding {
    path: String,
    /// `[vocab, hidden]`
    pub weight: Tensor<2>,
}

impl Embedding {
    /// Reads `weight`.
    pub fn load(weights: &Weights<'_>, vocab_size: usize, hidden_size: usize) -> Self {
        Self { path: weights.path().to_owned(), weight: weights.tensor("weight", [vocab_size, hidden_size]) }
    }

    pub(super) fn path_mut(&mut self) -> &mut String {
        &mut self.path
    }

    /// The layer's name in the checkpoint.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// # Shapes
    /// `ids [batch, seq]` to `[batch, seq, hidden]`.
    ///
    /// # Panics
    /// If an id is not below `vocab`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        lookup(self.weight.clone(), ids)
    }

    /// The output head of a model whose head is tied to its embedding: the same tensor under the name `path`.
    pub fn tied_head(&self, path: &str) -> Linear {
        Linear::new(path, self.weight.clone(), None)
    }
}

/// The rows of `table` that `ids` name.
///
/// # Shapes
/// `table [vocab, hidden]`, `ids [batch, seq]`, result `[batch, seq, hidden]`.
pub fn lookup(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let [batch, seq] = ids.dims();
    let [_, hidden] = table.dims();
    table.select(0, ids.reshape([batch * seq])).reshape([batch, seq, hidden])
}
