use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use burn::module::{Module, ModuleDisplay, ParamId};
use burn::tensor::{Device, Int, Tensor};
use llmkit_core::checkpoint::{TensorData, TensorSource};
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear, Norm};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{MethodConfig, Named};
use crate::dropout::{Dropout, derive};
use crate::{Progress, Result};

/// A method's state for one layer, and what it computes there: all that a method which acts layer by layer has to say.
/// [`LayerMethod`](super::LayerMethod) makes a whole method of it.
pub trait TunedLayer: Module + ModuleDisplay + Debug + Sync + 'static {
    /// The method's configuration.
    type Config: MethodConfig;

    /// What the layers of one method have in common, outside of what trains; `()` for most.
    type Shared: Debug + Clone + Send + Sync;

    /// Makes what the layers have in common. `file` is the adapter's file where one is loaded.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration or the file.
    fn shared(
        model: &dyn Model,
        config: &Self::Config,
        seed: u64,
        file: Option<&dyn TensorSource>,
    ) -> Result<Self::Shared>;

    /// What of the shared state is in the method's file, with whole keys.
    fn shared_tensors(_shared: &Self::Shared) -> Vec<(String, TensorData<'static>)> {
        Vec::new()
    }

    /// Whether the method can act on layers of this kind; by default, on linear ones.
    fn accepts(layer: Layer<'_>) -> bool {
        matches!(layer, Layer::Linear(_))
    }

    /// Fresh state for `layer`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration does not fit the layer.
    fn attach(layer: Layer<'_>, config: &Self::Config, attach: &Attach<'_, Self::Shared>) -> Result<Self>;

    /// The path of the layer.
    fn path(&self) -> &str;

    /// What the linear layer computes now. `dropout` is set while training.
    ///
    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    fn linear(
        &self,
        base: &Linear,
        input: Tensor<3>,
        _shared: &Self::Shared,
        _dropout: Option<Dropout>,
    ) -> Tensor<3> {
        base.forward(input)
    }

    /// Whether the state adds to what the layer computes, whatever it computes: then several methods can act on it together.
    fn adds(&self) -> bool {
        false
    }

    /// What the state adds to the linear layer's output, where it [`adds`](Self::adds).
    ///
    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    fn linear_update(
        &self,
        base: &Linear,
        input: Tensor<3>,
        shared: &Self::Shared,
        dropout: Option<Dropout>,
    ) -> Tensor<3> {
        self.linear(base, input.clone(), shared, dropout) - base.forward(input)
    }

    /// What the embedding gives now.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, hidden]`.
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>, _shared: &Self::Shared) -> Tensor<3> {
        base.forward(ids)
    }

    /// What the normalisation computes now.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    fn norm(&self, base: &Norm, input: Tensor<3>, _shared: &Self::Shared) -> Tensor<3> {
        base.forward(input)
    }

    /// The tensors that train, each with the end of its key: `lora_A.weight`.
    fn tensors(&self) -> Vec<Named<'_>>;

    /// The paths of other layers that this state acts on as well: a head that is tied to the embedding.
    fn other_paths(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the file holds of the layer besides [`tensors`](Self::tensors), with whole keys: copies of what is known otherwise.
    fn copies(&self) -> Vec<(String, TensorData<'static>)> {
        Vec::new()
    }

    /// Whole keys of the file that [`attach`](Self::attach) has read and checked, if they are there: those of [`copies`](Self::copies).
    fn read_keys(&self) -> Vec<String> {
        Vec::new()
    }

    /// Works the state into the layer's weights, so that the layer alone computes the same.
    ///
    /// # Errors
    /// [`Error::NotMergeable`](crate::Error::NotMergeable) if that can't be.
    fn merge(&self, layer: LayerMut<'_>, shared: &Self::Shared) -> Result<()>;

    /// As [`PeftModule::learning_rate_factors`](crate::PeftModule::learning_rate_factors); `others` are the tensors that train beside the
    /// method.
    fn learning_rate_factors(
        _layers: &[Self],
        _config: &Self::Config,
        _others: &[Named<'_>],
    ) -> BTreeMap<ParamId, f64> {
        BTreeMap::new()
    }

    /// As [`PeftModule::penalty`](crate::PeftModule::penalty).
    fn penalty(_layers: &[Self], _config: &Self::Config) -> Option<Tensor<1>> {
        None
    }

    /// As [`PeftModule::after_step`](crate::PeftModule::after_step).
    fn after_step(
        layers: Vec<Self>,
        _config: &mut Self::Config,
        _shared: &Self::Shared,
        _progress: &Progress<'_>,
    ) -> Vec<Self> {
        layers
    }

    /// What the file holds, where it is not the state itself: other layers in the place of these, and another configuration.
    fn for_file(_layers: &[Self], _config: &Self::Config) -> Option<(Vec<Self>, Self::Config)> {
        None
    }

    /// What else training needs to go on: tensors with the end of their keys.
    fn training_state(&self) -> Vec<(String, TensorData<'static>)> {
        Vec::new()
    }

    /// Takes back what [`training_state`](Self::training_state) gave; `key` makes whole keys of their ends.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    fn restore_training_state(self, _file: &dyn TensorSource, _key: &dyn Fn(&str) -> String) -> Result<Self> {
        Ok(self)
    }
}

/// What a layer is attached with.
#[derive(Clone, Copy)]
pub struct Attach<'a, S> {
    /// Fixes what the layer draws.
    pub seed: u64,
    /// Where its tensors live.
    pub device: &'a Device,
    /// What the layers have in common.
    pub shared: &'a S,
    /// The adapter's file where one is loaded: every tensor of [`TunedLayer::tensors`] will be overwritten from it.
    pub file: Option<&'a dyn TensorSource>,
    /// Where the configuration came from, for errors.
    pub origin: &'a Path,
}

impl<S> Attach<'_, S> {
    /// A random generator of the layer's own: its choices don't depend on which other layers are adapted.
    pub fn rng(&self, path: &str) -> ChaCha8Rng {
        let hash = path.bytes().fold(self.seed, |hash, byte| derive(hash, u64::from(byte)));
        ChaCha8Rng::seed_from_u64(hash)
    }
}
