use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llmkit_core::checkpoint::{TensorInfo, TensorSource};

/// Tensors that were computed, to be read as if they came from an adapter's file.
#[derive(Debug)]
pub(crate) struct MemoryTensors {
    origin: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl MemoryTensors {
    /// None yet; `origin` says in errors where they come from.
    pub(crate) fn new(origin: &str) -> Self {
        Self { origin: origin.into(), tensors: BTreeMap::new() }
    }

    pub(crate) fn insert(&mut self, key: String, shape: Vec<usize>, values: Vec<f32>) {
        self.tensors.insert(key, (shape, values));
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }
}

impl TensorSource for MemoryTensors {
    fn path(&self) -> &Path {
        &self.origin
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (shape, _) = self.tensors.get(name)?;
        Some(TensorInfo { shape: shape.clone(), dtype: "F32".to_owned() })
    }

    fn read_f32(&self, name: &str) -> llmkit_core::Result<Vec<f32>> {
        match self.tensors.get(name) {
            Some((_, values)) => Ok(values.clone()),
            None => Err(llmkit_core::Error::Tensors {
                path: self.origin.clone(),
                missing: vec![name.to_owned()],
                unexpected: Vec::new(),
                mismatched: Vec::new(),
            }),
        }
    }
}
