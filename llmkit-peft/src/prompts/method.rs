use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ParamId};
use burn::tensor::{Int, Tensor};
use llmkit_core::Adapter;
use llmkit_core::checkpoint::{Safetensors, TensorData, TensorSource, save_safetensors};
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, KeyValue, LayerMut, Linear, Norm};

use super::config::HEADS;
use super::{Learned, ParamSource, PromptConfig};
use crate::layers::{AdapterFolder, Named, SavedLayers, task_type};
use crate::{Dropout, Effect, Error, Method, PeftModule, Place, Progress, Result};

/// What stands for a file's path in errors about a configuration that the program made.
pub(super) const PROGRAM: &str = "(the program's configuration)";

/// Where the network that writes a prompt is kept, beside PEFT's files.
const ENCODER: &str = "llmkit_prompt_encoder.safetensors";

/// What PEFT puts before the paths of layers here, where no method wraps the model.
const PREFIX: &str = "base_model.";

/// The most by which a network's output may differ from what the file beside it says, for values around 1.
const TOLERANCE: f32 = 1e-3;

/// A method that puts learned positions before every sequence, and the layers that train whole beside it.
#[derive(Module, Debug)]
pub struct PromptMethod<L: Learned + Module> {
    learned: L,
    saved: SavedLayers,
    #[module(skip)]
    config: L::Config,
    #[module(skip)]
    dropout_seed: Option<u64>,
}

impl<L: Learned> PromptMethod<L> {
    /// A fresh one for `model`, on the model's device. `seed` fixes what is drawn.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if an entry of `modules_to_save` names no layer; [`Error::Config`] for impossible numbers, and for a start from
    /// a text, which needs a tokenizer.
    pub fn new(model: &dyn Model, config: L::Config, seed: u64) -> Result<Self> {
        Self::start(model, config, seed, None)
    }

    /// A fresh one; `text` are the tokens of a text from which it starts.
    pub(super) fn start(
        model: &dyn Model,
        mut config: L::Config,
        seed: u64,
        text: Option<&[u32]>,
    ) -> Result<Self> {
        let origin = Path::new(PROGRAM);
        config.validate(origin)?;
        if let (None, Some(task)) = (&config.scope().task_type, task_type(model.task())) {
            *config.scope_mut() = config.scope().clone().with_task_type(task);
        }
        config.complete(model, origin)?;
        let mut source = ParamSource::fresh(model, seed, text, origin);
        let learned = L::make(&config, &mut source, L::wants_encoder(&config))?;
        source.finish()?;
        let saved = saved_layers(model, &config)?;
        Ok(Self { learned, saved, config, dropout_seed: None })
    }

    /// Reads a PEFT folder for `model`, with the network beside it where it is there.
    ///
    /// # Errors
    /// [`Error::Config`] when `adapter_config.json` is unusable or for another model; [`Error::Adapter`] naming every key that is missing,
    /// unknown or of the wrong shape, and for a network that does not write what the folder holds; [`Error::Core`] when a file is missing
    /// or malformed.
    pub fn load(model: &dyn Model, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let files = AdapterFolder::new(folder);
        let origin = files.config_path();
        let mut config = L::Config::parse(&files.config()?, &origin)?;
        config.complete(model, &origin)?;
        let file = files.weights()?;

        let saved = saved_layers(model, &config)?;
        let names = saved_tensors(&saved);
        let keys: Vec<String> = names.iter().map(|named| named.key.clone()).collect();
        let mut source = ParamSource::file(&file, keys.iter().cloned(), &model.device());
        let mut learned = L::make(&config, &mut source, false)?;
        source.finish()?;
        let others: Vec<String> = file.names().into_iter().filter(|name| !keys.contains(name)).collect();
        let saved = AdapterFolder::fill(saved.clone(), &names, &others, &file)?;

        let path = folder.join(ENCODER);
        if L::wants_encoder(&config) && path.exists() {
            let network = Safetensors::open(&path)?;
            let mut source = ParamSource::file(&network, [], &model.device());
            learned = L::make(&config, &mut source, true)?;
            source.finish()?;
            check_output(&learned, &file, &path)?;
        }
        Ok(Self { learned, saved, config, dropout_seed: None })
    }

    /// How the method is shaped. What was left to the model is said.
    pub fn config(&self) -> &L::Config {
        &self.config
    }

    /// What is learned.
    pub fn learned(&self) -> &L {
        &self.learned
    }

    pub(super) fn learned_mut(&mut self) -> &mut L {
        &mut self.learned
    }

    /// The layers that train whole.
    pub fn saved_layers(&self) -> &SavedLayers {
        &self.saved
    }

    fn dropout(&self) -> Option<Dropout> {
        let probability = self.config.dropout();
        self.dropout_seed.filter(|_| probability > 0.0).map(|seed| Dropout::new(probability, seed))
    }

    /// What PEFT's file calls the learned tensors, with their values.
    fn file_tensors(&self) -> Vec<(String, TensorData<'static>)> {
        match self.learned.output() {
            Some(output) => {
                let output = TensorData::from_tensor(output.without_autodiff());
                vec![("prompt_embeddings".to_owned(), output)]
            }
            None => self.learned.tensors().iter().map(|tensor| tensor.data()).collect(),
        }
    }
}

