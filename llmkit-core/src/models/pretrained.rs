use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use serde_json::{Value, json};

use super::{CachedModel, CausalLm, ModelTensors, SaveOptions, load_causal_lm, locate, save_model};
use crate::checkpoint::gguf::{GgufOptions, GgufType, save_gguf};
use crate::checkpoint::{Checkpoint, write_atomic};
use crate::generate::{Generated, GenerationConfig, generate, generate_beams};
use crate::{Adapter, ChatTemplate, Error, FinishReason, Message, Result, Tokenizer};

/// A language model with what it takes to talk to it, as one folder or GGUF file holds them.
///
/// ```no_run
/// use std::ops::ControlFlow;
/// use llmkit_core::models::Pretrained;
/// use llmkit_core::{Device, Message, NoAdapter};
///
/// # fn main() -> llmkit_core::Result<()> {
/// let pretrained = Pretrained::load("SmolLM2-135M-Instruct", &Device::Auto.resolve()?)?;
/// let question = [Message::user("Where is the library?")];
/// pretrained.reply(&NoAdapter, &question, &pretrained.generation, &mut |text| {
///     print!("{text}");
///     ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// The model.
    pub model: Arc<dyn CausalLm>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template.
    pub chat_template: ChatTemplate,
    /// How it generates unless told otherwise: what its `generation_config.json` says, and the tokens that end its turn.
    pub generation: GenerationConfig,
}

impl Pretrained {
    /// Loads a model onto `device`: a Hugging Face folder, a `.gguf` file, or, with the feature `hub`, a repository such as
    /// `HuggingFaceTB/SmolLM2-135M-Instruct`, with `@` and a branch, tag or commit behind it if it is to be another than `main`.
    ///
    /// # Errors
    /// What [`locate`] says of a repository.
    /// Whatever is wrong with the files: see [`load_causal_lm`], [`Tokenizer`], [`ChatTemplate`] and [`GenerationConfig::from_file`].
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let checkpoint = Checkpoint::open(locate(path.as_ref())?)?;
        let (tokenizer, chat_template) = match checkpoint.gguf() {
            Some(file) => (Tokenizer::from_gguf(file.metadata())?, ChatTemplate::from_gguf(file.metadata())?),
            None => {
                (Tokenizer::from_folder(checkpoint.path())?, ChatTemplate::from_folder(checkpoint.path())?)
            }
        };
        let settings = checkpoint.path().join("generation_config.json");
        let mut generation = match checkpoint.gguf() {
            None if settings.is_file() => GenerationConfig::from_file(settings)?,
            _ => GenerationConfig::new(),
        };
        for id in tokenizer.eos_token_ids() {
            if !generation.eos_token_ids.contains(id) {
                generation.eos_token_ids.push(*id);
            }
        }
        let model = load_causal_lm(&checkpoint, device)?;
        Ok(Self { model, tokenizer, chat_template, generation })
    }

    /// Answers the conversation in `messages` and hands over the text as it comes; `on_text` may break to stop the answer.
    ///
    /// `config` says by itself when the answer ends: derive it from [`generation`](Self::generation), which knows the end tokens. With
    /// beams, the text of the best one comes at the end, and empty texts before.
    ///
    /// # Errors
    /// [`Error::Template`] where the template refuses the conversation; [`Error::Generation`] where `config` asks for several answers; and
    /// what [`generate`] and [`generate_beams`] report.
    pub fn reply(
        &self,
        adapter: &dyn Adapter,
        messages: &[Message],
        config: &GenerationConfig,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let prompt = self.chat_template.render(messages, true)?;
        // The template writes the special tokens itself.
        let prompt = self.tokenizer.encode(&prompt, false)?;
        let mut next = CachedModel::new(self.model.as_ref(), adapter);
        if config.beams.is_some() {
            return self.best_beam(&mut next, &prompt, config, on_text);
        }
        let mut decoder = self.tokenizer.decode_stream(true);
        generate(&mut next, &mut decoder, &prompt, config, &mut |event| on_text(event.text()))
    }

    fn best_beam(
        &self,
        next: &mut CachedModel<'_>,
        prompt: &[u32],
        config: &GenerationConfig,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        if config.num_return_sequences > 1 {
            return Err(Error::Generation {
                setting: "num_return_sequences",
                expected: "1, as a reply is one answer (several are given by generate_beams)",
                found: config.num_return_sequences.to_string(),
            });
        }
        let new_decoder = &mut || self.tokenizer.decode_stream(true);
        let beams = generate_beams(next, new_decoder, prompt, config, &mut |_| on_text(""))?;
        match beams.into_iter().next() {
            Some(best) => {
                // It is the last text: there is nothing left to stop.
                let _ = on_text(&best.generated.text);
                Ok(best.generated)
            }
            None => Ok(Generated {
                ids: Vec::new(),
                text: String::new(),
                finish_reason: FinishReason::Cancelled,
                prompt_tokens: prompt.len(),
                logprobs: Vec::new(),
            }),
        }
    }

    /// Writes the model as a Hugging Face folder: weights, configuration, tokenizer, chat template and generation settings.
    ///
    /// # Errors
    /// [`Error::Io`] when a file can't be written; what was there before stays.
    pub fn save(&self, folder: impl AsRef<Path>, options: SaveOptions) -> Result<()> {
        let folder = folder.as_ref();
        save_model(self.model.as_ref(), folder, options)?;
        self.save_tokenizer(folder)
    }

    /// Writes the model with its tokenizer and chat template as a GGUF file for llama.cpp and for us.
    ///
    /// # Errors
    /// What [`save_gguf`] and [`Tokenizer::to_gguf`] report of a model or tokenizer that llama.cpp's file cannot say;
    /// [`Error::Io`] when writing fails. What was there before stays.
    pub fn save_gguf(&self, path: impl AsRef<Path>, weights: GgufType) -> Result<()> {
        let options = GgufOptions::new(weights)
            .with_tokenizer(self.tokenizer.to_gguf()?)
            .with_chat_template(self.chat_template.source());
        save_gguf(path, self.model.config(), &ModelTensors::new(self.model.as_ref()), &options)
    }

    /// Writes the files that a model folder needs beside `config.json` and its weights: `tokenizer.json`, `tokenizer_config.json`,
    /// `chat_template.jinja` and `generation_config.json`. Python's transformers loads them, whatever kind of file the model came from.
    ///
    /// # Errors
    /// [`Error::Io`] when a file can't be written; what was there before stays.
    pub fn save_tokenizer(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        self.tokenizer.save(folder.join("tokenizer.json"))?;
        let pad = self.tokenizer.pad_token_id().and_then(|id| self.tokenizer.id_to_token(id));
        let config = json!({
            "bos_token": self.tokenizer.bos_token(),
            "clean_up_tokenization_spaces": false,
            "eos_token": self.tokenizer.eos_token(),
            "model_max_length": self.model.max_positions(),
            "pad_token": pad,
            "tokenizer_class": "PreTrainedTokenizerFast",
        });
        write_json(&folder.join("tokenizer_config.json"), &config)?;
        let template = self.chat_template.source();
        write_atomic(folder.join("chat_template.jinja"), |file| file.write_all(template.as_bytes()))?;
        let path = folder.join("generation_config.json");
        let settings = serde_json::to_value(&self.generation)
            .map_err(|source| Error::Json { path: path.clone(), source })?;
        write_json(&path, &settings)
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_atomic(path, |file| file.write_all(format!("{value:#}\n").as_bytes()))
}
