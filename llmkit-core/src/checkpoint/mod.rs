//! Reading and writing model files: safetensors (single or sharded) and GGUF.

pub mod gguf;

use crate::Result;

/// The element type of a stored tensor, for reports; reading always dequantises to `f32`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The shape in torch's layout: a linear weight is `[out, in]`.
    pub shape: Vec<usize>,
    /// The stored type: `"F32"`, `"BF16"`, `"Q4_1"`.
    pub dtype: String,
}

/// Where named tensors come from. Names and layouts are those of the Hugging Face checkpoint, whatever the file's format.
pub trait TensorSource: Send + Sync {
    /// The file or folder, for error messages.
    fn path(&self) -> &std::path::Path;

    /// All names, sorted.
    fn names(&self) -> Vec<String>;

    /// Shape and stored type of a tensor, if it is there.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// The tensor's values in row-major order, converted to `f32`.
    ///
    /// # Errors
    /// [`Error::Tensors`](crate::Error::Tensors) if there is no such tensor, [`Error::Checkpoint`](crate::Error::Checkpoint) if its bytes are unusable.
    fn read_f32(&self, name: &str) -> Result<Vec<f32>>;
}