/// Copies of the layers that train whole. Of the names that PEFT adds for classifiers, a model has one at most.
fn saved_layers(model: &dyn Model, config: &impl PromptConfig) -> Result<SavedLayers> {
    let mut names: Vec<String> = Vec::new();
    for name in &config.scope().modules_to_save {
        let optional = HEADS.contains(&name.as_str());
        if names.contains(name) || (optional && SavedLayers::new(model, std::slice::from_ref(name)).is_err())
        {
            continue;
        }
        names.push(name.clone());
    }
    SavedLayers::new(model, &names)
}

/// Their tensors, as a file of this kind calls them.
fn saved_tensors(saved: &SavedLayers) -> Vec<Named<'_>> {
    let rename = |key: String| match key.strip_prefix(AdapterFolder::PREFIX) {
        Some(path) => format!("{PREFIX}{path}"),
        None => key,
    };
    saved.tensors().into_iter().map(|named| Named { key: rename(named.key), ..named }).collect()
}

/// Refuses a network that does not write what stands in the file beside it.
fn check_output(learned: &impl Learned, file: &dyn TensorSource, path: &Path) -> Result<()> {
    let Some(output) = learned.output() else { return Ok(()) };
    let said = file.read_f32("prompt_embeddings")?;
    let written = output.try_into_vec_as::<f32>().unwrap_or_default();
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * b.abs().max(1.0);
    if said.len() == written.len() && written.iter().zip(&said).all(close) {
        return Ok(());
    }
    Err(Error::Adapter {
        path: path.to_path_buf(),
        missing: Vec::new(),
        unexpected: Vec::new(),
        mismatched: vec![
            "the network's output is not the prompt_embeddings beside it (remove this file to do without the network)"
                .to_owned(),
        ],
    })
}

impl<L: Learned> Adapter for PromptMethod<L> {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        self.saved.embed(base, ids)
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        self.saved.linear(base, input)
    }

    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        self.saved.norm(base, input)
    }

    fn prefix(&self, layer: usize, batch: usize) -> Option<KeyValue> {
        self.learned.prefix(layer, batch)
    }

    fn prefix_len(&self) -> usize {
        if L::IS_PREFIX { self.config.scope().num_virtual_tokens } else { 0 }
    }

    fn prompt(&self, embeddings: Tensor<3>) -> Tensor<3> {
        let [batch, _, _] = embeddings.dims();
        match self.learned.prompt(batch, self.dropout()) {
            Some(prompt) => Tensor::cat(vec![prompt, embeddings], 1),
            None => embeddings,
        }
    }

    fn prompt_len(&self) -> usize {
        if L::IS_PREFIX { 0 } else { self.config.scope().num_virtual_tokens }
    }

    fn select(&self, parents: &[usize]) -> Option<Arc<dyn Adapter>> {
        let learned = self.learned.select(parents)?;
        Some(Arc::new(Self { learned, ..self.clone() }))
    }
}

impl<L: Learned> Method for PromptMethod<L> {
    fn kind(&self) -> &str {
        L::Config::PEFT_TYPE
    }

    fn parameter_names(&self) -> Vec<(ParamId, String)> {
        let learned = self.learned.tensors();
        let learned = learned.iter().flat_map(|tensor| tensor.names());
        let saved = saved_tensors(&self.saved);
        learned.chain(saved.into_iter().map(|named| (named.param.id(), named.key))).collect()
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(ENCODER);
        if self.learned.output().is_some() {
            fs::create_dir_all(folder).map_err(llmkit_core::Error::io("create", folder))?;
            save_safetensors(&path, self.learned.tensors().iter().map(|tensor| tensor.data()), None)?;
        } else if let Err(source) = fs::remove_file(&path)
            && source.kind() != ErrorKind::NotFound
        {
            // That of another adapter, which would be taken for this one's.
            return Err(llmkit_core::Error::io("remove", &path)(source).into());
        }
        let saved = saved_tensors(&self.saved);
        let saved = saved.into_iter().map(|named| {
            let data = named.param.data();
            (named.key, data)
        });
        AdapterFolder::new(folder).write(&self.config.to_json(), self.file_tensors().into_iter().chain(saved))
    }

    fn merge_layer(&self, _layer: LayerMut<'_>) -> Result<bool> {
        let reason = match L::IS_PREFIX {
            true => "it adds keys and values to a sequence",
            false => "it adds vectors to a sequence",
        };
        Err(Error::NotMergeable { kind: L::Config::PEFT_TYPE.into(), reason: reason.into() })
    }

    fn effect(&self, place: Place<'_>) -> Effect {
        match place {
            Place::Prefix if L::IS_PREFIX => Effect::Replaces,
            Place::Prompt if !L::IS_PREFIX => Effect::Replaces,
            Place::Layer(path) if self.saved.contains(path) => Effect::Replaces,
            Place::Layer(_) | Place::Join | Place::Prompt | Place::Prefix => Effect::Nothing,
        }
    }
}

impl<L: Learned> PeftModule for PromptMethod<L> {
    fn with_dropout_seed(self, seed: Option<u64>) -> Self {
        Self { dropout_seed: seed, ..self }
    }

    fn after_step(self, progress: &Progress<'_>) -> Self {
        if progress.step == 1 && L::wants_encoder(&self.config) && self.learned.output().is_none() {
            tracing::warn!(
                "{}: there is no {ENCODER} beside the adapter that is trained, so what its network wrote is trained by itself",
                L::Config::PEFT_TYPE
            );
        }
        self
    }
}
