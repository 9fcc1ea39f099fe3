//! The head of a GGUF file as bytes, the inverse of `reader`.

use super::{Metadata, MetadataValue};

/// What the data of each tensor are aligned to, in bytes.
pub(super) const ALIGNMENT: usize = 32;
const VERSION: u32 = 3;

/// An entry of the tensor table.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    /// In torch's order.
    pub(super) shape: &'a [usize],
    /// The type's number in the format.
    pub(super) type_id: u32,
    /// Bytes of data.
    pub(super) bytes: usize,
}

/// Magic, version, metadata and tensor table, filled up to where the data begin. `general.*` comes first, as readers of a file's start expect.
pub(super) fn head(metadata: &Metadata, tensors: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(b"GGUF");
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    let general = |key: &str| key.starts_with("general.");
    let (first, rest): (Vec<_>, Vec<_>) = metadata.iter().partition(|(key, _)| general(key));
    for (key, value) in first.into_iter().chain(rest) {
        text(&mut out, key);
        out.extend(type_of(value).to_le_bytes());
        self::value(&mut out, value);
    }
    let mut offset = 0u64;
    for entry in tensors {
        text(&mut out, entry.name);
        out.extend((entry.shape.len() as u32).to_le_bytes());
        for dim in entry.shape.iter().rev() {
            out.extend((*dim as u64).to_le_bytes());
        }
        out.extend(entry.type_id.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += entry.bytes.next_multiple_of(ALIGNMENT) as u64;
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn type_of(value: &MetadataValue) -> u32 {
    match value {
        MetadataValue::U8(_) => 0,
        MetadataValue::I8(_) => 1,
        MetadataValue::U16(_) => 2,
        MetadataValue::I16(_) => 3,
        MetadataValue::U32(_) => 4,
        MetadataValue::I32(_) => 5,
        MetadataValue::F32(_) => 6,
        MetadataValue::Bool(_) => 7,
        MetadataValue::String(_) => 8,
        MetadataValue::Array(_) => 9,
        MetadataValue::U64(_) => 10,
        MetadataValue::I64(_) => 11,
        MetadataValue::F64(_) => 12,
    }
}

fn value(out: &mut Vec<u8>, value: &MetadataValue) {
    match value {
        MetadataValue::U8(value) => out.push(*value),
        MetadataValue::I8(value) => out.extend(value.to_le_bytes()),
        MetadataValue::U16(value) => out.extend(value.to_le_bytes()),
        MetadataValue::I16(value) => out.extend(value.to_le_bytes()),
        MetadataValue::U32(value) => out.extend(value.to_le_bytes()),
        MetadataValue::I32(value) => out.extend(value.to_le_bytes()),
        MetadataValue::F32(value) => out.extend(value.to_le_bytes()),
        MetadataValue::Bool(value) => out.push(u8::from(*value)),
        MetadataValue::String(value) => text(out, value),
        MetadataValue::U64(value) => out.extend(value.to_le_bytes()),
        MetadataValue::I64(value) => out.extend(value.to_le_bytes()),
        MetadataValue::F64(value) => out.extend(value.to_le_bytes()),
        MetadataValue::Array(values) => {
            // An empty array needs a type, too; any will do.
            out.extend(values.first().map_or(4, type_of).to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| self::value(out, value));
        }
    }
}

/// Whether every array holds values of one type, as the format demands.
pub(super) fn is_uniform(value: &MetadataValue) -> bool {
    match value {
        MetadataValue::Array(values) => {
            values.windows(2).all(|pair| type_of(&pair[0]) == type_of(&pair[1]))
                && values.iter().all(is_uniform)
        }
        _ => true,
    }
}
