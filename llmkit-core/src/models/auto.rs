use std::sync::Arc;

use burn::tensor::Device;
use serde_json::Value;

use super::gemma3::{Gemma3Config, load_gemma3};
use super::llama::{LlamaConfig, load_llama};
use super::mistral::{MistralConfig, load_mistral};
use super::mixtral::{MixtralConfig, load_mixtral};
use super::phi3::{Phi3Config, load_phi3};
use super::qwen2::{Qwen2Config, load_qwen2};
use super::qwen3::{Qwen3Config, load_qwen3};
use super::qwen3_moe::{Qwen3MoeConfig, load_qwen3_moe};
use super::{CausalLm, ConfigReader, Decoder};
use crate::checkpoint::Checkpoint;
use crate::nn::Weights;
use crate::{Error, Result};

const SUPPORTED: [&str; 8] = [
    "Gemma3ForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
];

/// Builds the language model that `checkpoint` holds on `device`, in `f32`.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`], [`Error::Config`], or [`Error::Tensors`] naming every tensor that does not fit.
pub fn load_causal_lm(checkpoint: &Checkpoint, device: &Device) -> Result<Arc<dyn CausalLm>> {
    let raw = checkpoint.config();
    let path = checkpoint.path();
    let build = Build { checkpoint, device };
    match raw["architectures"][0].as_str().unwrap_or("(none named)") {
        "Gemma3ForCausalLM" => build.decoder(Gemma3Config::read, load_gemma3),
        "LlamaForCausalLM" => build.decoder(LlamaConfig::read, load_llama),
        "MistralForCausalLM" => build.decoder(MistralConfig::read, load_mistral),
        "MixtralForCausalLM" => build.decoder(MixtralConfig::read, load_mixtral),
        "Phi3ForCausalLM" => build.decoder(Phi3Config::read, load_phi3),
        "Qwen2ForCausalLM" => build.decoder(Qwen2Config::read, load_qwen2),
        "Qwen3ForCausalLM" => build.decoder(Qwen3Config::read, load_qwen3),
        "Qwen3MoeForCausalLM" => build.decoder(Qwen3MoeConfig::read, load_qwen3_moe),
        other => Err(Error::UnsupportedArchitecture {
            path: path.to_path_buf(),
            found: other.to_owned(),
            supported: SUPPORTED.map(str::to_owned).to_vec(),
        }),
    }
}

struct Build<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
}

impl Build<'_> {
    fn decoder<C>(
        &self,
        read: impl Fn(ConfigReader<'_>) -> Result<C>,
        load: impl Fn(&Weights<'_>, &C, Value) -> Decoder,
    ) -> Result<Arc<dyn CausalLm>> {
        let Self { checkpoint, device } = *self;
        let raw = checkpoint.config();
        let config = ConfigReader::new(checkpoint.path(), raw);
        self.check_counts(config)?;
        let config = read(config)?;
        let model =
            Weights::load(checkpoint.source(), device, |weights| load(weights, &config, raw.clone()))?;
        Ok(Arc::new(model))
    }

    /// A configuration may not ask for more blocks, or experts in one, than the checkpoint has tensors: each takes several, and naming
    /// all that are missing would take memory without end.
    fn check_counts(&self, config: ConfigReader<'_>) -> Result<()> {
        let tensors = self.checkpoint.source().names().len();
        let layers = config.size("num_hidden_layers")?;
        for field in ["num_hidden_layers", "num_experts", "num_local_experts"] {
            let count = config.size_or(field, 0)?;
            // Not every block need have experts, but most do.
            let most = if field == "num_hidden_layers" { tensors } else { 64 * tensors / layers };
            if count > most {
                let expected = format!("at most what {tensors} tensors hold");
                return Err(config.wrong(field, &expected, &count));
            }
        }
        Ok(())
    }
}
