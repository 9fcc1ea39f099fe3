use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::bytes::Bytes;
use super::index::Index;
use super::shard::{Shard, Stored};
use super::{TensorInfo, TensorSource, malformed, no_such_tensor};
use crate::{Error, Result};

pub(super) const SINGLE_FILE: &str = "model.safetensors";
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The tensors of a safetensors checkpoint: one file, or several with an index. Memory-mapped: opening reads only the headers.
#[derive(Debug)]
pub struct Safetensors {
    path: PathBuf,
    shards: Vec<Shard>,
    /// Tensor name to the position of its shard.
    shard_of: BTreeMap<String, usize>,
}

impl Safetensors {
    /// Opens a folder that has `model.safetensors` or `model.safetensors.index.json`, such an index, or a single safetensors file of any
    /// name. When a folder has both, the single file is taken, as transformers does, with a warning.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if there are no weights or a shard is missing, [`Error::Checkpoint`] if a file is truncated, its header is
    /// oversized or lies about its tensors, or index and shards disagree.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return if path.extension().is_some_and(|extension| extension == "json") {
                Self::open_sharded(path, path)
            } else {
                Self::single(path, Shard::open(path)?)
            };
        }
        let (single, index) = (path.join(SINGLE_FILE), path.join(INDEX_FILE));
        match (single.is_file(), index.is_file()) {
            (true, both) => {
                if both {
                    tracing::warn!(folder = %path.display(), "both {SINGLE_FILE} and {INDEX_FILE} exist; reading the former");
                }
                Self::single(path, Shard::open(&single)?)
            }
            (false, true) => Self::open_sharded(path, &index),
            (false, false) => Err(Error::MissingFile { path: single, remedy: remedy_without_weights(path) }),
        }
    }

    /// Reads one safetensors file that is already in memory.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] as for [`open`](Self::open); it names the file `(memory)`.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let path = Path::new("(memory)");
        Self::single(path, Shard::parse(path, Bytes::Owned(bytes))?)
    }

    /// The free-form strings of the header, under the format's key `__metadata__`; those of all shards together.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.shards.iter().flat_map(|shard| shard.metadata.clone()).collect()
    }

    fn single(path: &Path, shard: Shard) -> Result<Self> {
        let shard_of = shard.tensors.keys().map(|name| (name.clone(), 0)).collect();
        Ok(Self { path: path.to_path_buf(), shards: vec![shard], shard_of })
    }

    fn open_sharded(path: &Path, index_path: &Path) -> Result<Self> {
        let index = Index::read(index_path)?;
        let folder = index_path.parent().unwrap_or(Path::new(""));
        let files: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        let position: BTreeMap<&str, usize> =
            files.iter().enumerate().map(|(at, file)| (*file, at)).collect();

        let mut shards = Vec::with_capacity(files.len());
        for file in &files {
            let shard_path = folder.join(file);
            if !shard_path.exists() {
                let remedy = format!("{} names it; fetch the whole checkpoint", index_path.display());
                return Err(Error::MissingFile { path: shard_path, remedy });
            }
            let shard = Shard::open(&shard_path)?;
            // A tensor beside the index would be loaded by one library and ignored by another.
            let stray =
                shard.tensors.keys().find(|name| index.weight_map.get(*name).is_none_or(|at| at != file));
            if let Some(name) = stray {
                let expected = format!("only tensors that {INDEX_FILE} assigns to this shard");
                return Err(malformed(&shard_path, expected, format!("`{name}`")));
            }
            shards.push(shard);
        }
        let mut shard_of = BTreeMap::new();
        for (name, file) in &index.weight_map {
            let at = position[file.as_str()];
            if !shards[at].tensors.contains_key(name) {
                let expected = format!("tensor `{name}`, which {INDEX_FILE} assigns to this shard");
                return Err(malformed(&folder.join(file), expected, "no such tensor"));
            }
            shard_of.insert(name.clone(), at);
        }
        Ok(Self { path: path.to_path_buf(), shards, shard_of })
    }

    fn find(&self, name: &str) -> Option<(&Shard, &Stored)> {
        let shard = &self.shards[*self.shard_of.get(name)?];
        Some((shard, shard.tensors.get(name)?))
    }
}

impl TensorSource for Safetensors {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.shard_of.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (_, stored) = self.find(name)?;
        Some(TensorInfo { shape: stored.shape.clone(), dtype: stored.dtype.to_string() })
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (shard, stored) = self.find(name).ok_or_else(|| no_such_tensor(&self.path, name))?;
        shard.read_f32(name, stored)
    }
}

fn remedy_without_weights(folder: &Path) -> String {
    let pickled =
        ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|file| folder.join(file).is_file());
    if pickled {
        "the folder has only pytorch_model.bin, a pickle, which can run code and is never read; convert it in Python with \
         `AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)`"
            .into()
    } else {
        format!("the folder has neither {SINGLE_FILE} nor {INDEX_FILE}; fetch the weights as safetensors")
    }
}
