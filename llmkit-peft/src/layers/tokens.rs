use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use indexmap::IndexMap;
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear, matmul_transposed};
use serde::{Deserialize, Serialize};

use super::{AdapterFolder, Named};
use crate::linalg::Matrix;
use crate::{Error, Result};

const FIELD: &str = "trainable_token_indices";

/// PEFT's `trainable_token_indices`: tokens whose vectors train along with a method, such as newly added ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIndices {
    /// Tokens of the model's embedding. A tied head follows.
    Embedding(Vec<usize>),
    /// Tokens of each layer whose path ends in the key. A tied head follows the embedding, unless both are named and differ.
    Layers(IndexMap<String, Vec<usize>>),
}

/// Rows of embeddings (and heads) that train in place of the base's.
#[derive(Module, Debug)]
pub struct TokenRows {
    layers: Vec<TunedRows>,
    /// A tied head's path leads to the embedding's rows.
    #[module(skip)]
    places: HashMap<String, usize>,
}

#[derive(Module, Debug)]
struct TunedRows {
    /// `[n, hidden]`: the vectors themselves, although PEFT calls them deltas.
    delta: Param<Tensor<2>>,
    #[module(skip)]
    path: String,
    #[module(skip)]
    indices: Vec<usize>,
    /// `[n]`: the same on the device.
    #[module(skip)]
    rows: Tensor<1, Int>,
    /// `[vocab]`: 0 for a token that keeps its vector, otherwise 1 + its place among the rows.
    #[module(skip)]
    places: Tensor<1, Int>,
}

impl TokenRows {
    /// The rows that `indices` names, starting as the base has them; none without `indices`.
    ///
    /// `ensure_tying` makes it an error if a tied model's embedding and head are given different tokens.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if a key names no layer, [`Error::Config`] for tokens that the layer does not have or that come twice.
    pub fn new(
        model: &dyn Model,
        indices: Option<&TokenIndices>,
        ensure_tying: bool,
        origin: &Path,
    ) -> Result<Self> {
        let mut rows = Self { layers: Vec::new(), places: HashMap::new() };
        let Some(indices) = indices else { return Ok(rows) };
        let (embedding, available) = tables(model);
        let wanted: Vec<(String, &Vec<usize>)> = match indices {
            TokenIndices::Embedding(tokens) => embedding.iter().map(|path| (path.clone(), tokens)).collect(),
            TokenIndices::Layers(layers) => {
                let mut wanted = Vec::new();
                for (name, tokens) in layers {
                    let before = wanted.len();
                    let found = available.iter().filter(|path| path.ends_with(name.as_str()));
                    wanted.extend(found.map(|path| (path.clone(), tokens)));
                    if wanted.len() == before {
                        let available = available.iter().cloned().collect();
                        return Err(Error::NoTarget { field: FIELD, pattern: name.clone(), available });
                    }
                }
                wanted
            }
        };

        let head = model.head_path().filter(|_| model.is_tied());
        let of = |path: Option<&str>| {
            wanted.iter().find(|(other, _)| Some(other.as_str()) == path).map(|(_, tokens)| *tokens)
        };
        let (of_embedding, of_head) = (of(embedding.as_deref()), of(head));
        let differ = of_head.is_some_and(|tokens| of_embedding.is_some_and(|others| others != tokens));
        if differ && ensure_tying {
            return Err(Error::Config {
                origin: origin.into(),
                field: FIELD.into(),
                expected: "the same tokens for the embedding and the head that is tied to it (or `ensure_weight_tying` off)".into(),
                found: format!("{of_embedding:?} and {of_head:?}"),
            });
        }
        let follows = head.filter(|_| of_embedding.is_some() && !differ);
        for (path, tokens) in &wanted {
            if Some(path.as_str()) != follows {
                rows.push(model, path, tokens, origin)?;
            }
        }
        if let (Some(head), Some(embedding)) = (follows, embedding)
            && let Some(index) = rows.places.get(&embedding).copied()
        {
            rows.places.insert(head.to_owned(), index);
        }
        Ok(rows)
    }

