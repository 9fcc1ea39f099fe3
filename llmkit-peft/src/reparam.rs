//! The methods that change weights, attached to any burn module: one that knows nothing of llmkit.
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::Tensor;
//! use llmkit_peft::reparam::Attached;
//! use llmkit_peft::{LokrConfig, LokrLayer, Targets};
//!
//! #[derive(Module, Debug)]
//! struct Net {
//!     inner: Linear,
//!     outer: Linear,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = llmkit_core::Device::Auto.resolve()?.autodiff();
//! let net = Net {
//!     inner: LinearConfig::new(12, 20).init(&device),
//!     outer: LinearConfig::new(20, 4).init(&device),
//! };
//!
//! // The same type, with the weight of `inner` reparameterized and everything else frozen.
//! let config = LokrConfig::new(Targets::names(["inner"])).with_rank(2);
//! let (net, adapter) = Attached::<LokrLayer>::new(net, config, 0)?;
//! assert_eq!(adapter.targets().collect::<Vec<_>>(), ["inner"]);
//!
//! // Any optimizer that walks burn modules trains it; here, one gradient.
//! let x = Tensor::<2>::ones([3, 12], &device);
//! let gradients = net.outer.forward(net.inner.forward(x)).sum().backward();
//! # assert!(net.inner.weight.base().grad(&gradients).is_none());
//! # assert!(net.outer.weight.val().grad(&gradients).is_none());
//!
//! // A folder such as PEFT writes for a torch module with the same names; and the weights alone again.
//! # let folder = tempfile::tempdir()?;
//! adapter.save(&net, folder.path())?;
//! let merged: Net = net.valid().materialize();
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//!
//! burn composes a reparameterized weight anew whenever the module reads it, so each forward pass makes a whole weight for each target,
//! autodiff keeps it, and the backward pass makes a gradient of its size. With models of [`llmkit_core`] the same methods work on activations
//! instead, and no such matrix exists: attach them by [`LayerMethod::new`] there. Dropout of an update belongs to activations and rows of a layer, which
//! burn doesn't show here: a configuration that asks for it is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamId, Reparameterization, Reparameterizer};
use burn::tensor::{DType, Device, Tensor};
use llmkit_core::models::{Model, Task};
use llmkit_core::nn::{Layer, Linear};
use serde_json::Value;

use crate::parameters::replace;
use crate::{Bias, Error, LayerMethod, Method, MethodConfig, Result, Targets, WeightSpace};

/// What ties a burn module to the method that was attached to it: which weights, how they are shaped, and the names of files.
///
/// The state that trains is in the module.
#[derive(Debug, Clone)]
pub struct Attached<L: WeightSpace> {
    method: LayerMethod<L>,
}

impl<L: WeightSpace> Attached<L> {
    /// Attaches a fresh adapter to the weights of `module` that the configuration's targets name, and freezes everything else.
    ///
    /// Every parameter of two dimensions is taken for the weight of a linear layer in burn's layout, `[in, out]`. Its path is that of the
    /// parameter without a final `.weight`: `layers.0.inner`. [`Targets::AllLinear`] means the weights of burn's own [`Linear`](burn::nn::Linear) layers, the
    /// last one included.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if no weight matches; [`Error::Config`] for impossible numbers, and for what does not fit a module of any kind: dropout,
    /// biases, `modules_to_save`, and targets that are left to the architecture.
    pub fn new<M: Module>(module: M, config: L::Config, seed: u64) -> Result<(M, Self)> {
        Self::attach(module, &config, Path::new("(the program's configuration)"), |weights| {
            LayerMethod::new(weights, config.clone(), seed)
        })
    }

    /// Reads a PEFT folder and attaches it.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`LayerMethod::load`].
    pub fn load<M: Module>(module: M, folder: impl AsRef<Path>) -> Result<(M, Self)> {
        let folder = crate::AdapterFolder::new(folder.as_ref());
        let config = L::Config::parse(&folder.config()?, &folder.config_path())?;
        Self::attach(module, &config, &folder.config_path(), |weights| {
            LayerMethod::load(weights, folder.path())
        })
    }

    fn attach<M: Module>(
        module: M,
        config: &L::Config,
        origin: &Path,
        make: impl FnOnce(&Weights) -> Result<LayerMethod<L>>,
    ) -> Result<(M, Self)> {
        let refuse = |field: &str, expected: &str, found: String| {
            Err(Error::Config {
                origin: origin.into(),
                field: field.into(),
                expected: expected.into(),
                found,
            })
        };
        if config.dropout() > 0.0 {
            let found = config.dropout().to_string();
            return refuse("dropout", "0 on a burn module, whose weights alone are reparameterized", found);
        }
        if config.bias() != Bias::None {
            return refuse("bias", "`none` on a burn module", format!("{:?}", config.bias()));
        }
        if !config.scope().modules_to_save.is_empty() {
            let found = config.scope().modules_to_save.join(", ");
            return refuse("modules_to_save", "nothing on a burn module", found);
        }
        if config.scope().target_modules == Targets::ModelDefault {
            return refuse(
                "target_modules",
                "names of weights: a burn module has no defaults",
                "null".into(),
            );
        }
        let only_linear = config.scope().target_modules == Targets::AllLinear;
        let weights = Weights::of(&module, only_linear);
        let method = make(&weights)?;
        let changes_bias = |layer: &&L| layer.changes_bias(weights.has_bias(layer.path()));
        if let Some(layer) = method.layers().iter().find(changes_bias) {
            let expected =
                "layers of which the method changes the weight alone, since burn keeps the bias apart";
            return refuse("target_modules", expected, layer.path().to_owned());
        }
        let layers = method.layers().iter().map(|layer| (layer.path().to_owned(), layer.clone()));
        let attacher = Attacher { layers: layers.collect(), shared: method.shared().clone() };
        Ok((module.apply_reparameterization(attacher), Self { method }))
    }

