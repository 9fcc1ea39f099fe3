//! What all methods that act layer by layer share: which layers, what trains whole beside them, files, merging.

mod base_copies;
mod config;
mod file;
mod layer_method;
mod memory;
mod named;
mod saved;
mod targets;
mod tokens;
mod tuned;

pub use config::{Bias, MethodConfig, Scope};
pub(crate) use config::{
    CLASSIFIERS, as_integer_if_whole, as_integers_if_whole, config_text, null_as_default, parse_config,
    task_type,
};
pub use file::AdapterFolder;
pub use layer_method::LayerMethod;
pub(crate) use memory::MemoryTensors;
pub use named::{Named, ParamRef};
pub(crate) use saved::tied_head;
pub use saved::{SavedLayer, SavedLayers};
pub(crate) use targets::{TargetFields, compile, compile_pattern, lookup_pattern};
pub use targets::{TargetModules, Targets};
pub use tokens::{TokenIndices, TokenRows};
pub use tuned::{Attach, TunedLayer};
