use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use burn::module::{Module, ParamId};
use burn::tensor::{Int, Tensor};
use llmkit_core::Adapter;
use llmkit_core::checkpoint::{Safetensors, TensorSource, save_safetensors};
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear, Norm};

use super::{AdapterFolder, Attach, Bias, MethodConfig, Named, SavedLayers, TokenRows, TunedLayer};
use crate::dropout::Dropout;
use crate::{Effect, Error, Method, PeftModule, Place, Progress, Result, Targets};

const TRAINING_STATE: &str = "training_state.safetensors";

/// A method that acts layer by layer: the state of each target, and what trains whole beside them.
#[derive(Module, Debug)]
pub struct LayerMethod<L: TunedLayer + Module> {
    layers: Vec<L>,
    saved: SavedLayers,
    tokens: TokenRows,
    #[module(skip)]
    places: HashMap<String, usize>,
    #[module(skip)]
    config: L::Config,
    #[module(skip)]
    shared: L::Shared,
    #[module(skip)]
    dropout_seed: Option<u64>,
}

impl<L: TunedLayer> LayerMethod<L> {
    /// A fresh adapter for `model`, on the model's device. `seed` fixes what is drawn.
    ///
    /// As under PEFT, the head of a classifier trains whole beside the adapter.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if `target_modules` or an entry of `modules_to_save` names no layer; [`Error::Config`] for impossible
    /// numbers, patterns that don't compile, and targets of a kind that the method can't act on.
    pub fn new(model: &dyn Model, mut config: L::Config, seed: u64) -> Result<Self> {
        config.scope_mut().complete_for(model);
        Self::build(model, config, seed, Path::new("(the program's configuration)"), None)
    }

    /// Reads a PEFT folder for `model`.
    ///
    /// # Errors
    /// [`Error::Config`] when `adapter_config.json` is unusable, [`Error::Adapter`] naming every key that is missing, unknown or of
    /// the wrong shape, [`Error::Core`] when a file is missing or malformed.
    pub fn load(model: &dyn Model, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = AdapterFolder::new(folder.as_ref());
        let origin = folder.config_path();
        let config = L::Config::parse(&folder.config()?, &origin)?;
        let file = folder.weights()?;
        // Every tensor is overwritten, so the seed doesn't matter.
        let method = Self::build(model, config, 0, &origin, Some(&file))?;
        let shared = L::shared_tensors(&method.shared).into_iter().map(|(key, _)| key);
        let mut read: Vec<_> = shared.filter(|key| file.info(key).is_some()).collect();
        read.extend(method.layers.iter().flat_map(L::read_keys));
        read.extend(method.saved.read_copies(&file)?);
        AdapterFolder::fill(method.clone(), &method.tensors(), &read, &file)
    }

    /// An adapter of tensors that were computed, which must be all that the configuration asks for.
    pub(crate) fn with_tensors(
        model: &dyn Model,
        config: L::Config,
        tensors: &dyn TensorSource,
    ) -> Result<Self> {
        let method = Self::build(model, config, 0, tensors.path(), Some(tensors))?;
        AdapterFolder::fill(method.clone(), &method.tensors(), &[], tensors)
    }

