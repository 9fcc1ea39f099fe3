//! GGUF, the file format of llama.cpp.
//!
//! [`GgufFile`] reads versions 2 and 3, little-endian, and presents the tensors under their Hugging Face names, in torch's layout, with
//! llama.cpp's permutation of query and key weights undone. [`save_gguf`] writes such a file from a Hugging Face checkpoint.

mod architecture;
mod block_quants;
mod config;
mod dequant;
mod dtype;
mod encode;
mod fields;
mod file;
mod hyperparameters;
mod iq_grids;
mod iq_quants;
mod k_quants;
mod names;
mod permute;
mod quantize;
mod reader;
mod rope_factors;
mod save;
mod small_quants;
mod value;

pub use fields::Fields;
pub use file::GgufFile;
pub use save::{GgufOptions, GgufType, save_gguf};
pub use value::{Metadata, MetadataValue};
