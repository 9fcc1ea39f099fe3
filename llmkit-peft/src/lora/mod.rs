mod config;
mod file;
mod layer;
mod saved;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use burn::module::{Module, ParamId};
use burn::tensor::{Int, Tensor};
use llmkit_core::Adapter;
use llmkit_core::models::CausalLm;
use llmkit_core::nn::{Embedding, Layer, Linear, Norm};

pub use config::{Bias, InitLora, LoraConfig, Sizes};
pub(crate) use layer::LoraLayer;
pub(crate) use saved::SavedLayer;

use crate::dropout::derive;
use crate::{Error, PeftModule, Result};

/// LoRA (Hu et al. 2021): beside each chosen linear layer `y = W x`, a trained update of low rank, `y = W x + scale * B A x`.
///
/// It works on activations: `W` is never tracked, and no gradient of its size exists. The update starts at zero, so a fresh LoRA
/// leaves the model as it is.
#[derive(Module, Debug)]
pub struct Lora {
    layers: Vec<LoraLayer>,
    saved: Vec<SavedLayer>,
    #[module(skip)]
    places: HashMap<String, Place>,
    #[module(skip)]
    config: LoraConfig,
    #[module(skip)]
    dropout_seed: Option<u64>,
}

/// Where a layer's state is kept.
#[derive(Debug, Clone, Copy)]
enum Place {
    Lora(usize),
    Saved(usize),
}

impl Lora {
    /// A fresh LoRA for `model`, on the model's device. `seed` fixes the factors.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if `target_modules` or an entry of `modules_to_save` names no layer; [`Error::Config`] for impossible
    /// numbers and patterns that don't compile.
    pub fn new(model: &dyn CausalLm, config: LoraConfig, seed: u64) -> Result<Self> {
        Self::build(model, config, seed, Path::new("LoraConfig"))
    }

    fn build(model: &dyn CausalLm, config: LoraConfig, seed: u64, origin: &Path) -> Result<Self> {
        config.validate(origin)?;
        let targets = config.targets(origin)?;
        let sizes = config.sizes(origin)?;
        let device = model.device();

        let mut layers = Vec::new();
        let mut saved = Vec::new();
        let mut places = HashMap::new();
        let mut available = BTreeSet::new();
        let mut embedding_targets = Vec::new();
        let mut saved_found = vec![false; config.modules_to_save.len()];
        model.visit(&mut |layer| {
            let path = layer.path();
            let save = config.modules_to_save.iter().position(|module| is_within(path, module));
            if let Some(entry) = save {
                saved_found[entry] = true;
                places.insert(path.to_owned(), Place::Saved(saved.len()));
                saved.push(SavedLayer::whole(layer));
                return;
            }
            match layer {
                Layer::Linear(linear) => {
                    available.extend(path.rsplit('.').next().map(str::to_owned));
                    if targets.matches(path, path == "lm_head") {
                        let mut rng = layer::layer_rng(seed, path);
                        let train_bias = config.bias != Bias::None;
                        places.insert(path.to_owned(), Place::Lora(layers.len()));
                        layers.push(LoraLayer::new(
                            linear,
                            sizes(path),
                            config.init,
                            config.lora_bias,
                            train_bias,
                            &mut rng,
                            &device,
                        ));
                    } else if config.bias == Bias::All
                        && let Some(bias) = SavedLayer::bias_only(linear)
                    {
                        places.insert(path.to_owned(), Place::Saved(saved.len()));
                        saved.push(bias);
                    }
                }
                // `all-linear` does not mean embeddings.
                Layer::Embedding(_) if config.target_modules != crate::Targets::AllLinear => {
                    if targets.matches(path, false) {
                        embedding_targets.push(path.to_owned());
                    }
                }
                Layer::Embedding(_) | Layer::Norm(_) => {}
            }
        });

        if let Some(path) = embedding_targets.first() {
            return Err(Error::Config {
                origin: origin.into(),
                field: "target_modules".into(),
                expected: "linear layers (LoRA on embeddings is not supported; name it in `modules_to_save` to train it whole)"
                    .into(),
                found: path.clone(),
            });
        }
        let available: Vec<String> = available.into_iter().collect();
        if let Some(missing) = saved_found.iter().position(|found| !found) {
            let pattern = config.modules_to_save[missing].clone();
            return Err(Error::NoTarget { field: "modules_to_save", pattern, available });
        }
        if layers.is_empty() {
            let pattern = serde_json::to_string(&config.target_modules).unwrap_or_default();
            return Err(Error::NoTarget { field: "target_modules", pattern, available });
        }
        Ok(Self { layers, saved, places, config, dropout_seed: None })
    }

    /// How this LoRA is shaped.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The paths of the layers that have an update, in the model's order, with its rank and scale.
    pub fn targets(&self) -> impl Iterator<Item = (&str, Sizes)> {
        self.layers.iter().map(|layer| {
            (layer.path.as_str(), Sizes { rank: layer.lora_a.val().dims()[0], scale: layer.scale })
        })
    }

    pub(crate) fn lora_layer(&self, path: &str) -> Option<&LoraLayer> {
        match self.places.get(path)? {
            Place::Lora(index) => Some(&self.layers[*index]),
            Place::Saved(_) => None,
        }
    }

    pub(crate) fn saved_layer(&self, path: &str) -> Option<&SavedLayer> {
        match self.places.get(path)? {
            Place::Saved(index) => Some(&self.saved[*index]),
            Place::Lora(_) => None,
        }
    }
}

/// PEFT's rule for `modules_to_save`: the path, or that of a module around it, ends in `module`, with no dot needed before.
fn is_within(path: &str, module: &str) -> bool {
    let ends = path.match_indices('.').map(|(dot, _)| dot).chain([path.len()]);
    ends.into_iter().any(|end| path[..end].ends_with(module))
}

impl Adapter for Lora {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        match self.saved_layer(base.path()) {
            Some(saved) => saved.embed(base, ids),
            None => base.forward(ids),
        }
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        match self.places.get(base.path()) {
            Some(Place::Lora(index)) => {
                let drop = self
                    .dropout_seed
                    .filter(|_| self.config.dropout > 0.0)
                    .map(|seed| (self.config.dropout, derive(seed, *index as u64)));
                self.layers[*index].forward(base, input, drop)
            }
            Some(Place::Saved(index)) => self.saved[*index].linear(base, input),
            None => base.forward(input),
        }
    }

    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        match self.saved_layer(base.path()) {
            Some(saved) => saved.norm(base, input),
            None => base.forward(input),
        }
    }
}

impl PeftModule for Lora {
    fn parameter_names(&self) -> Vec<(ParamId, String)> {
        self.file_entries().into_iter().map(|entry| (entry.id(), entry.key)).collect()
    }

    fn with_dropout_seed(self, seed: Option<u64>) -> Self {
        Self { dropout_seed: seed, ..self }
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.save_folder(folder)
    }
}
