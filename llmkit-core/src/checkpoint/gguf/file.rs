use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::bytes::Bytes;
use super::super::{TensorInfo, TensorSource, malformed, no_such_tensor};
use super::architecture::{ARCHITECTURES, Architecture};
use super::dequant::{SUPPORTED, dequantize};
use super::dtype::GgmlType;
use super::names::{Place, ROPE_FACTORS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, place};
use super::permute::undo_interleaving;
use super::reader::{Entry, Head, read_head};
use super::{Fields, Metadata, config};
use crate::{Error, Result};

/// The least that an expert's weight takes. Each expert costs memory for a name, which a hostile file could claim without bytes behind it.
const MIN_EXPERT_BYTES: usize = 64;

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
    architecture: Architecture,
    tensors: BTreeMap<String, Stored>,
    /// Factors of RoPE scaling by llama.cpp's name: no parameters.
    rope_factors: BTreeMap<&'static str, Stored>,
}

#[derive(Debug)]
struct Stored {
    dtype: GgmlType,
    shape: Vec<usize>,
    range: Range<usize>,
    change: Change,
}

/// What llama.cpp did to a tensor, which reading undoes.
#[derive(Debug, Clone, Copy)]
enum Change {
    None,
    /// Interleaved the rows of this many heads.
    Interleaved {
        heads: usize,
    },
    /// Added 1.
    Offset,
}

impl GgufFile {
    /// Opens a little-endian file of version 2 or 3 with an architecture of `llama` (Llama, Mistral, Mixtral), `qwen2`, `qwen3`, `qwen3moe`,
    /// `gemma3` or `phi3`.
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
        let Some(architecture) = Architecture::of_file(&fields)? else {
            return Err(Error::UnsupportedArchitecture {
                path: path.to_path_buf(),
                found: fields.require_str("general.architecture")?.to_owned(),
                supported: ARCHITECTURES.map(str::to_owned).to_vec(),
            });
        };
        let heads = Heads::read(&fields, architecture)?;
        let mut file = Self {
            path: path.to_path_buf(),
            bytes,
            version,
            alignment,
            architecture,
            tensors: BTreeMap::new(),
            rope_factors: BTreeMap::new(),
            metadata,
        };
        for Entry { name, shape, dtype, range } in entries {
            let change = match heads.interleaved(path, &name, &shape)? {
                Some(heads) => Change::Interleaved { heads },
                None if architecture.offsets_norms() && name.ends_with("_norm.weight") => Change::Offset,
                None => Change::None,
            };
            file.insert(name, Stored { dtype, shape, range, change })?;
        }
        Ok(file)
    }

    /// Puts a tensor under its Hugging Face name, or the names of its parts.
    fn insert(&mut self, name: String, stored: Stored) -> Result<()> {
        if let Some(known) =
            [ROPE_FACTORS, ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG].into_iter().find(|known| *known == name)
        {
            self.rope_factors.insert(known, stored);
            return Ok(());
        }
        match place(self.architecture, &name) {
            None => self.insert_one(name, stored),
            Some(Place::Whole(name)) => self.insert_one(name, stored),
            Some(Place::Experts { prefix, suffix }) => {
                let [experts, rows, row] = stored.shape[..] else {
                    let found = format!("shape {:?}", stored.shape);
                    return Err(malformed(&self.path, format!("`{name}` as [experts, out, in]"), found));
                };
                // Rows are whole blocks, so each expert's bytes are an equal share.
                let share = stored.range.len().checked_div(experts).unwrap_or(0);
                if share < MIN_EXPERT_BYTES {
                    let expected = format!("`{name}` with at least {MIN_EXPERT_BYTES} bytes an expert");
                    return Err(malformed(
                        &self.path,
                        expected,
                        format!("{share} bytes for each of {experts}"),
                    ));
                }
                for expert in 0..experts {
                    let start = stored.range.start + expert * share;
                    let part = Stored {
                        dtype: stored.dtype,
                        shape: vec![rows, row],
                        range: start..start + share,
                        change: stored.change,
                    };
                    self.insert_one(format!("{prefix}.{expert}.{suffix}"), part)?;
                }
                Ok(())
            }
        }
    }

    fn insert_one(&mut self, name: String, stored: Stored) -> Result<()> {
        if self.tensors.contains_key(&name) {
            return Err(malformed(&self.path, "each tensor once", format!("two that are called `{name}`")));
        }
        self.tensors.insert(name, stored);
        Ok(())
    }

    /// The key-value pairs: hyperparameters, tokenizer, chat template.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The same by type, with errors that name this file.
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.path, &self.metadata)
    }

    /// llama.cpp's name of the architecture: `llama`, `qwen2`, `gemma3`, ...
    pub fn architecture(&self) -> &str {
        self.architecture.gguf_name()
    }

    pub(super) fn kind(&self) -> Architecture {
        self.architecture
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
    /// (a scaled output, experts where it has none, ...).
    pub fn config(&self) -> Result<Value> {
        config::derive(self)
    }

    /// The divisors of RoPE's frequencies, `[head_dim / 2]`, if the file has them (`rope_freqs.weight`). Phi-3's two sets are in
    /// [`config`](Self::config) alone.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if their type cannot be read.
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>> {
        self.rope_factors_named(ROPE_FACTORS)
    }

    pub(super) fn rope_factors_named(&self, name: &str) -> Result<Option<Vec<f32>>> {
        self.rope_factors.get(name).map(|stored| self.values(name, stored)).transpose()
    }

    fn values(&self, name: &str, stored: &Stored) -> Result<Vec<f32>> {
        let bytes = &self.bytes[stored.range.clone()];
        let mut values = dequantize(stored.dtype, bytes).ok_or_else(|| {
            let expected = format!("tensor `{name}` as {SUPPORTED}");
            malformed(
                &self.path,
                expected,
                format!("type {}; use a file quantised to one of those", stored.dtype.name),
            )
        })?;
        self.bytes.release(stored.range.clone());
        match stored.change {
            Change::None => {}
            Change::Interleaved { heads } => {
                values = undo_interleaving(&values, heads, row_len(&stored.shape));
            }
            Change::Offset => values.iter_mut().for_each(|value| *value -= 1.0),
        }
        Ok(values)
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
    fn read(fields: &Fields<'_>, architecture: Architecture) -> Result<Self> {
        if !architecture.interleaves() {
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
