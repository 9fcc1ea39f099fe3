use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::bytes::Bytes;
use super::malformed;
use super::unpack::{from_bf16, from_f16, from_f32};
use crate::Result;

/// The longest header that is read: what the format's reference implementation accepts.
pub(super) const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The bytes before the header: its length as a `u64`.
const LENGTH_BYTES: usize = 8;

/// One safetensors file, its header parsed and checked.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    bytes: Bytes,
    pub(super) tensors: BTreeMap<String, Stored>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Where a tensor lies in its file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) dtype: ::safetensors::Dtype,
    pub(super) shape: Vec<usize>,
    range: Range<usize>,
}

impl Shard {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::map(path)?)
    }

    pub(super) fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        // The crate's own `read_metadata` adds the sizes of header and data unchecked, so a header that claims 2^64 - 8 bytes of tensors
        // panics there in a build with overflow checks. Hence the lengths are compared here, and only the header's JSON is left to it.
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            let found = format!("{} bytes: truncated", bytes.len());
            return Err(malformed(path, format!("at least {LENGTH_BYTES} bytes of safetensors"), found));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES {
            let expected = format!("a header of at most {MAX_HEADER_BYTES} bytes");
            return Err(malformed(path, expected, format!("one of {length} bytes")));
        }
        // `length` is at most 10^8 and so fits.
        let Some((header, data)) = rest.split_at_checked(length as usize) else {
            let found = format!("{} bytes after the length: truncated", rest.len());
            return Err(malformed(path, format!("a header of {length} bytes"), found));
        };
        let _: UniqueKeys = serde_json::from_slice(header).map_err(|error| {
            malformed(path, "a header that is a JSON object without repeated names", error.to_string())
        })?;
        let header: ::safetensors::tensor::Metadata = serde_json::from_slice(header).map_err(|error| {
            let expected = "a header whose tensors lie side by side without gap or overlap, each as long as its shape and dtype say";
            malformed(path, expected, error.to_string())
        })?;
        if header.data_len() != data.len() {
            let expected = format!("{} bytes of tensors, as the header says", header.data_len());
            let reason = if header.data_len() > data.len() {
                ": truncated"
            } else {
                ": something follows the last tensor"
            };
            return Err(malformed(path, expected, format!("{} bytes{reason}", data.len())));
        }

        let start = bytes.len() - data.len();
        let mut tensors = BTreeMap::new();
        for name in header.offset_keys() {
            if let Some(info) = header.info(&name) {
                // In range, because the last tensor ends at `data.len()` and none overlaps.
                let range = start + info.data_offsets.0..start + info.data_offsets.1;
                tensors.insert(name, Stored { dtype: info.dtype, shape: info.shape.clone(), range });
            }
        }
        let metadata =
            header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Self { path: path.to_path_buf(), bytes, tensors, metadata })
    }

    /// The values of one of this shard's tensors.
    pub(super) fn read_f32(&self, name: &str, stored: &Stored) -> Result<Vec<f32>> {
        use ::safetensors::Dtype;

        let bytes = &self.bytes[stored.range.clone()];
        let values = match stored.dtype {
            Dtype::F32 => Ok(from_f32(bytes)),
            Dtype::F16 => Ok(from_f16(bytes)),
            Dtype::BF16 => Ok(from_bf16(bytes)),
            other => Err(malformed(
                &self.path,
                format!("tensor `{name}` as F32, F16 or BF16"),
                format!("dtype {other}"),
            )),
        };
        self.bytes.release(stored.range.clone());
        values
    }
}

/// Accepts a JSON object whose keys differ. The crate keeps the last of two tensors with one name.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = UniqueKeys;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if let Some(key) = seen.replace(key) {
                        return Err(A::Error::custom(format!("`{key}` twice")));
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(UniqueKeys)
            }
        }

        deserializer.deserialize_map(Keys)
    }
}
