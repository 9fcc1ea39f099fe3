use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use llmkit_core::checkpoint::{TensorData, TensorSource};
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear, Norm, lookup, matmul_transposed};

use super::{AdapterFolder, CLASSIFIERS, Named, ParamRef};
use crate::{Error, Result};

/// Layers that train whole beside a method (PEFT's `modules_to_save`), and biases that train alone.
#[derive(Module, Debug)]
pub struct SavedLayers {
    layers: Vec<SavedLayer>,
    #[module(skip)]
    places: HashMap<String, usize>,
    /// The tied head that follows the embedding.
    #[module(skip)]
    head: Option<String>,
}

/// A layer that trains whole, or whose bias alone does: a copy that stands in for the base's.
#[derive(Module, Debug)]
pub struct SavedLayer {
    /// A linear layer's `[out, in]`, or an embedding's `[vocab, hidden]`.
    matrix: Option<Param<Tensor<2>>>,
    /// A norm's `[hidden]`.
    vector: Option<Param<Tensor<1>>>,
    /// `[out]`
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    path: String,
    /// Whether the method acts on the layer besides, so that PEFT finds the bias in its `base_layer`.
    #[module(skip)]
    is_target: bool,
}

impl SavedLayers {
    /// Copies of the layers that `modules_to_save` names.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if an entry names no layer.
    pub fn new(model: &dyn Model, modules_to_save: &[String]) -> Result<Self> {
        let mut saved = Self { layers: Vec::new(), places: HashMap::new(), head: None };
        let mut found = vec![false; modules_to_save.len()];
        let mut available = BTreeSet::new();
        model.visit(&mut |layer| {
            let path = layer.path();
            available.extend(path.rsplit('.').next().map(str::to_owned));
            let mut named = false;
            for (module, found) in modules_to_save.iter().zip(&mut found) {
                if is_within(path, module) {
                    (named, *found) = (true, true);
                }
            }
            if named {
                saved.push(SavedLayer::whole(layer));
            }
        });
        // For classification PEFT names both of the heads that models have.
        let is_head = |module: &String| CLASSIFIERS.contains(&module.as_str());
        if modules_to_save.iter().zip(&found).any(|(module, found)| *found && is_head(module)) {
            found.iter_mut().zip(modules_to_save).for_each(|(found, module)| *found |= is_head(module));
        }
        match found.iter().position(|found| !found) {
            None => Ok(saved),
            Some(missing) => Err(Error::NoTarget {
                field: "modules_to_save",
                pattern: modules_to_save[missing].clone(),
                available: available.into_iter().collect(),
            }),
        }
    }

