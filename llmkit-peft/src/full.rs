use std::fs;
use std::path::Path;

use burn::module::{Module, ParamId};
use burn::tensor::{Int, Tensor};
use llmkit_core::Adapter;
use llmkit_core::checkpoint::{Checkpoint, FloatType, TensorData, TensorSource, write_atomic};
use llmkit_core::models::{Model, ModelTensors, SaveOptions, save_model_parts};
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear, Norm, matmul_transposed};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::layers::{Named, TargetFields};
use crate::{
    AdapterFolder, Effect, Error, Method, PeftModule, Place, Result, SavedLayers, TargetModules, Targets,
};

/// Beside the model's own files: which layers train.
const SIDE_FILE: &str = "full_fine_tune.json";

/// Full fine-tuning: every layer of the model, or every one that a pattern names, trains itself.
///
/// It goes through the same trainer as any adapter, so that the two can be compared. The base stays as it is, and its tensors are
/// shared until the first optimizer step; from then on the trained ones exist a second time. Tied embeddings stay tied. What is saved is
/// an ordinary model folder, which whatever reads models can read.
#[derive(Module, Debug)]
pub struct FullFineTune {
    trained: SavedLayers,
    #[module(skip)]
    frozen: ModelTensors,
    #[module(skip)]
    model_config: Value,
    #[module(skip)]
    layers: Targets,
    /// The paths of a head that is tied, and of the embedding to which it is.
    #[module(skip)]
    tied: Option<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Side {
    layers: Targets,
}

impl FullFineTune {
    /// Trains every layer of `model`.
    pub fn new(model: &dyn Model) -> Self {
        Self::of(model, Targets::ModelDefault, |_| true)
    }

    /// Trains those layers, embeddings and norms included, that `layers` names; [`Targets::AllLinear`] means all linear layers but the
    /// head, [`Targets::ModelDefault`] all that there are.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if no layer matches, [`Error::Config`] if a pattern does not compile or a tied head is named without its embedding.
    pub fn only(model: &dyn Model, layers: Targets) -> Result<Self> {
        if layers == Targets::ModelDefault {
            return Ok(Self::new(model));
        }
        let rules = TargetModules::new(TargetFields::all(&layers), None, Path::new("FullFineTune"))?;
        let all_linear = layers == Targets::AllLinear;
        let choose = |layer: Layer<'_>| {
            let kind = !all_linear || matches!(layer, Layer::Linear(_));
            kind && rules.matches(layer.path(), model.head_path() == Some(layer.path()))
        };
        let mut names_head = false;
        model.visit(&mut |layer| names_head |= model.head_path() == Some(layer.path()) && choose(layer));
        let tuned = Self::of(model, layers, choose);
        if let Some((head, embedding)) = tuned.tied.as_ref().filter(|_| names_head)
            && !tuned.trained.contains(embedding)
        {
            return Err(Error::Config {
                origin: "FullFineTune".into(),
                field: "layers".into(),
                expected: format!("{embedding}, to which the head is tied, beside the head"),
                found: head.clone(),
            });
        }
        if tuned.trained.is_empty() {
            let mut available = std::collections::BTreeSet::new();
            model.visit(&mut |layer| available.extend(layer.path().rsplit('.').next().map(str::to_owned)));
            return Err(Error::NoTarget {
                field: "layers",
                pattern: serde_json::to_string(&tuned.layers).unwrap_or_default(),
                available: available.into_iter().collect(),
            });
        }
        Ok(tuned)
    }