    /// The paths of the weights that it is attached to.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.method.layers().iter().map(L::path)
    }

    /// Every trained parameter and its name in the method's file.
    pub fn parameter_names(&self) -> Vec<(ParamId, String)> {
        self.method.parameter_names()
    }

    /// Writes the state that `module` holds as the folder that PEFT would write. `module` may be trained, cloned, or moved to another device since.
    ///
    /// # Errors
    /// [`Error::NotAttached`] naming the parameters that `module` lacks; [`Error::Core`] when a file can't be written.
    pub fn save<M: Module>(&self, module: &M, folder: impl AsRef<Path>) -> Result<()> {
        let names = self.parameter_names();
        let mut values = Values { wanted: names.iter().map(|(id, _)| *id).collect(), found: BTreeMap::new() };
        module.visit(&mut values);
        let missing: Vec<_> = names
            .into_iter()
            .filter(|(id, _)| !values.found.contains_key(id))
            .map(|(_, name)| name)
            .collect();
        if !missing.is_empty() {
            return Err(Error::NotAttached { names: missing });
        }
        replace(self.method.clone(), values.found).save(folder.as_ref())
    }
}

/// The state that burn keeps beside a weight and composes with it.
#[derive(Module, Debug)]
pub struct Reparam<L: WeightSpace + Module> {
    layer: L,
    #[module(skip)]
    shared: L::Shared,
}

impl<L: WeightSpace> Reparameterization for Reparam<L> {
    const NAME: &'static str = L::NAME;

    /// # Panics
    /// If the base is not a matrix, which [`Attached`] sees to.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let (shape, dtype) = (base.shape(), base.dtype());
        let [d_input, d_output]: [usize; 2] =
            base.dims().as_slice().try_into().expect("only matrices have one");
        let weight = base.reshape([d_input, d_output]).cast(DType::F32).transpose();
        self.layer.weight(weight, &self.shared).transpose().reshape(shape).cast(dtype)
    }
}

struct Attacher<L: WeightSpace> {
    layers: HashMap<String, L>,
    shared: L::Shared,
}

impl<L: WeightSpace> Reparameterizer for Attacher<L> {
    type Reparam = Reparam<L>;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Reparam<L>>) {
        let layer = if D == 2 { self.layers.remove(layer_path(path)) } else { None };
        let reparam = layer.map(|layer| Reparam { layer, shared: self.shared.clone() });
        (param.set_require_grad(false), reparam)
    }
}

/// The path of the layer to which a parameter belongs.
fn layer_path(path: &str) -> &str {
    path.strip_suffix(".weight").unwrap_or(path)
}

/// A burn module's matrices as linear layers in torch's layout, all that attaching needs to see of a model.
#[derive(Debug)]
struct Weights {
    layers: Vec<Linear>,
    device: Device,
}

impl Weights {
    fn of<M: Module>(module: &M, only_linear: bool) -> Self {
        let device = module.devices().first().cloned().unwrap_or_default();
        let mut collect =
            Collect { path: Vec::new(), only_linear, layers: Vec::new(), biases: HashMap::new() };
        module.visit(&mut collect);
        let Collect { mut layers, mut biases, .. } = collect;
        for layer in &mut layers {
            let bias = biases.remove(layer.path());
            layer.bias = bias.filter(|bias| bias.dims() == [layer.d_output()]);
        }
        Self { layers, device }
    }

    fn has_bias(&self, path: &str) -> bool {
        self.layers.iter().any(|layer| layer.path() == path && layer.bias.is_some())
    }
}

impl Model for Weights {
    fn config(&self) -> &Value {
        &Value::Null
    }

    fn num_blocks(&self) -> usize {
        0
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn head_path(&self) -> Option<&str> {
        None
    }

    fn task(&self) -> Task {
        Task::FeatureExtraction
    }

    fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        self.layers.iter().for_each(|layer| see(Layer::Linear(layer)));
    }
}

struct Collect {
    /// The names on the way to the parameter, and the type that holds each.
    path: Vec<(String, String)>,
    only_linear: bool,
    layers: Vec<Linear>,
    /// By the path of the layer.
    biases: HashMap<String, Tensor<1>>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.to_owned(), container_type.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let is_linear = self.path.last().is_some_and(|(_, container)| container == "Struct:Linear");
        let names: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        let path = names.join(".");
        let tensor = param.base().without_autodiff();
        match (tensor.dims().as_slice(), path.strip_suffix(".bias")) {
            (&[len], Some(layer)) => {
                self.biases.insert(layer.to_owned(), tensor.reshape([len]));
            }
            (&[d_input, d_output], _) if is_linear || !self.only_linear => {
                let weight = tensor.reshape([d_input, d_output]).transpose();
                self.layers.push(Linear::new(layer_path(&path), weight, None));
            }
            _ => {}
        }
    }
}

/// The values of some parameters, by their ids.
struct Values {
    wanted: BTreeSet<ParamId>,
    found: BTreeMap<ParamId, Vec<f32>>,
}

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.wanted.contains(&param.id) {
            let values = param.val().without_autodiff().try_into_vec_as::<f32>();
            self.found.insert(param.id, values.expect("floats convert to f32"));
        }
    }
}
