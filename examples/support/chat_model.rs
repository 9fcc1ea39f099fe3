//! The model that an example talks to: one that runs here, or one behind an OpenAI-compatible interface.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use llmkit_core::engine::{Engine, EngineConfig};
use llmkit_core::models::Pretrained;
use llmkit_core::{Device, LanguageModel};
use llmkit_prompt::remote::OpenAi;

use crate::{device, model};

/// Which model answers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ChatModel {
    /// The model: a Hugging Face folder, a .gguf file, or a repository on the hub; with --url the name that the server knows
    /// [default: SmolLM2-135M-Instruct]
    #[arg(long)]
    model: Option<PathBuf>,
    /// Ask a server instead: the address of an OpenAI-compatible interface, such as http://localhost:8080/v1 (llama.cpp) or
    /// http://localhost:11434/v1 (Ollama). The key, if it wants one, is taken from the variable OPENAI_API_KEY
    #[arg(long, requires = "model")]
    url: Option<String>,
    /// Where to compute, without --url: auto, cpu, wgpu, cuda or cuda:N [default: LLMKIT_DEVICE, else auto]
    #[arg(long)]
    device: Option<Device>,
}

impl ChatModel {
    /// Loads the model, or prepares to ask the server, which happens with the first question.
    pub(crate) fn open(self) -> Result<Arc<dyn LanguageModel>> {
        if let Some(url) = self.url {
            let name = self.model.unwrap_or_default().to_string_lossy().into_owned();
            let mut remote = OpenAi::new(&url, name)?;
            if let Ok(key) = std::env::var("OPENAI_API_KEY") {
                remote = remote.with_api_key(&key);
            }
            return Ok(Arc::new(remote));
        }
        let path = model::find(self.model.as_deref())?;
        let name = path.file_stem().map_or("model".into(), |name| name.to_string_lossy().into_owned());
        let pretrained = Pretrained::load(&path, &device::choose(self.device)?)
            .with_context(|| format!("cannot load {}", path.display()))?;
        Ok(Arc::new(Engine::start(pretrained, EngineConfig::new(name))?))
    }
}
