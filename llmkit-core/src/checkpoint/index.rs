use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::shard::MAX_HEADER_BYTES;
use super::{malformed, read_json};
use crate::Result;

/// `model.safetensors.index.json`: which shard holds which tensor.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    /// Tensor name to file name.
    pub(super) weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads an index and makes sure that every shard it names lies in the index's own folder.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let index: Self = read_json(path, MAX_HEADER_BYTES)?;
        for (tensor, shard) in &index.weight_map {
            if !is_file_name(shard) {
                let expected = format!("for tensor `{tensor}` the name of a file in the same folder");
                return Err(malformed(path, expected, format!("`{shard}`")));
            }
        }
        Ok(index)
    }
}

/// Whether `name` is one plain component. Both separators are refused on every system, so that a checkpoint means the same everywhere.
fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(only)) if only == name);
    plain && components.next().is_none() && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::is_file_name;

    #[test]
    fn refuses_names_that_leave_the_folder() {
        assert!(is_file_name("model-00001-of-00002.safetensors"));
        for name in ["", ".", "..", "../model", "/etc/passwd", "a/b", "a/", "./a", "a\\b", "C:x", "a\0b"] {
            assert!(!is_file_name(name), "{name:?}");
        }
    }
}
