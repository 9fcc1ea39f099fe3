use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::{Param, ParamId};
use burn::tensor::Tensor;
use llmkit_core::checkpoint::{Safetensors, TensorData, TensorSource, save_safetensors, write_atomic};
use llmkit_core::models::CausalLm;

use super::{Lora, LoraConfig, LoraLayer, SavedLayer};
use crate::{Error, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What PEFT puts before every path.
const PREFIX: &str = "base_model.model.";

/// One tensor of the adapter and its key in the file.
pub(super) struct FileEntry<'a> {
    pub(super) key: String,
    /// The key under which another version of PEFT writes the same tensor.
    alias: Option<String>,
    param: ParamRef<'a>,
}

enum ParamRef<'a> {
    Matrix(&'a Param<Tensor<2>>),
    Vector(&'a Param<Tensor<1>>),
}

impl FileEntry<'_> {
    pub(super) fn id(&self) -> ParamId {
        match self.param {
            ParamRef::Matrix(param) => param.id,
            ParamRef::Vector(param) => param.id,
        }
    }

    fn shape(&self) -> Vec<usize> {
        match self.param {
            ParamRef::Matrix(param) => param.shape().to_vec(),
            ParamRef::Vector(param) => param.shape().to_vec(),
        }
    }

    fn data(&self) -> TensorData<'static> {
        match self.param {
            ParamRef::Matrix(param) => TensorData::from_tensor(param.val().without_autodiff()),
            ParamRef::Vector(param) => TensorData::from_tensor(param.val().without_autodiff()),
        }
    }
}

impl Lora {
    /// Reads a PEFT folder for `model`.
    ///
    /// # Errors
    /// [`Error::Config`] when `adapter_config.json` is unusable, [`Error::Adapter`] naming every key that is missing, unknown or of
    /// the wrong shape, [`Error::Core`] when a file is missing or malformed.
    pub fn load(model: &dyn CausalLm, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let origin = folder.join(CONFIG);
        let text = fs::read_to_string(&origin).map_err(|source| missing(folder, &origin, source))?;
        let config = LoraConfig::parse(&text, &origin)?;
        // Every tensor is overwritten, so the seed doesn't matter.
        let lora = Self::build(model, config, 0, &origin)?;
        let file = Safetensors::open(folder.join(WEIGHTS))?;
        lora.fill(&file)
    }

    pub(super) fn save_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(llmkit_core::Error::io("create", folder))?;
        let tensors = self.file_entries().into_iter().map(|entry| {
            let data = entry.data();
            (entry.key, data)
        });
        save_safetensors(folder.join(WEIGHTS), tensors, None)?;
        let json = self.config.to_json();
        Ok(write_atomic(folder.join(CONFIG), |file| std::io::Write::write_all(file, json.as_bytes()))?)
    }

    fn fill(self, file: &dyn TensorSource) -> Result<Self> {
        let mut wanted = BTreeMap::new();
        let mut missing = Vec::new();
        let mut mismatched = Vec::new();
        let mut taken = Vec::new();
        for entry in self.file_entries() {
            let alias = entry.alias.as_ref().filter(|alias| file.info(&entry.key).is_none() && file.info(alias).is_some());
            let key = alias.unwrap_or(&entry.key).clone();
            match file.info(&key) {
                None => missing.push(key),
                Some(info) if info.shape != entry.shape() => {
                    mismatched.push(format!("{key}: expected {:?}, found {:?}", entry.shape(), info.shape));
                    taken.push(key);
                }
                Some(_) => {
                    wanted.insert(entry.id(), key.clone());
                    taken.push(key);
                }
            }
        }
        let unexpected: Vec<_> = file.names().into_iter().filter(|name| !taken.contains(name)).collect();
        if !missing.is_empty() || !unexpected.is_empty() || !mismatched.is_empty() {
            return Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched });
        }
        let mut values = BTreeMap::new();
        for (id, key) in wanted {
            values.insert(id, file.read_f32(&key)?);
        }
        Ok(crate::parameters::replace(self, values))
    }

    /// Every tensor of the adapter, in the model's order.
    pub(super) fn file_entries(&self) -> Vec<FileEntry<'_>> {
        let lora = self.layers.iter().flat_map(|layer| {
            let LoraLayer { lora_a, lora_b, lora_b_bias, bias, path, .. } = layer;
            let mut entries = vec![
                FileEntry::new(path, "lora_A.weight", ParamRef::Matrix(lora_a)),
                FileEntry::new(path, "lora_B.weight", ParamRef::Matrix(lora_b)),
            ];
            entries.extend(
                lora_b_bias.as_ref().map(|bias| FileEntry::new(path, "lora_B.bias", ParamRef::Vector(bias))),
            );
            entries.extend(bias.as_ref().map(|bias| {
                let entry = FileEntry::new(path, "base_layer.bias", ParamRef::Vector(bias));
                FileEntry { alias: Some(format!("{PREFIX}{path}.bias")), ..entry }
            }));
            entries
        });
        let saved = self.saved.iter().flat_map(|layer| {
            let SavedLayer { matrix, vector, bias, path } = layer;
            let weight = matrix.as_ref().map(ParamRef::Matrix).or_else(|| vector.as_ref().map(ParamRef::Vector));
            let weight = weight.map(|weight| FileEntry::new(path, "weight", weight));
            let bias = bias.as_ref().map(|bias| FileEntry::new(path, "bias", ParamRef::Vector(bias)));
            weight.into_iter().chain(bias)
        });
        lora.chain(saved).collect()
    }
}

impl<'a> FileEntry<'a> {
    fn new(path: &str, suffix: &str, param: ParamRef<'a>) -> Self {
        Self { key: format!("{PREFIX}{path}.{suffix}"), alias: None, param }
    }
}

fn missing(folder: &Path, origin: &Path, source: std::io::Error) -> llmkit_core::Error {
    if source.kind() == std::io::ErrorKind::NotFound {
        llmkit_core::Error::MissingFile {
            path: origin.to_path_buf(),
            remedy: format!(
                "{} is no PEFT adapter folder (an adapter that isn't called `default` is in a sub-folder of its name)",
                folder.display()
            ),
        }
    } else {
        llmkit_core::Error::io("read", origin)(source)
    }
}