    fn build(
        model: &dyn Model,
        config: L::Config,
        seed: u64,
        origin: &Path,
        file: Option<&dyn TensorSource>,
    ) -> Result<Self> {
        config.validate(origin)?;
        config.scope().check_absent(L::Config::ABSENT_FIELDS, origin)?;
        let scope = config.scope();
        let model_type = model.config()["model_type"].as_str().unwrap_or_default();
        let targets = scope.targets(L::Config::default_targets(model_type), origin)?;
        let mut saved = SavedLayers::new(model, &scope.modules_to_save)?;
        if config.ensure_weight_tying() {
            saved = saved.tied(model, origin)?;
        }
        let tokens = TokenRows::new(model, config.trainable_tokens(), config.ensure_weight_tying(), origin)?;
        let shared = L::shared(model, &config, seed, file)?;
        let device = model.device();
        let attach = Attach { seed, device: &device, shared: &shared, file, origin };

        let mut layers = Vec::new();
        let mut places = HashMap::new();
        let mut available = BTreeSet::new();
        let mut failed = None;
        model.visit(&mut |layer| {
            let path = layer.path();
            if saved.contains(path) {
                if tokens.contains(path) {
                    failed.get_or_insert(Error::Config {
                        origin: origin.into(),
                        field: "trainable_token_indices".into(),
                        expected: "layers that `modules_to_save` does not train whole".into(),
                        found: path.to_owned(),
                    });
                }
                return;
            }
            let accepted = L::accepts(layer);
            if accepted {
                available.extend(path.rsplit('.').next().map(str::to_owned));
            }
            // "All linear" does not mean layers of other kinds.
            let eligible = matches!(layer, Layer::Linear(_)) || scope.target_modules != Targets::AllLinear;
            let target = eligible
                && !places.contains_key(path)
                && targets.matches(path, model.head_path() == Some(path));
            match (target, accepted) {
                (true, _) if tokens.contains(path) => {
                    failed.get_or_insert(Error::Config {
                        origin: origin.into(),
                        field: "trainable_token_indices".into(),
                        expected: "layers that `target_modules` does not name".into(),
                        found: path.to_owned(),
                    });
                }
                (true, true) => match L::attach(layer, &config, &attach) {
                    Ok(attached) => {
                        places.insert(path.to_owned(), layers.len());
                        places.extend(attached.other_paths().into_iter().map(|path| (path, layers.len())));
                        layers.push(attached);
                    }
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                },
                (true, false) => {
                    failed.get_or_insert(Error::Config {
                        origin: origin.into(),
                        field: "target_modules".into(),
                        expected: format!(
                            "layers that {} can act on (name others in `modules_to_save` to train them whole)",
                            L::Config::PEFT_TYPE
                        ),
                        found: format!("{path}, {}", kind(layer)),
                    });
                }
                (false, _) => {}
            }
            if config.bias() == Bias::All || (target && config.bias() == Bias::Targets) {
                saved.train_bias(layer, target);
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if layers.is_empty() {
            return Err(Error::NoTarget {
                field: "target_modules",
                pattern: serde_json::to_string(&scope.target_modules).unwrap_or_default(),
                available: available.into_iter().collect(),
            });
        }
        Ok(Self { layers, saved, tokens, places, config, shared, dropout_seed: None })
    }

    /// How the adapter is shaped.
    pub fn config(&self) -> &L::Config {
        &self.config
    }

    /// The state of each target, in the model's order.
    pub fn layers(&self) -> &[L] {
        &self.layers
    }

    /// What the layers have in common.
    pub fn shared(&self) -> &L::Shared {
        &self.shared
    }

    /// The layers that train whole, and the biases that train alone.
    pub fn saved_layers(&self) -> &SavedLayers {
        &self.saved
    }

    /// The state of the layer of this path, if it is a target.
    pub fn layer(&self, path: &str) -> Option<&L> {
        self.places.get(path).map(|index| &self.layers[*index])
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let tensors = self.tensors().into_iter().map(|named| {
            let data = named.param.data();
            (named.key, data)
        });
        let copies = self.layers.iter().flat_map(L::copies).chain(self.saved.copies());
        let tensors = L::shared_tensors(&self.shared).into_iter().chain(copies).chain(tensors);
        AdapterFolder::new(folder).write(&self.config.to_json(), tensors)
    }

    /// Changes the state of each target.
    pub(crate) fn map_layers(mut self, change: impl FnMut(L) -> L) -> Self {
        self.layers = self.layers.into_iter().map(change).collect();
        self
    }

    /// Every tensor that trains, with its whole key.
    fn tensors(&self) -> Vec<Named<'_>> {
        let of_layers = self.layers.iter().flat_map(|layer| {
            let prefix = key(layer.path(), "");
            layer.tensors().into_iter().map(move |named| named.below(&prefix))
        });
        of_layers.chain(self.others()).collect()
    }

    /// Every tensor that trains beside the method, with its whole key.
    fn others(&self) -> Vec<Named<'_>> {
        self.saved.tensors().into_iter().chain(self.tokens.tensors()).collect()
    }

    fn dropout(&self, index: usize) -> Option<Dropout> {
        let probability = self.config.dropout();
        self.dropout_seed
            .filter(|_| probability > 0.0)
            .map(|seed| Dropout::new(probability, seed).derive(index as u64))
    }
}

/// The whole key of a layer's tensor.
fn key(path: &str, end: &str) -> String {
    format!("{}{path}.{end}", AdapterFolder::PREFIX)
}

fn kind(layer: Layer<'_>) -> &'static str {
    match layer {
        Layer::Linear(_) => "a linear layer",
        Layer::Norm(_) => "a normalisation",
        Layer::Embedding(_) => "an embedding",
    }
}

impl<L: TunedLayer> Adapter for LayerMethod<L> {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        match self.layer(base.path()) {
            Some(layer) => layer.embed(base, ids, &self.shared),
            None if self.tokens.contains(base.path()) => self.tokens.embed(base, ids),
            None => self.saved.embed(base, ids),
        }
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        let index = self.places.get(base.path()).copied();
        if index.is_none() && !self.tokens.contains(base.path()) {
            return self.saved.linear(base, input);
        }
        let with_bias = self
            .saved
            .bias(base.path())
            .map(|bias| Linear::new(base.path(), base.weight.clone(), Some(bias)));
        let base = with_bias.as_ref().unwrap_or(base);
        match index {
            Some(index) => self.layers[index].linear(base, input, &self.shared, self.dropout(index)),
            None => self.tokens.linear(base, input),
        }
    }

    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        match self.layer(base.path()) {
            Some(layer) => layer.norm(base, input, &self.shared),
            None => self.saved.norm(base, input),
        }
    }
}