    fn of(model: &dyn Model, layers: Targets, choose: impl Fn(Layer<'_>) -> bool) -> Self {
        let head = model.head_path().filter(|_| model.is_tied());
        let mut first_embedding = None;
        model.visit(&mut |layer| {
            if let (Layer::Embedding(embedding), None) = (layer, &first_embedding) {
                first_embedding = Some(embedding.path().to_owned());
            }
        });
        let tied = head.map(str::to_owned).zip(first_embedding);
        // A tied head trains with the embedding, as the one tensor that they are; its bias, where it has one, stays.
        let trained = SavedLayers::of(model, |layer| head != Some(layer.path()) && choose(layer));
        let mut frozen = ModelTensors::new(model);
        frozen.retain(|name| {
            let path = name.rsplit_once('.').map_or(name, |(path, _)| path);
            !trained.contains(path)
        });
        Self { trained, frozen, model_config: model.config().clone(), layers, tied }
    }

    /// Goes on from a folder that [`save`](Method::save) wrote, or starts from any folder of the same architecture. `model` is the base
    /// whose layers the adapter will stand in for.
    ///
    /// # Errors
    /// [`Error::Core`] if a file is missing or malformed, [`Error::Adapter`] naming every tensor that is missing, unknown or of the wrong
    /// shape, and every one that does not train and yet differs from the base's.
    pub fn load(model: &dyn Model, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let side = folder.join(SIDE_FILE);
        let layers = match fs::read(&side) {
            Ok(text) => {
                let side: Side = serde_json::from_slice(&text)
                    .map_err(|source| llmkit_core::Error::Json { path: side, source })?;
                side.layers
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Targets::ModelDefault,
            Err(error) => return Err(llmkit_core::Error::io("read", &side)(error).into()),
        };
        let tuned = Self::only(model, layers)?;
        let checkpoint = Checkpoint::open(folder)?;
        let file = checkpoint.source();
        let mut mismatched = Vec::new();
        let mut missing = Vec::new();
        for name in tuned.frozen.names() {
            let shape = |source: &dyn TensorSource| source.info(&name).map(|info| info.shape);
            match shape(file) {
                None => missing.push(name),
                found if found != shape(&tuned.frozen) => {
                    mismatched
                        .push(format!("{name}: does not train, but has another shape than the base model's"));
                }
                Some(_) if file.read_f32(&name)? != tuned.frozen.read_f32(&name)? => {
                    mismatched.push(format!("{name}: does not train, but is not the base model's"));
                }
                Some(_) => {}
            }
        }
        if !mismatched.is_empty() || !missing.is_empty() {
            let unexpected = Vec::new();
            return Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched });
        }
        let frozen = tuned.frozen.names();
        AdapterFolder::fill(tuned.clone(), &tuned.tensors(), &frozen, file)
    }

    /// The trained tensors under their names in the checkpoint.
    fn tensors(&self) -> Vec<Named<'_>> {
        let plain = |key: String| key.strip_prefix(AdapterFolder::PREFIX).map(str::to_owned).unwrap_or(key);
        self.trained.tensors().into_iter().map(|named| Named { key: plain(named.key), ..named }).collect()
    }

    /// The trained weight of the tied head of this path.
    fn tied_head(&self, path: &str) -> Option<Tensor<2>> {
        let (head, embedding) = self.tied.as_ref()?;
        (head == path).then(|| self.trained.matrix(embedding)).flatten()
    }
}

impl Adapter for FullFineTune {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        self.trained.embed(base, ids)
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        let Some(weight) = self.tied_head(base.path()) else { return self.trained.linear(base, input) };
        let output = matmul_transposed(input, weight);
        match &base.bias {
            Some(bias) => output + bias.clone().unsqueeze(),
            None => output,
        }
    }

    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        self.trained.norm(base, input)
    }
}

impl Method for FullFineTune {
    fn kind(&self) -> &str {
        "FULL"
    }

    fn parameter_names(&self) -> Vec<(ParamId, String)> {
        self.tensors().into_iter().map(|named| (named.param.id(), named.key)).collect()
    }

    /// Writes an ordinary model folder, in `f32`; the tokenizer's files are
    /// [`Pretrained::save_tokenizer`](llmkit_core::models::Pretrained::save_tokenizer)'s to add.
    fn save(&self, folder: &Path) -> Result<()> {
        let trained = self.tensors().into_iter().map(|named| (named.key, named.param.data()));
        let tensors: Vec<(String, TensorData<'static>)> =
            self.frozen.clone().into_data(FloatType::F32).into_iter().chain(trained).collect();
        save_model_parts(&self.model_config, tensors, folder, SaveOptions::default())?;
        let side = serde_json::to_string(&Side { layers: self.layers.clone() });
        let side = side.expect("strings always serialise") + "\n";
        Ok(write_atomic(folder.join(SIDE_FILE), |file| std::io::Write::write_all(file, side.as_bytes()))?)
    }

    fn merge_layer(&self, layer: LayerMut<'_>) -> Result<bool> {
        if let LayerMut::Linear(linear) = &layer
            && let Some(weight) = self.tied_head(linear.path())
        {
            let LayerMut::Linear(linear) = layer else { unreachable!("it was one") };
            linear.weight = weight.without_autodiff();
            return Ok(true);
        }
        Ok(self.trained.merge_layer(layer))
    }

    fn effect(&self, place: Place<'_>) -> Effect {
        match place {
            Place::Layer(path) if self.trained.contains(path) || self.tied_head(path).is_some() => {
                Effect::Replaces
            }
            Place::Layer(_) | Place::Join | Place::Prompt | Place::Prefix => Effect::Nothing,
        }
    }
}

impl PeftModule for FullFineTune {
    fn with_dropout_seed(self, _seed: Option<u64>) -> Self {
        self
    }
}
