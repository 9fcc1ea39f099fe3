//! Data sets: files of examples, made into token ids with what is to be learned.

mod alpaca;
mod batch;
mod example;
mod labelled;
mod labelled_batch;
mod lines;

pub use alpaca::{AlpacaRow, read_alpaca};
pub use batch::{Batch, batch_order};
pub use example::{Dataset, Encoder, Example, Overlong};
pub use labelled::{
    Label, LabelEncoder, Labelled, LabelledDataset, LabelledText, TextLabel, label_names, read_labelled,
};
pub use labelled_batch::{LabelledBatch, Labels};
