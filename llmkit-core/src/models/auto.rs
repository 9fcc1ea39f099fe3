use std::sync::Arc;

use burn::tensor::Device;

use super::llama::{LlamaConfig, load_llama};
use super::{CausalLm, ConfigReader};
use crate::checkpoint::Checkpoint;
use crate::nn::Weights;
use crate::{Error, Result};

const SUPPORTED: [&str; 2] = ["LlamaForCausalLM", "MistralForCausalLM"];

/// Builds the language model that `checkpoint` holds on `device`, in `f32`.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`], [`Error::Config`], or [`Error::Tensors`] naming every tensor that does not fit.
pub fn load_causal_lm(checkpoint: &Checkpoint, device: &Device) -> Result<Arc<dyn CausalLm>> {
    let raw = checkpoint.config();
    let path = checkpoint.path();
    let config = ConfigReader::new(path, raw);
    config.check_counts(checkpoint.source().names().len())?;
    let architecture = raw["architectures"][0].as_str().unwrap_or("(none named)");
    match architecture {
        "MistralForCausalLM" => config.unsupported("sliding_window")?,
        "LlamaForCausalLM" => {}
        other => {
            return Err(Error::UnsupportedArchitecture {
                path: path.to_path_buf(),
                found: other.to_owned(),
                supported: SUPPORTED.map(str::to_owned).to_vec(),
            });
        }
    }
    let config = LlamaConfig::read(config)?;
    let model =
        Weights::load(checkpoint.source(), device, |weights| load_llama(weights, &config, raw.clone()))?;
    Ok(Arc::new(model))
}
