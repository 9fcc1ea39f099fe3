use std::fs;
use std::path::Path;
use std::sync::Arc;

use burn::module::Param;
use llmkit_core::checkpoint::{TensorData, save_sharded, write_atomic};
use llmkit_core::models::CausalLm;
use llmkit_core::nn::{Layer, LayerMut};

use crate::{Lora, Result};

/// The largest shard that [`save_merged`] writes, in bytes: Hugging Face's default.
const MAX_SHARD: usize = 5_000_000_000;

/// A model of its own with the LoRA worked into its weights: it computes the same without the adapter's cost.
///
/// The base stays as it is; the merged model shares every tensor that the LoRA leaves alone.
pub fn merge(model: &dyn CausalLm, lora: &Lora) -> Arc<dyn CausalLm> {
    model.with_layers(&mut |layer| match layer {
        LayerMut::Linear(linear) => {
            if let Some(update) = lora.lora_layer(linear.path()) {
                linear.weight = linear.weight.clone() + update.delta_weight();
                if let Some(bias) = &update.bias {
                    linear.bias = Some(bias.val().without_autodiff());
                }
                if let Some(bias) = &update.lora_b_bias {
                    let bias = bias.val().without_autodiff() * update.scale;
                    linear.bias = Some(match linear.bias.take() {
                        Some(base) => base + bias,
                        None => bias,
                    });
                }
                return true;
            }
            let Some(saved) = lora.saved_layer(linear.path()) else { return false };
            if let Some(matrix) = &saved.matrix {
                linear.weight = matrix.val().without_autodiff();
            }
            linear.bias = saved.bias.as_ref().map(|bias| bias.val().without_autodiff());
            true
        }
        LayerMut::Embedding(embedding) => {
            match lora.saved_layer(embedding.path()).and_then(|saved| saved.matrix.as_ref()) {
                Some(matrix) => {
                    embedding.weight = matrix.val().without_autodiff();
                    true
                }
                None => false,
            }
        }
        LayerMut::Norm(norm) => {
            match lora.saved_layer(norm.path()).and_then(|saved| saved.vector.as_ref()).map(Param::val) {
                Some(vector) => {
                    norm.weight = vector.without_autodiff();
                    true
                }
                None => false,
            }
        }
    })
}

/// Writes a model as a Hugging Face folder: `config.json` and `model.safetensors` (in shards of 5 GB where it is larger), in `f32`.
/// The tokenizer's files are the caller's to add.
///
/// # Errors
/// [`Error::Core`](crate::Error::Core) when a file can't be written; what was there before stays.
pub fn save_merged(model: &dyn CausalLm, folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    fs::create_dir_all(folder).map_err(llmkit_core::Error::io("create", folder))?;
    let mut tensors: Vec<(String, TensorData<'static>)> = Vec::new();
    model.visit(&mut |layer| {
        let path = layer.path().to_owned();
        match layer {
            Layer::Linear(_) if model.is_tied() && path == "lm_head" => {}
            Layer::Linear(linear) => {
                tensors.push((format!("{path}.weight"), TensorData::from_tensor(linear.weight.clone())));
                tensors.extend(
                    linear
                        .bias
                        .as_ref()
                        .map(|bias| (format!("{path}.bias"), TensorData::from_tensor(bias.clone()))),
                );
            }
            Layer::Norm(norm) => {
                tensors.push((format!("{path}.weight"), TensorData::from_tensor(norm.weight.clone())))
            }
            Layer::Embedding(embedding) => {
                tensors.push((format!("{path}.weight"), TensorData::from_tensor(embedding.weight.clone())))
            }
        }
    });
    save_sharded(folder, tensors, None, MAX_SHARD)?;
    let mut config = model.config().clone();
    config["dtype"] = "float32".into();
    config["torch_dtype"] = "float32".into();
    let json = serde_json::to_string_pretty(&config).expect("numbers and strings always serialise") + "\n";
    Ok(write_atomic(folder.join("config.json"), |file| std::io::Write::write_all(file, json.as_bytes()))?)
}
