//! Data sets: files of examples, made into token ids with the answer marked.

mod alpaca;
mod batch;
mod example;

pub use alpaca::{AlpacaRow, read_alpaca};
pub use batch::{Batch, batch_order};
pub use example::{Dataset, Encoder, Example, Overlong};