impl<L: TunedLayer> Method for LayerMethod<L> {
    fn kind(&self) -> &str {
        L::Config::PEFT_TYPE
    }

    fn parameter_names(&self) -> Vec<(ParamId, String)> {
        // A tensor without elements (AdaLoRA may leave a layer nothing) is in the file, but can't train.
        let trained = self.tensors().into_iter().filter(|named| !named.param.shape().contains(&0));
        trained.map(|named| (named.param.id(), named.key)).collect()
    }

    fn save(&self, folder: &Path) -> Result<()> {
        match L::for_file(&self.layers, &self.config) {
            Some((layers, config)) => Self { layers, config, ..self.clone() }.write(folder),
            None => self.write(folder),
        }
    }

    fn merge_layer(&self, mut layer: LayerMut<'_>) -> Result<bool> {
        let path = match &layer {
            LayerMut::Linear(linear) => linear.path(),
            LayerMut::Norm(norm) => norm.path(),
            LayerMut::Embedding(embedding) => embedding.path(),
        };
        let Some(tuned) = self.layer(path) else {
            let rows = self.tokens.merge_layer(&mut layer);
            return Ok(self.saved.merge_layer(layer) || rows);
        };
        if let LayerMut::Linear(linear) = &mut layer
            && let Some(bias) = self.saved.bias(linear.path())
        {
            linear.bias = Some(bias.without_autodiff());
        }
        tuned.merge(layer, &self.shared)?;
        Ok(true)
    }

    fn effect(&self, place: Place<'_>) -> Effect {
        let Place::Layer(path) = place else { return Effect::Nothing };
        match self.layer(path) {
            Some(layer) if layer.adds() && !self.saved.contains(path) => Effect::Adds,
            Some(_) => Effect::Replaces,
            None if self.saved.contains(path) || self.tokens.contains(path) => Effect::Replaces,
            None => Effect::Nothing,
        }
    }

    fn linear_update(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        match self.places.get(base.path()) {
            Some(&index) => self.layers[index].linear_update(base, input, &self.shared, self.dropout(index)),
            None => self.linear(base, input.clone()) - base.forward(input),
        }
    }
}

impl<L: TunedLayer> PeftModule for LayerMethod<L> {
    fn with_dropout_seed(self, seed: Option<u64>) -> Self {
        Self { dropout_seed: seed, ..self }
    }

    fn learning_rate_factors(&self) -> BTreeMap<ParamId, f64> {
        L::learning_rate_factors(&self.layers, &self.config, &self.others())
    }

    fn penalty(&self) -> Option<Tensor<1>> {
        L::penalty(&self.layers, &self.config)
    }

    fn after_step(mut self, progress: &Progress<'_>) -> Self {
        self.layers = L::after_step(self.layers, &mut self.config, &self.shared, progress);
        self
    }

    fn save_training_state(&self, folder: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        for layer in &self.layers {
            let state = layer.training_state().into_iter();
            tensors.extend(state.map(|(end, tensor)| (key(layer.path(), &end), tensor)));
        }
        if tensors.is_empty() {
            return Ok(());
        }
        Ok(save_safetensors(folder.join(TRAINING_STATE), tensors, None)?)
    }

    fn load_training_state(mut self, folder: &Path) -> Result<Self> {
        if self.layers.iter().all(|layer| layer.training_state().is_empty())
            && !folder.join(TRAINING_STATE).exists()
        {
            return Ok(self);
        }
        let file = Safetensors::open(folder.join(TRAINING_STATE))?;
        let restore = |layer: L| {
            let path = layer.path().to_owned();
            layer.restore_training_state(&file, &|end| key(&path, end))
        };
        self.layers = self.layers.into_iter().map(restore).collect::<Result<_>>()?;
        Ok(self)
    }
}
