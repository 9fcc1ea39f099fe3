//! GGUF, the file format of llama.cpp.

mod value;

pub use value::{Metadata, MetadataValue};
