use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use burn::module::{Module, ParamId};
use burn::tensor::Tensor;
use llmkit_core::Adapter;
use llmkit_core::nn::{LayerMut, Linear};

use crate::Result;
use crate::several::{Effect, Place};
use crate::train::Gradients;

/// A fine-tuning method attached to a model: what files, merging, switching and serving need of it.
///
/// A method of one's own implements this and [`PeftModule`]; one that acts layer by layer is less work as a
/// [`TunedLayer`](crate::TunedLayer).
pub trait Method: Adapter + Debug {
    /// What its configuration file calls the method: PEFT's `peft_type`, such as `LORA`.
    fn kind(&self) -> &str;

    /// Every trained parameter and its name in the method's file.
    fn parameter_names(&self) -> Vec<(ParamId, String)>;

    /// Writes the method's folder: for PEFT's methods, one that PEFT loads.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) when a file can't be written; what was there before stays.
    fn save(&self, folder: &Path) -> Result<()>;

    /// Works the method into one layer of a copy of the model, and says whether that changed it.
    ///
    /// # Errors
    /// [`Error::NotMergeable`](crate::Error::NotMergeable) if the method is more than other weights.
    fn merge_layer(&self, layer: LayerMut<'_>) -> Result<bool>;

    /// What the method does in a place: with what others it can act together hangs on that. A method that doesn't say is taken to replace
    /// what the base computes everywhere.
    fn effect(&self, _place: Place<'_>) -> Effect {
        Effect::Replaces
    }

    /// What the method adds to the output of a linear layer on which its effect is [`Effect::Adds`].
    ///
    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    fn linear_update(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        self.linear(base, input.clone()) - base.forward(input)
    }
}

/// A [`Method`] that can be trained: a burn [`Module`] of its own, so that an optimizer walks only what trains and saving it saves
/// only that.
pub trait PeftModule: Method + Module + Sync {
    /// Turns dropout on, with choices that follow from `seed` alone, or off.
    fn with_dropout_seed(self, seed: Option<u64>) -> Self;

    /// By what the learning rate is multiplied, for each parameter for which that is not 1.
    fn learning_rate_factors(&self) -> BTreeMap<ParamId, f64> {
        BTreeMap::new()
    }

    /// What is added to the mean loss of a step, if anything.
    ///
    /// # Shapes
    /// `[1]`
    fn penalty(&self) -> Option<Tensor<1>> {
        None
    }

    /// What the method does to itself after an optimizer step.
    fn after_step(self, _progress: &Progress<'_>) -> Self {
        self
    }

    /// Writes into `folder` what [`save`](Method::save) leaves out and training needs to go on.
    ///
    /// # Errors
    /// As [`save`](Method::save).
    fn save_training_state(&self, _folder: &Path) -> Result<()> {
        Ok(())
    }

    /// Reads what [`save_training_state`](Self::save_training_state) wrote.
    ///
    /// # Errors
    /// [`Error::Resume`](crate::Error::Resume) if it is missing or does not fit.
    fn load_training_state(self, _folder: &Path) -> Result<Self> {
        Ok(self)
    }
}

/// Where a run stands after an optimizer step.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Optimizer steps made, this one included.
    pub step: usize,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
    /// The gradients of the step, clipped.
    pub gradients: &'a Gradients,
}