    /// Copies of the layers for which `choose` says yes.
    pub(crate) fn of(model: &dyn Model, mut choose: impl FnMut(Layer<'_>) -> bool) -> Self {
        let mut saved = Self { layers: Vec::new(), places: HashMap::new(), head: None };
        model.visit(&mut |layer| {
            if choose(layer) {
                saved.push(SavedLayer::whole(layer));
            }
        });
        saved
    }

    /// The trained weight of the linear layer or embedding of this path.
    ///
    /// # Shapes
    /// `[out, in]` or `[vocab, hidden]`
    pub fn matrix(&self, path: &str) -> Option<Tensor<2>> {
        self.get(path)?.matrix.as_ref().map(Param::val)
    }

    /// Lets a head that is tied to the embedding follow it, if the embedding trains: PEFT's `ensure_weight_tying`.
    ///
    /// # Errors
    /// [`Error::Config`] if the head is named without the embedding.
    pub fn tied(mut self, model: &dyn Model, origin: &Path) -> Result<Self> {
        let Some((embedding, head)) = tied_head(model) else { return Ok(self) };
        let own = self.places.get(&head).copied();
        match (self.places.get(&embedding).copied(), own) {
            (Some(index), own) => {
                self.places.insert(head.clone(), index);
                self.head = Some(head);
                if let Some(own) = own {
                    self.layers.remove(own);
                    self.places.values_mut().filter(|index| **index > own).for_each(|index| *index -= 1);
                }
                Ok(self)
            }
            (None, None) => Ok(self),
            (None, Some(_)) => Err(Error::Config {
                origin: origin.into(),
                field: "modules_to_save".into(),
                expected: format!("{embedding} beside the head that is tied to it"),
                found: head,
            }),
        }
    }

    /// The key of the copy that the file holds of the embedding for a head that follows it.
    fn head_key(&self) -> Option<String> {
        self.head.as_ref().map(|head| format!("{}{head}.weight", AdapterFolder::PREFIX))
    }

    /// The copy that the file holds of the embedding for a head that follows it.
    pub fn copies(&self) -> Vec<(String, TensorData<'static>)> {
        let matrix = self.head.as_ref().and_then(|head| self.get(head)?.matrix.as_ref());
        let copy = self.head_key().zip(matrix);
        copy.map(|(key, matrix)| (key, ParamRef::Matrix(matrix).data())).into_iter().collect()
    }

    /// The keys of [`copies`](Self::copies) that `file` has, once it is sure that they are copies.
    ///
    /// # Errors
    /// [`Error::Adapter`] if one differs from what it should be a copy of.
    pub fn read_copies(&self, file: &dyn TensorSource) -> Result<Vec<String>> {
        let Some((key, head)) = self.head_key().zip(self.head.as_ref()) else { return Ok(Vec::new()) };
        if file.info(&key).is_none() {
            return Ok(Vec::new());
        }
        let saved = self.get(head).expect("a head that follows has the embedding's place");
        let original = format!("{}{}.weight", AdapterFolder::PREFIX, saved.path);
        // Without the original, its own key is reported as missing.
        if file.info(&original).is_some() && file.read_f32(&original)? != file.read_f32(&key)? {
            return Err(Error::Adapter {
                path: file.path().to_path_buf(),
                missing: Vec::new(),
                unexpected: Vec::new(),
                mismatched: vec![format!("{key}: other values than {original}, to which it is tied")],
            });
        }
        Ok(vec![key])
    }

    /// Trains the bias of `layer`, if it has one and does not train already. `is_target` says whether a method acts on the layer
    /// besides.
    pub fn train_bias(&mut self, layer: Layer<'_>, is_target: bool) {
        if self.contains(layer.path()) {
            return;
        }
        let bias = match layer {
            Layer::Linear(linear) => &linear.bias,
            Layer::Norm(norm) => &norm.bias,
            Layer::Embedding(_) => &None,
        };
        if let Some(bias) = bias {
            self.push(SavedLayer {
                matrix: None,
                vector: None,
                bias: Some(Param::from_tensor(bias.clone())),
                path: layer.path().to_owned(),
                is_target,
            });
        }
    }

    fn push(&mut self, layer: SavedLayer) {
        self.places.insert(layer.path.clone(), self.layers.len());
        self.layers.push(layer);
    }

    /// Whether the layer of this path trains, or its bias.
    pub fn contains(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// Whether nothing trains.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    fn get(&self, path: &str) -> Option<&SavedLayer> {
        self.places.get(path).map(|index| &self.layers[*index])
    }

    /// The trained bias of the layer of this path.
    pub fn bias(&self, path: &str) -> Option<Tensor<1>> {
        self.get(path)?.bias.as_ref().map(Param::val)
    }

    /// What the linear layer computes now.
    ///
    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    pub fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        let Some(saved) = self.get(base.path()) else { return base.forward(input) };
        let weight = saved.matrix.as_ref().map_or_else(|| base.weight.clone(), Param::val);
        let output = matmul_transposed(input, weight);
        // A head that follows an embedding keeps a bias of its own.
        match saved.bias.as_ref().map(Param::val).or_else(|| base.bias.clone()) {
            Some(bias) => output + bias.unsqueeze(),
            None => output,
        }
    }

