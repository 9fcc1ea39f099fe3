//! Reading and writing model files: safetensors (single or sharded) and GGUF.
//!
//! [`Checkpoint::open`] takes whatever the user has; [`TensorSource`] is what a model loads from. [`save_sharded`] writes a folder that
//! transformers loads, and [`write_atomic`] replaces any file all at once or not at all.
//!
//! Files are memory-mapped and read as hostile: every length is checked before memory is taken for it. One thing cannot be checked: a file
//! that another process truncates while it is mapped ends this process (SIGBUS). Writers that rename, as ours do, never truncate.

pub mod gguf;

mod atomic;
mod bytes;
mod index;
mod safetensors;
mod save;
mod shard;
mod tensor_data;
mod unpack;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::gguf::GgufFile;
use crate::{Error, Result};

pub use atomic::write_atomic;
pub use safetensors::Safetensors;
pub use save::{save_safetensors, save_sharded};
pub use tensor_data::{FloatType, TensorData};

/// The longest `config.json` that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

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
    fn path(&self) -> &Path;

    /// All names, sorted.
    fn names(&self) -> Vec<String>;

    /// Shape and stored type of a tensor, if it is there.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// The tensor's values in row-major order, converted to `f32`.
    ///
    /// # Errors
    /// [`Error::Tensors`] if there is no such tensor, [`Error::Checkpoint`] if its bytes are unusable.
    fn read_f32(&self, name: &str) -> Result<Vec<f32>>;
}

/// A model on disk: its configuration and its weights, from a Hugging Face folder or a GGUF file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Value,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Safetensors(Safetensors),
    Gguf(Box<GgufFile>),
}

impl Checkpoint {
    /// Opens a folder with `config.json` and safetensors, or a GGUF file (recognised by its first four bytes, not its name).
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the path, `config.json` or the weights are not there; a folder that has only pickled weights
    /// (`pytorch_model.bin`) is refused with the way to convert them. [`Error::Json`] and [`Error::Config`] for an unusable
    /// configuration, [`Error::UnsupportedArchitecture`] for a GGUF file of an architecture without a name table, and
    /// [`Error::Checkpoint`] for malformed weights.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let kind = match fs::metadata(path) {
            Ok(kind) => kind,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::MissingFile {
                    path: path.to_path_buf(),
                    remedy: "pass a folder with config.json and safetensors, or a .gguf file".into(),
                });
            }
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        if kind.is_dir() {
            let config = read_config(&path.join("config.json"))?;
            let weights = Weights::Safetensors(Safetensors::open(path)?);
            return Ok(Self { path: path.to_path_buf(), config, weights });
        }
        if !kind.is_file() || !starts_with_gguf(path)? {
            return Err(malformed(
                path,
                "a folder with config.json and safetensors, or a GGUF file",
                "another kind of file; to open a safetensors file, pass the folder that it and config.json lie in",
            ));
        }
        let file = GgufFile::open(path)?;
        let config = file.config()?;
        Ok(Self { path: path.to_path_buf(), config, weights: Weights::Gguf(Box::new(file)) })
    }

    /// The configuration as in Hugging Face's `config.json`; of a GGUF file, derived from its metadata.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The weights.
    pub fn source(&self) -> &dyn TensorSource {
        match &self.weights {
            Weights::Safetensors(source) => source,
            Weights::Gguf(source) => source.as_ref(),
        }
    }

    /// The GGUF file, if it is one; its metadata also holds the tokenizer and the chat template.
    pub fn gguf(&self) -> Option<&GgufFile> {
        match &self.weights {
            Weights::Safetensors(_) => None,
            Weights::Gguf(file) => Some(file),
        }
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn read_config(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Err(Error::MissingFile {
            path: path.to_path_buf(),
            remedy: "a model folder needs the config.json that its weights were saved with".into(),
        });
    }
    let value: Value = read_json(path, MAX_CONFIG_BYTES)?;
    if !value.is_object() {
        return Err(Error::Config {
            path: path.to_path_buf(),
            field: "(the whole file)".into(),
            expected: "a JSON object".into(),
            found: "another JSON value".into(),
        });
    }
    Ok(value)
}

/// Parses a JSON file of at most `max_bytes`.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, max_bytes: u64) -> Result<T> {
    let file = fs::File::open(path).map_err(Error::io("read", path))?;
    let mut text = Vec::new();
    // One byte beyond the limit tells "too long" from "just long enough", whatever the file system claims its length to be.
    file.take(max_bytes + 1).read_to_end(&mut text).map_err(Error::io("read", path))?;
    if text.len() as u64 > max_bytes {
        return Err(malformed(path, format!("at most {max_bytes} bytes of JSON"), "a longer file"));
    }
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_path_buf(), source })
}

fn starts_with_gguf(path: &Path) -> Result<bool> {
    let file = fs::File::open(path).map_err(Error::io("read", path))?;
    let mut magic = Vec::with_capacity(4);
    file.take(4).read_to_end(&mut magic).map_err(Error::io("read", path))?;
    Ok(magic == b"GGUF")
}

/// An [`Error::Checkpoint`] about `path`.
fn malformed(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.to_path_buf(), expected: expected.into(), found: found.into() }
}

/// The error for a tensor that is asked for by name and is not there.
fn no_such_tensor(path: &Path, name: &str) -> Error {
    Error::Tensors {
        path: path.to_path_buf(),
        missing: vec![name.to_owned()],
        unexpected: Vec::new(),
        mismatched: Vec::new(),
    }
}
