use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::bytes::Bytes;
use super::super::{TensorInfo, TensorSource, malformed, no_such_tensor};
use super::dequant::{SUPPORTED, dequantize};
use super::dtype::GgmlType;
use super::names::{ARCHITECTURES, ROPE_FACTORS, hugging_face_name};
use super::permute::undo_interleaving;
use super::reader::{Entry, Head, read_head};
use super::{Fields, Metadata, config};
use crate::{Error, Result};

/// A GGUF file, memory-mapped: opening reads only its head.
///
/// As a [`TensorSource`] it is the Hugging Face checkpoint that it was made from: names, shapes and the order of query and key rows are
/// that checkpoint's. Only the tensors that have no name there keep llama.cpp's, so that strict loading reports them.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    bytes: Bytes,
    version: u32,
    alignment: usize,
    metadata: Metadata,
    architecture: String,
    tensors: BTreeMap<String, Stored>,
    rope_factors: Option<Stored>,
}

#[derive(Debug)]
struct Stored {
    dtype: GgmlType,
    shape: Vec<usize>,
    range: Range<usize>,
    /// The number of heads whose rows llama.cpp interleaved.
    interleaved: Option<usize>,
}

impl GgufFile {
    /// Opens a little-endian file of version 2 or 3 with an architecture of `llama`, `qwen2` or `qwen3`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Checkpoint`] if it is truncated or lies about its contents,
    /// [`Error::UnsupportedArchitecture`], and [`Error::Config`] if metadata that the layout depends on are missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(path, Bytes::map(path)?)
    }

    /// Reads a file that is already in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open); they name the file `(memory)`.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::parse(Path::new("(memory)"), Bytes::Owned(bytes))
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        let Head { version, metadata, alignment, tensors: entries } = read_head(path, &bytes)?;
        let fields = Fields::new(path, &metadata);
        let architecture = fields.require_str("general.architecture")?.to_owned();
        if !ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(Error::UnsupportedArchitecture {
                path: path.to_path_buf(),
                found: architecture,
                supported: ARCHITECTURES.map(str::to_owned).to_vec(),
            });
        }
        let heads = Heads::read(&fields, &architecture)?;
        let mut tensors = BTreeMap::new();
        let mut rope_factors = None;
        for Entry { name, shape, dtype, range } in entries {
            let interleaved = heads.interleaved(path, &name, &shape)?;
            let stored = Stored { dtype, shape, range, interleaved };
            if name == ROPE_FACTORS {
                rope_factors = Some(stored);
                continue;
            }
            let name = hugging_face_name(&name).unwrap_or(name);
            if tensors.contains_key(&name) {
                return Err(malformed(path, "each tensor once", format!("two that are called `{name}`")));
            }
            tensors.insert(name, stored);
        }
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
            version,
            alignment,
            metadata,
            architecture,
            tensors,
            rope_factors,
        })
    }

    /// The key-value pairs: hyperparameters, tokenizer, chat template.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The same by type, with errors that name this file.
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.path, &self.metadata)
    }

    /// llama.cpp's name of the architecture: `llama`, `qwen2`, `qwen3`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The version of the file format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What the data of each tensor are aligned to, in bytes.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// The `config.json` that Hugging Face's model would have.
    ///
    /// The frequency factors of a Llama 3 model become `rope_scaling` of type `llama3` when its parameters reproduce them, and otherwise of
    /// type `longrope` with the factors themselves, which says the same.
    ///
    /// # Errors
    /// [`Error::Config`] if metadata are missing, of another type, or ask for something that the architecture's Hugging Face class does not do
    /// (experts, a scaled output, ...).
    pub fn config(&self) -> Result<Value> {
        config::derive(self)
    }

    /// The divisors of RoPE's frequencies, `[head_dim / 2]`, if the file has them (`rope_freqs.weight`).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if their type cannot be read.
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>> {
        self.rope_factors.as_ref().map(|stored| self.values(ROPE_FACTORS, stored)).transpose()
    }

    fn values(&self, name: &str, stored: &Stored) -> Result<Vec<f32>> {
        let bytes = &self.bytes[stored.range.clone()];
        let values = dequantize(stored.dtype, bytes).ok_or_else(|| {
            let expected = format!("tensor `{name}` as {SUPPORTED}");
            malformed(
                &self.path,
                expected,
                format!("type {}; use a file quantised to one of those", stored.dtype.name),
            )
        })?;
        self.bytes.release(stored.range.clone());
        Ok(match stored.interleaved {
            Some(heads) => undo_interleaving(&values, heads, row_len(&stored.shape)),
            None => values,
        })
    }
}

impl TensorSource for GgufFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let stored = self.tensors.get(name)?;
        Some(TensorInfo { shape: stored.shape.clone(), dtype: stored.dtype.name.to_owned() })
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let stored = self.tensors.get(name).ok_or_else(|| no_such_tensor(&self.path, name))?;
        self.values(name, stored)
    }
}

/// How many heads llama.cpp interleaved in query and key; none outside the architecture `llama`.
struct Heads {
    query_key: Option<(usize, usize)>,
}

impl Heads {
    fn read(fields: &Fields<'_>, architecture: &str) -> Result<Self> {
        if architecture != "llama" {
            return Ok(Self { query_key: None });
        }
        let query = fields.require_u32("llama.attention.head_count")?;
        let key = fields.u32("llama.attention.head_count_kv")?.unwrap_or(query);
        Ok(Self { query_key: Some((query as usize, key as usize)) })
    }

    fn interleaved(&self, path: &Path, name: &str, shape: &[usize]) -> Result<Option<usize>> {
        let Some((query, key)) = self.query_key else { return Ok(None) };
        let heads = match name.split('.').nth(2) {
            Some("attn_q") => query,
            Some("attn_k") => key,
            _ => return Ok(None),
        };
        // A weight is `[rows, row_len]`, a bias `[rows]`.
        let rows = shape.first().copied().unwrap_or(1);
        if heads == 0 || shape.len() > 2 || !rows.is_multiple_of(2 * heads) {
            let expected = format!("`{name}` with rows for {heads} heads of even size");
            return Err(malformed(path, expected, format!("shape {shape:?}")));
        }
        Ok(Some(heads))
    }
}

fn row_len(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}
