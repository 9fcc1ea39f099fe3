use std::path::Path;

use burn::module::{Module, ParamId};
use llmkit_core::Adapter;

use crate::Result;

/// A fine-tuning method: an adapter that is a burn [`Module`] of its own, so that an optimizer walks only what trains and saving it
/// saves only that.
pub trait PeftModule: Adapter + Module + Sync {
    /// The name of every parameter, as the method's file calls it.
    fn parameter_names(&self) -> Vec<(ParamId, String)>;

    /// Turns dropout on, with choices that follow from `seed` alone, or off.
    fn with_dropout_seed(self, seed: Option<u64>) -> Self;

    /// Writes the method's folder: for PEFT's methods, one that PEFT loads.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) when the file can't be written; what was there before stays.
    fn save(&self, folder: &Path) -> Result<()>;
}
