use std::io::Write;
use std::path::Path;

use burn::tensor::Tensor;

use super::CausalLm;
use crate::checkpoint::{FloatType, TensorData, save_sharded, write_atomic};
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

/// The tensors of `model` under their names in the checkpoint; a tied head is left out.
pub fn named_tensors(model: &dyn CausalLm, dtype: FloatType) -> Vec<(String, TensorData<'static>)> {
    fn data<const D: usize>(tensor: &Tensor<D>, dtype: FloatType) -> TensorData<'static> {
        TensorData::from_tensor(tensor.clone()).stored_as(dtype)
    }
    let mut tensors = Vec::new();
    model.visit(&mut |layer| {
        let path = layer.path();
        let (weight, bias) = match layer {
            Layer::Linear(_) if model.is_tied() && path == "lm_head" => return,
            Layer::Linear(linear) => (data(&linear.weight, dtype), &linear.bias),
            Layer::Norm(norm) => (data(&norm.weight, dtype), &norm.bias),
            Layer::Embedding(embedding) => (data(&embedding.weight, dtype), &None),
        };
        tensors.push((format!("{path}.weight"), weight));
        tensors.extend(bias.iter().map(|bias| (format!("{path}.bias"), data(bias, dtype))));
    });
    tensors
}

/// Writes a model as a Hugging Face folder: `config.json` and `model.safetensors`, or its shards. The tokenizer's files are
/// [`Pretrained::save_tokenizer`](super::Pretrained::save_tokenizer)'s to add.
///
/// # Errors
/// [`Error::Io`] when a file can't be written; what was there before stays.
pub fn save_model(model: &dyn CausalLm, folder: impl AsRef<Path>, options: SaveOptions) -> Result<()> {
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    save_sharded(folder, named_tensors(model, options.dtype), None, options.max_shard_bytes)?;
    let mut config = model.config().clone();
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