    /// What the embedding gives now.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, hidden]`.
    pub fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        match self.get(base.path()).and_then(|saved| saved.matrix.as_ref()) {
            Some(matrix) => lookup(matrix.val(), ids),
            None => base.forward(ids),
        }
    }

    /// What the normalisation computes now.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    pub fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        let Some(saved) = self.get(base.path()) else { return base.forward(input) };
        let weight = saved.vector.as_ref().map_or_else(|| base.weight.clone(), Param::val);
        base.forward_with(input, weight, saved.bias.as_ref().map(Param::val))
    }

    /// The trained tensors with their whole keys.
    pub fn tensors(&self) -> Vec<Named<'_>> {
        self.layers.iter().flat_map(SavedLayer::tensors).collect()
    }

    /// Puts the trained tensors into `layer`, and says whether there are any.
    pub fn merge_layer(&self, layer: LayerMut<'_>) -> bool {
        let constant =
            |bias: &Option<Param<Tensor<1>>>| bias.as_ref().map(|bias| bias.val().without_autodiff());
        match layer {
            LayerMut::Linear(linear) => {
                let Some(saved) = self.get(linear.path()) else { return false };
                if let Some(matrix) = &saved.matrix {
                    linear.weight = matrix.val().without_autodiff();
                }
                linear.bias = constant(&saved.bias).or_else(|| linear.bias.take());
                true
            }
            LayerMut::Embedding(embedding) => {
                let Some(matrix) = self.get(embedding.path()).and_then(|saved| saved.matrix.as_ref()) else {
                    return false;
                };
                embedding.weight = matrix.val().without_autodiff();
                true
            }
            LayerMut::Norm(norm) => {
                let Some(saved) = self.get(norm.path()) else { return false };
                if let Some(vector) = &saved.vector {
                    norm.weight = vector.val().without_autodiff();
                }
                norm.bias = constant(&saved.bias);
                true
            }
        }
    }
}

impl SavedLayer {
    /// A copy of the whole layer.
    fn whole(layer: Layer<'_>) -> Self {
        let (matrix, vector, bias) = match layer {
            Layer::Linear(linear) => (Some(&linear.weight), None, linear.bias.as_ref()),
            Layer::Norm(norm) => (None, Some(&norm.weight), norm.bias.as_ref()),
            Layer::Embedding(embedding) => (Some(&embedding.weight), None, None),
        };
        Self {
            matrix: matrix.map(|matrix| Param::from_tensor(matrix.clone())),
            vector: vector.map(|vector| Param::from_tensor(vector.clone())),
            bias: bias.map(|bias| Param::from_tensor(bias.clone())),
            path: layer.path().to_owned(),
            is_target: false,
        }
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        let Self { matrix, vector, bias, path, is_target } = self;
        let named = |end: &str| format!("{}{path}.{end}", AdapterFolder::PREFIX);
        let matrix = matrix.iter().map(|matrix| Named::new(named("weight"), matrix));
        let vector = vector.iter().map(|vector| Named::new(named("weight"), vector));
        let bias = bias.iter().map(|bias| match is_target {
            true => Named::new(named("base_layer.bias"), bias).with_alias(named("bias")),
            false => Named::new(named("bias"), bias),
        });
        matrix.chain(vector).chain(bias).collect()
    }
}

/// The paths of the model's embedding and of the head that is tied to it, for methods that act on both. As in PEFT, only an embedding
/// called `embed_tokens` counts.
pub(crate) fn tied_head(model: &dyn Model) -> Option<(String, String)> {
    let head = model.head_path().filter(|_| model.is_tied())?;
    let mut embedding = None;
    model.visit(&mut |layer| {
        if let Layer::Embedding(table) = layer {
            embedding.get_or_insert_with(|| table.path().to_owned());
        }
    });
    let embedding = embedding?;
    if embedding.rsplit('.').next() != Some("embed_tokens") {
        tracing::warn!(%embedding, "`ensure_weight_tying` does nothing for this model: PEFT ties `embed_tokens` alone");
        return None;
    }
    Some((embedding, head.to_owned()))
}

/// PEFT's rule for `modules_to_save`: the path, or that of a module around it, ends in `module`, with no dot needed before.
fn is_within(path: &str, module: &str) -> bool {
    let ends = path.match_indices('.').map(|(dot, _)| dot).chain([path.len()]);
    ends.into_iter().any(|end| path[..end].ends_with(module))
}
