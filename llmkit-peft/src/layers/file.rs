use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use llmkit_core::checkpoint::{Safetensors, TensorData, TensorSource, save_safetensors, write_atomic};

use super::Named;
use crate::{Error, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// A folder as PEFT saves adapters: `adapter_config.json` and `adapter_model.safetensors`.
#[derive(Debug, Clone)]
pub struct AdapterFolder {
    folder: PathBuf,
}

impl AdapterFolder {
    /// What PEFT puts before every path of a layer.
    pub const PREFIX: &'static str = "base_model.model.";

    /// The folder of this path, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Where the configuration is.
    pub fn config_path(&self) -> PathBuf {
        self.folder.join(CONFIG)
    }

    /// The configuration's text.
    ///
    /// # Errors
    /// [`Error::Core`] if it can't be read.
    pub fn config(&self) -> Result<String> {
        let path = self.config_path();
        Ok(fs::read_to_string(&path).map_err(|source| missing(&self.folder, &path, source))?)
    }

    /// The tensors.
    ///
    /// # Errors
    /// [`Error::Core`] if the file is missing or malformed.
    pub fn weights(&self) -> Result<Safetensors> {
        Ok(Safetensors::open(self.folder.join(WEIGHTS))?)
    }

    /// Writes both files, each beside the old one and renamed.
    ///
    /// # Errors
    /// [`Error::Core`] when a file can't be written; what was there before stays.
    pub fn write(
        &self,
        config: &str,
        tensors: impl IntoIterator<Item = (String, TensorData<'static>)>,
    ) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(llmkit_core::Error::io("create", &self.folder))?;
        save_safetensors(self.folder.join(WEIGHTS), tensors, None)?;
        Ok(write_atomic(self.config_path(), |file| std::io::Write::write_all(file, config.as_bytes()))?)
    }

    /// Gives the parameters of `module` the values that `file` has under their names. `read` are keys of the file that were read
    /// otherwise.
    ///
    /// # Errors
    /// [`Error::Adapter`] naming every key that is missing, unknown or of the wrong shape.
    pub fn fill<M: Module>(
        module: M,
        names: &[Named<'_>],
        read: &[String],
        file: &dyn TensorSource,
    ) -> Result<M> {
        let mut wanted = BTreeMap::new();
        let mut missing = Vec::new();
        let mut mismatched = Vec::new();
        let mut taken: BTreeSet<String> = read.iter().cloned().collect();
        for Named { key, alias, param } in names {
            let alias = alias.as_ref().filter(|alias| file.info(key).is_none() && file.info(alias).is_some());
            let key = alias.unwrap_or(key).clone();
            match file.info(&key) {
                None => missing.push(key),
                Some(info) if info.shape != param.shape() => {
                    mismatched.push(format!("{key}: expected {:?}, found {:?}", param.shape(), info.shape));
                    taken.insert(key);
                }
                Some(_) => {
                    wanted.insert(param.id(), key.clone());
                    taken.insert(key);
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
        Ok(crate::parameters::replace(module, values))
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
