//! Several adapters of one base: kept by name, active together, or one for each row of a batch.

mod effect;
mod rows;
mod set;
mod stack;

pub use effect::{Effect, Place};
pub use rows::RowAdapters;
pub use set::AdapterSet;
pub use stack::StackedAdapters;
