use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use burn::tensor::Tensor;
use serde_json::Value;

use super::Model;
use crate::checkpoint::{FloatType, TensorData, TensorInfo, TensorSource, save_sharded, write_atomic};
use crate::nn::Layer;
use crate::{Error, Result};

/// How [`save_model`] writes weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaveOptions {
    /// The type of the weights. Default `f32`, in which nothing is lost.
    pub dtype: FloatType,
    /// The largest shard, in bytes. Default 5 GB, as Hugging Face's.
    pub max_shard_bytes: usize,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self { dtype: FloatType::F32, max_shard_bytes: 5_000_000_000 }
    }
}

impl SaveOptions {
    /// Sets [`dtype`](Self::dtype).
    pub fn with_dtype(self, dtype: FloatType) -> Self {
        Self { dtype, ..self }
    }

    /// Sets [`max_shard_bytes`](Self::max_shard_bytes).
    pub fn with_max_shard_bytes(self, max_shard_bytes: usize) -> Self {
        Self { max_shard_bytes, ..self }
    }
}

/// The tensors of a model in memory, under their names in the checkpoint; a tied head is left out.
#[derive(Debug, Clone)]
pub struct ModelTensors {
    tensors: BTreeMap<String, Parameter>,
}

#[derive(Debug, Clone)]
enum Parameter {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

impl ModelTensors {
    /// Shares the tensors of `model`.
    pub fn new(model: &dyn Model) -> Self {
        let mut tensors = BTreeMap::new();
        model.visit(&mut |layer| {
            let path = layer.path();
            let (weight, bias) = match layer {
                Layer::Linear(linear) => (Parameter::Matrix(linear.weight.clone()), &linear.bias),
                Layer::Norm(norm) => (Parameter::Vector(norm.weight.clone()), &norm.bias),
                Layer::Embedding(embedding) => (Parameter::Matrix(embedding.weight.clone()), &None),
            };
            if !(model.is_tied() && model.head_path() == Some(path)) {
                tensors.insert(format!("{path}.weight"), weight);
            }
            let bias = bias.clone().map(|bias| (format!("{path}.bias"), Parameter::Vector(bias)));
            tensors.extend(bias);
        });
        Self { tensors }
    }

    /// Leaves out what `keep` says no to.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.tensors.retain(|name, _| keep(name));
    }

    /// The tensors for writing, rounded to `dtype`.
    pub fn into_data(self, dtype: FloatType) -> Vec<(String, TensorData<'static>)> {
        let data = |parameter| match parameter {
            Parameter::Vector(tensor) => TensorData::from_tensor(tensor),
            Parameter::Matrix(tensor) => TensorData::from_tensor(tensor),
        };
        self.tensors.into_iter().map(|(name, tensor)| (name, data(tensor).stored_as(dtype))).collect()
    }
}

impl TensorSource for ModelTensors {
    fn path(&self) -> &Path {
        Path::new("(a model in memory)")
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let shape = match self.tensors.get(name)? {
            Parameter::Vector(tensor) => tensor.dims().to_vec(),
            Parameter::Matrix(tensor) => tensor.dims().to_vec(),
        };
        Some(TensorInfo { shape, dtype: "F32".to_owned() })
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let values = match self.tensors.get(name) {
            Some(Parameter::Vector(tensor)) => tensor.clone().try_into_vec_as::<f32>(),
            Some(Parameter::Matrix(tensor)) => tensor.clone().try_into_vec_as::<f32>(),
            None => {
                return Err(Error::Tensors {
                    path: self.path().to_path_buf(),
                    missing: vec![name.to_owned()],
                    unexpected: Vec::new(),
                    mismatched: Vec::new(),
                });
            }
        };
        values.map_err(|error| Error::Device {
            requested: "the tensor's own".into(),
            remedy: format!("reading a tensor from it failed: {error}"),
        })
    }
}

/// Writes a model as a Hugging Face folder: `config.json` and `model.safetensors`, or its shards. The tokenizer's files are
/// [`Pretrained::save_tokenizer`](super::Pretrained::save_tokenizer)'s to add.
///
/// # Errors
/// [`Error::Io`] when a file can't be written; what was there before stays.
pub fn save_model(model: &dyn Model, folder: impl AsRef<Path>, options: SaveOptions) -> Result<()> {
    let tensors = ModelTensors::new(model).into_data(options.dtype);
    save_model_parts(model.config(), tensors, folder, options)
}

/// The same of a model that exists in parts: its configuration, and its tensors under their names in the checkpoint, stored as they
/// are.
///
/// # Errors
/// As [`save_model`].
pub fn save_model_parts(
    config: &Value,
    tensors: impl IntoIterator<Item = (String, TensorData<'static>)>,
    folder: impl AsRef<Path>,
    options: SaveOptions,
) -> Result<()> {
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    save_sharded(folder, tensors, None, options.max_shard_bytes)?;
    let mut config = config.clone();
    // transformers 5 reads the first name, earlier ones the second.
    let dtype = match options.dtype {
        FloatType::F32 => "float32",
        FloatType::F16 => "float16",
        FloatType::Bf16 => "bfloat16",
    };
    config["dtype"] = dtype.into();
    config["torch_dtype"] = dtype.into();
    write_atomic(folder.join("config.json"), |file| file.write_all(format!("{config:#}\n").as_bytes()))
}
