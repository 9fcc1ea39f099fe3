use burn::tensor::Tensor;
use llmkit_core::checkpoint::{TensorData, TensorSource};
use llmkit_core::models::Model;
use llmkit_core::nn::Layer;

use super::AdapterFolder;
use crate::{Error, Result};

/// The weights of targets of which a method's file holds copies: PEFT writes those of embeddings and heads that are targets.
#[derive(Debug, Clone, Default)]
pub(crate) struct BaseCopies(Vec<(String, Tensor<2>)>);

impl BaseCopies {
    /// Those that `file` has, of the layers whose path is `wanted`.
    ///
    /// # Errors
    /// [`Error::Adapter`] naming those that differ from the model's own.
    pub(crate) fn read(
        model: &dyn Model,
        file: &dyn TensorSource,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let mut found = Vec::new();
        model.visit(&mut |layer| {
            let weight = match layer {
                Layer::Linear(linear) => &linear.weight,
                Layer::Embedding(embedding) => &embedding.weight,
                Layer::Norm(_) => return,
            };
            let key = format!("{}{}.base_layer.weight", AdapterFolder::PREFIX, layer.path());
            if file.info(&key).is_some() && wanted(layer.path()) {
                found.push((key, weight.clone()));
            }
        });
        let mut mismatched = Vec::new();
        for (key, weight) in &found {
            let shape = file.info(key).map(|info| info.shape.to_vec()).unwrap_or_default();
            if shape != weight.dims() {
                mismatched.push(format!("{key}: expected {:?}, found {shape:?}", weight.dims()));
            } else if weight.clone().try_into_vec_as::<f32>().ok() != Some(file.read_f32(key)?) {
                mismatched.push(format!("{key}: other values than the base model's"));
            }
        }
        if mismatched.is_empty() {
            return Ok(Self(found));
        }
        let (missing, unexpected) = (Vec::new(), Vec::new());
        Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched })
    }

    /// Their keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(key, _)| key.clone())
    }

    /// For the file.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, TensorData<'static>)> {
        self.0.iter().map(|(key, weight)| (key.clone(), TensorData::from_tensor(weight.clone())))
    }
}
