use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use llmkit_core::checkpoint::{TensorData as FileTensor, TensorSource};
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear, Norm};
use serde::{Deserialize, Serialize};

use crate::random::normal;
use crate::{
    AdapterFolder, Attach, Dropout, Error, LayerMethod, MethodConfig, Named, Result, Scope, Targets,
    TunedLayer,
};

/// BitFit (Ben Zaken et al. 2021, <https://arxiv.org/abs/2106.10199>): the biases train, and nothing else.
///
/// Its folder is of PEFT's type `BEFT`, which learns what is *added* to the biases of linear layers (Huang et al. 2025,
/// <https://arxiv.org/abs/2509.15974>), so that PEFT reads what BitFit writes, and BEFT's folders are read here. PEFT knows no trained
/// bias of a normalisation: those it finds as whole layers in `modules_to_save`; the field `bitfit_norms`, which PEFT ignores with a
/// warning, says here that their weights are the base's.
///
/// The addition starts at zero, so a fresh BitFit leaves the model as it is.
pub type BitFit = LayerMethod<BitFitLayer>;

/// Which biases a [`BitFit`] trains: PEFT's `BeftConfig`, and what an `adapter_config.json` of type `BEFT` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "File", into = "File")]
pub struct BitFitConfig {
    /// The layers to act on; by default PEFT's choice (`v_proj` of Llama and its kin, `value` of BERT).
    pub scope: Scope,
    /// Whether the additions start at zero; otherwise normal, for tests. Default true.
    pub init_weights: bool,
    /// Those of the targets that are normalisations.
    norms: Vec<String>,
}

/// The configuration as the file holds it.
#[derive(Clone, Serialize, Deserialize)]
struct File {
    #[serde(flatten)]
    scope: Scope,
    #[serde(default = "yes")]
    init_weights: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bitfit_norms: Vec<String>,
}

fn yes() -> bool {
    true
}

impl TryFrom<File> for BitFitConfig {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        let File { mut scope, init_weights, bitfit_norms: norms } = file;
        if !norms.is_empty() {
            let Targets::Names(targets) = &mut scope.target_modules else {
                return Err("`bitfit_norms` needs `target_modules` to be a list".into());
            };
            if let Some(norm) = norms.iter().find(|norm| !scope.modules_to_save.contains(norm)) {
                return Err(format!("`bitfit_norms` has {norm}, which `modules_to_save` lacks"));
            }
            targets.extend(norms.iter().cloned());
            scope.modules_to_save.retain(|module| !norms.contains(module));
        }
        Ok(Self { scope, init_weights, norms })
    }
}

impl From<BitFitConfig> for File {
    fn from(config: BitFitConfig) -> Self {
        let BitFitConfig { mut scope, init_weights, norms: bitfit_norms } = config;
        if let Targets::Names(targets) = &mut scope.target_modules {
            targets.retain(|target| !bitfit_norms.contains(target));
        }
        scope.modules_to_save.extend(bitfit_norms.iter().cloned());
        Self { scope, init_weights, bitfit_norms }
    }
}