    fn push(&mut self, model: &dyn Model, path: &str, tokens: &[usize], origin: &Path) -> Result<()> {
        if self.places.contains_key(path) {
            return Err(Error::Config {
                origin: origin.into(),
                field: FIELD.into(),
                expected: "one entry for each layer".into(),
                found: format!("two that name {path}"),
            });
        }
        let mut weight = None;
        model.visit(&mut |layer| match layer {
            Layer::Embedding(embedding) if embedding.path() == path => {
                weight = Some(embedding.weight.clone())
            }
            Layer::Linear(linear) if linear.path() == path => weight = Some(linear.weight.clone()),
            _ => {}
        });
        let weight = weight.expect("the path was found among the model's layers");
        let [vocab, _] = weight.dims();
        let mut places = vec![0i32; vocab];
        for (place, &token) in tokens.iter().enumerate() {
            match places.get_mut(token) {
                Some(slot @ 0) => *slot = place as i32 + 1,
                wrong => {
                    let reason = if wrong.is_none() { "which is none of them" } else { "which comes twice" };
                    return Err(Error::Config {
                        origin: origin.into(),
                        field: FIELD.into(),
                        expected: format!("different tokens below {vocab} for {path}"),
                        found: format!("{token}, {reason}"),
                    });
                }
            }
        }
        if tokens.is_empty() {
            return Err(Error::Config {
                origin: origin.into(),
                field: FIELD.into(),
                expected: "tokens to train, or null".into(),
                found: format!("none for {path}"),
            });
        }
        let device = weight.device();
        let values: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(values, [tokens.len()]), &device);
        self.places.insert(path.to_owned(), self.layers.len());
        self.layers.push(TunedRows {
            delta: Param::from_tensor(weight.select(0, rows.clone())),
            path: path.to_owned(),
            indices: tokens.to_vec(),
            rows,
            places: Tensor::from_data(TensorData::new(places, [vocab]), &device),
        });
        Ok(())
    }

    /// Whether rows of the layer of this path train.
    pub fn contains(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    fn get(&self, path: &str) -> Option<&TunedRows> {
        self.places.get(path).map(|index| &self.layers[*index])
    }

    /// What the embedding gives now.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, hidden]`.
    pub fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        match self.get(base.path()) {
            Some(rows) => rows.embed(base, ids),
            None => base.forward(ids),
        }
    }

    /// What the head computes now.
    ///
    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    pub fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        match self.get(base.path()) {
            Some(rows) => rows.linear(base, input),
            None => base.forward(input),
        }
    }

    /// The trained tensors with their whole keys.
    pub fn tensors(&self) -> Vec<Named<'_>> {
        let named = |rows: &TunedRows| {
            format!("{}{}.token_adapter.trainable_tokens_delta", AdapterFolder::PREFIX, rows.path)
        };
        self.layers.iter().map(|rows| Named::new(named(rows), &rows.delta)).collect()
    }

    /// Puts the trained rows into `layer`, and says whether there are any.
    pub fn merge_layer(&self, layer: &mut LayerMut<'_>) -> bool {
        let (path, weight) = match layer {
            LayerMut::Embedding(embedding) => (embedding.path().to_owned(), &mut embedding.weight),
            LayerMut::Linear(linear) => (linear.path().to_owned(), &mut linear.weight),
            LayerMut::Norm(_) => return false,
        };
        let Some(rows) = self.get(&path) else { return false };
        // On the host, where replacing a row is exact.
        let mut merged = Matrix::from_tensor(weight.clone());
        let trained = Matrix::from_tensor(rows.delta.val());
        for (row, values) in rows.indices.iter().zip(trained.values.chunks_exact(trained.columns)) {
            merged.values[row * merged.columns..][..merged.columns].copy_from_slice(values);
        }
        *weight = merged.to_tensor(&weight.device());
        true
    }
}

impl TunedRows {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let delta = self.delta.val();
        let [_, hidden] = delta.dims();
        // The first row stands in for the tokens that keep their vectors. Looking rows up here keeps the gradient as small as they are.
        let zeros = Tensor::<2>::zeros([1, hidden], &delta.device());
        let places = self.places.clone().select(0, ids.clone().reshape([batch * seq]));
        let trained = Tensor::cat(vec![zeros, delta], 0).select(0, places.clone());
        let keeps = places.equal_elem(0).float().reshape([batch, seq, 1]);
        base.forward(ids) * keeps + trained.reshape([batch, seq, hidden])
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        let change = self.delta.val() - base.weight.clone().select(0, self.rows.clone());
        let change = matmul_transposed(input.clone(), change);
        let output = base.forward(input);
        let output = if change.is_autodiff() { output.autodiff() } else { output };
        output.select_assign(2, self.rows.clone(), change, IndexingUpdateOp::Add)
    }
}

/// The path of the table of the model's tokens, and those of all layers of which tokens have rows.
fn tables(model: &dyn Model) -> (Option<String>, BTreeSet<String>) {
    let (mut embedding, mut available) = (None, BTreeSet::new());
    model.visit(&mut |layer| match layer {
        // Models show it before tables of positions or types.
        Layer::Embedding(table) => {
            embedding.get_or_insert_with(|| table.path().to_owned());
            available.insert(table.path().to_owned());
        }
        Layer::Linear(linear) if model.head_path() == Some(linear.path()) => {
            available.insert(linear.path().to_owned());
        }
        _ => {}
    });
    (embedding, available)
}