impl BitFitConfig {
    /// Trains an addition to the output of the linear layers of `scope`, whether they have a bias or not. Those without one can't be
    /// merged.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self { scope: scope.into(), init_weights: true, norms: Vec::new() }
    }

    /// BitFit itself: every bias of `model`, those of normalisations included. A classifier's last layers are left out: name
    /// them in `modules_to_save`, since they are new and must train whole.
    ///
    /// # Errors
    /// [`Error::NoBias`] for a model without biases.
    pub fn every_bias(model: &dyn Model) -> Result<Self> {
        Self::biases(model, true)
    }

    /// Every bias of the model's linear layers.
    ///
    /// # Errors
    /// [`Error::NoBias`] if they have none.
    pub fn linear_biases(model: &dyn Model) -> Result<Self> {
        Self::biases(model, false)
    }

    fn biases(model: &dyn Model, with_norms: bool) -> Result<Self> {
        let (mut linears, mut norms, mut others) = (Vec::new(), Vec::new(), Vec::new());
        model.visit(&mut |layer| {
            let path = layer.path().to_owned();
            let is_new = path.split('.').any(|part| part == "classifier" || part == "score");
            match layer {
                Layer::Linear(linear) if linear.bias.is_some() && !is_new => linears.push(path),
                Layer::Norm(norm) if norm.bias.is_some() && !is_new && with_norms => norms.push(path),
                _ => others.push(path),
            }
        });
        if linears.is_empty() {
            let model_type = model.config()["model_type"].as_str().unwrap_or_default().to_owned();
            return Err(Error::NoBias { model_type });
        }
        let targets = short_names(&linears, &[&norms, &others]);
        let norms = short_names(&norms, &[&linears, &others]);
        let all = targets.into_iter().chain(norms.iter().cloned());
        Ok(Self { scope: Scope::new(Targets::names(all)), init_weights: true, norms })
    }

    /// Draws the additions from a normal distribution: not the identity, for tests.
    pub fn with_random_init(self) -> Self {
        Self { init_weights: false, ..self }
    }

    /// Trains these layers whole and saves them along, such as a classifier's.
    pub fn with_modules_to_save<S: Into<String>>(self, modules: impl IntoIterator<Item = S>) -> Self {
        Self { scope: self.scope.with_modules_to_save(modules), ..self }
    }

    /// Whether the normalisation of this path is among the targets.
    fn has_norm(&self, path: &str) -> bool {
        self.norms.iter().any(|norm| {
            path.strip_suffix(norm.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

/// The last parts of `paths`, or whole ones where another path ends alike. PEFT asks for no dot before `modules_to_save`.
fn short_names(paths: &[String], others: &[&Vec<String>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for path in paths {
        let last = path.rsplit('.').next().unwrap_or(path);
        let is_unique = others.iter().all(|others| others.iter().all(|other| !other.ends_with(last)));
        let name = if is_unique { last } else { path };
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

impl MethodConfig for BitFitConfig {
    const PEFT_TYPE: &'static str = "BEFT";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &[];
    const ABSENT_FIELDS: &'static [&'static str] =
        &["exclude_modules", "layers_to_transform", "layers_pattern"];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    fn validate(&self, _origin: &Path) -> Result<()> {
        Ok(())
    }

    fn default_targets(model_type: &str) -> Option<&'static [&'static str]> {
        match model_type {
            "llama" | "mistral" | "mixtral" | "gemma3_text" | "qwen2" | "qwen3" => Some(&["v_proj"]),
            "bert" | "roberta" => Some(&["value"]),
            _ => None,
        }
    }
}

/// The weights of the normalisations whose biases train: PEFT needs them in the file, though they stay as they are.
#[derive(Debug, Clone)]
pub struct NormWeights(HashMap<String, Tensor<1>>);

/// What is added to one linear layer's output, or a normalisation's bias.
#[derive(Module, Debug)]
pub struct BitFitLayer {
    /// `[1, out]`
    beft_bias: Option<Param<Tensor<2>>>,
    /// `[hidden]`
    norm_bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    path: String,
}

fn weight_key(path: &str) -> String {
    format!("{}{path}.weight", AdapterFolder::PREFIX)
}

impl TunedLayer for BitFitLayer {
    type Config = BitFitConfig;
    type Shared = NormWeights;

    fn shared(
        model: &dyn Model,
        config: &BitFitConfig,
        _seed: u64,
        file: Option<&dyn TensorSource>,
    ) -> Result<NormWeights> {
        let mut weights = HashMap::new();
        model.visit(&mut |layer| {
            if let Layer::Norm(norm) = layer
                && config.has_norm(norm.path())
            {
                weights.insert(norm.path().to_owned(), norm.weight.clone());
            }
        });
        let Some(file) = file else { return Ok(NormWeights(weights)) };
        let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
        for (path, weight) in &mut weights {
            let key = weight_key(path);
            let expected = weight.dims();
            match file.info(&key) {
                None => missing.push(key),
                Some(info) if info.shape != expected => {
                    mismatched.push(format!("{key}: expected {expected:?}, found {:?}", info.shape));
                }
                Some(_) => {
                    let values = TensorData::new(file.read_f32(&key)?, expected);
                    *weight = Tensor::from_data(values, &weight.device());
                }
            }
        }
        if !missing.is_empty() || !mismatched.is_empty() {
            let unexpected = Vec::new();
            return Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched });
        }
        Ok(NormWeights(weights))
    }

    fn shared_tensors(shared: &NormWeights) -> Vec<(String, FileTensor<'static>)> {
        let weights = shared.0.iter();
        weights.map(|(path, weight)| (weight_key(path), FileTensor::from_tensor(weight.clone()))).collect()
    }

    fn accepts(layer: Layer<'_>) -> bool {
        !matches!(layer, Layer::Embedding(_))
    }

    fn attach(layer: Layer<'_>, config: &BitFitConfig, attach: &Attach<'_, NormWeights>) -> Result<Self> {
        let path = layer.path().to_owned();
        match layer {
            Layer::Linear(linear) => {
                let len = linear.d_output();
                let values = match config.init_weights {
                    true => vec![0.0; len],
                    false => normal(len, 1.0, &mut attach.rng(&path)),
                };
                let bias = Param::from_data(TensorData::new(values, [1, len]), attach.device);
                Ok(Self { beft_bias: Some(bias), norm_bias: None, path })
            }
            Layer::Norm(Norm { bias: Some(bias), .. }) if config.has_norm(&path) => {
                Ok(Self { beft_bias: None, norm_bias: Some(Param::from_tensor(bias.clone())), path })
            }
            Layer::Norm(_) | Layer::Embedding(_) => Err(Error::Config {
                origin: attach.origin.to_path_buf(),
                field: "target_modules".into(),
                expected: "linear layers (`BitFitConfig::every_bias` trains the biases of normalisations that have them)".into(),
                found: path,
            }),
        }
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _: &NormWeights, _: Option<Dropout>) -> Tensor<3> {
        let output = base.forward(input);
        match &self.beft_bias {
            Some(bias) => output + bias.val().unsqueeze(),
            None => output,
        }
    }

    fn norm(&self, base: &Norm, input: Tensor<3>, shared: &NormWeights) -> Tensor<3> {
        match (&self.norm_bias, shared.0.get(&self.path)) {
            (Some(bias), Some(weight)) => base.forward_with(input, weight.clone(), Some(bias.val())),
            _ => base.forward(input),
        }
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        let linear = self.beft_bias.iter().map(|bias| Named::new("beft_bias", bias));
        let norm = self.norm_bias.iter().map(|bias| Named::new("bias", bias));
        linear.chain(norm).collect()
    }

    fn merge(&self, layer: LayerMut<'_>, shared: &NormWeights) -> Result<()> {
        match layer {
            LayerMut::Linear(linear) => {
                let Some(bias) = &self.beft_bias else { return Ok(()) };
                // A bias that the architecture doesn't have would be lost in the merged model's folder.
                let base = linear.bias.take().ok_or_else(|| Error::NotMergeable {
                    kind: BitFitConfig::PEFT_TYPE.into(),
                    reason: format!("{} has no bias to add to", self.path),
                })?;
                let bias = bias.val().without_autodiff();
                linear.bias = Some(base + bias.squeeze_dim(0));
            }
            LayerMut::Norm(norm) => {
                let (Some(bias), Some(weight)) = (&self.norm_bias, shared.0.get(&self.path)) else {
                    return Ok(());
                };
                norm.weight = weight.clone();
                norm.bias = Some(bias.val().without_autodiff());
            }
            LayerMut::Embedding(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::short_names;

    #[test]
    fn names_are_short_where_no_other_layer_ends_alike() {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let wanted = owned(&["layers.0.q_proj", "layers.1.q_proj", "layers.0.norm", "head.dense"]);
        let others = owned(&["layers.0.input_layernorm", "other.dense"]);
        assert_eq!(short_names(&wanted, &[&others]), ["q_proj", "layers.0.norm", "head.dense"]);
    }
}
