use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use super::super::malformed;
use super::dtype::GgmlType;
use super::{Metadata, MetadataValue};
use crate::{Error, Result};

/// The longest head (metadata and tensor table) that is read. The largest vocabularies take about 20 MB; a value takes up to 32 times its
/// bytes in memory, so the limit bounds what a hostile file can make us allocate.
const MAX_HEAD_BYTES: usize = 100_000_000;
/// How deep arrays may lie in arrays. llama.cpp writes none.
const MAX_DEPTH: usize = 4;
/// The most dimensions that a tensor can have in ggml.
const MAX_DIMS: u32 = 4;
const DEFAULT_ALIGNMENT: u32 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// The smallest key-value pair: a key's length, a type, a byte.
const MIN_PAIR_BYTES: usize = 8 + 4 + 1;
/// The smallest entry of the tensor table: a name's length, a number of dimensions, a type, an offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// What stands before the data of a GGUF file, checked against the file's length.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) alignment: usize,
    pub(super) tensors: Vec<Entry>,
}

/// An entry of the tensor table.
#[derive(Debug)]
pub(super) struct Entry {
    /// llama.cpp's name.
    pub(super) name: String,
    /// In torch's order, the reverse of the file's.
    pub(super) shape: Vec<usize>,
    pub(super) dtype: GgmlType,
    /// Where the data lie in the file.
    pub(super) range: Range<usize>,
}

/// Reads the head of a GGUF file whose whole content is `bytes`; `path` is for error messages.
pub(super) fn read_head(path: &Path, bytes: &[u8]) -> Result<Head> {
    let mut cursor =
        Cursor { path, bytes: &bytes[..bytes.len().min(MAX_HEAD_BYTES)], at: 0, whole: bytes.len() };
    if cursor.array::<4>("the magic")? != *b"GGUF" {
        return Err(malformed(path, "the bytes `GGUF` at the start", "other bytes"));
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => {
            return Err(malformed(
                path,
                "a little-endian GGUF file",
                "a big-endian one; convert it for this machine",
            ));
        }
        _ => return Err(malformed(path, "GGUF version 2 or 3", format!("version {version}"))),
    }
    let tensor_count = cursor.count("the number of tensors", MIN_TENSOR_BYTES)?;
    let pair_count = cursor.count("the number of metadata pairs", MIN_PAIR_BYTES)?;

    let mut metadata = Metadata::new();
    for _ in 0..pair_count {
        let key = cursor.string("a metadata key")?;
        let kind = cursor.u32("a metadata type")?;
        let value = cursor.value(kind, 0)?;
        if metadata.contains_key(&key) {
            return Err(malformed(path, "each metadata key once", format!("`{key}` twice")));
        }
        metadata.insert(key, value);
    }
    let alignment = alignment(path, &metadata)?;

    let mut names = HashSet::new();
    let mut infos = Vec::with_capacity(tensor_count);
    for _ in 0..tensor_count {
        let info = cursor.tensor_info()?;
        if !names.insert(info.name.clone()) {
            return Err(malformed(path, "each tensor once", format!("`{}` twice", info.name)));
        }
        infos.push(info);
    }
    let tensors = place(path, infos, cursor.at, alignment, bytes.len())?;
    Ok(Head { version, metadata, alignment, tensors })
}

fn alignment(path: &Path, metadata: &Metadata) -> Result<usize> {
    let value = match metadata.get(ALIGNMENT_KEY) {
        None => Some(DEFAULT_ALIGNMENT),
        Some(value) => value.as_u32().filter(|alignment| alignment.is_power_of_two()),
    };
    value.map(|alignment| alignment as usize).ok_or_else(|| Error::Config {
        path: path.to_path_buf(),
        field: ALIGNMENT_KEY.into(),
        expected: "a power of two".into(),
        found: metadata.get(ALIGNMENT_KEY).map_or_else(String::new, MetadataValue::describe),
    })
}

/// Turns offsets into ranges of the file, all within it and none overlapping.
fn place(path: &Path, infos: Vec<Info>, head: usize, alignment: usize, file: usize) -> Result<Vec<Entry>> {
    let Some(start) = head.checked_next_multiple_of(alignment) else {
        return Err(malformed(path, "data after the head", format!("an alignment of {alignment}")));
    };
    let mut tensors = Vec::with_capacity(infos.len());
    for Info { name, shape, dtype, offset } in infos {
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(dtype.block_values) {
            let expected =
                format!("`{name}` with rows of whole {} blocks ({} values)", dtype.name, dtype.block_values);
            return Err(malformed(path, expected, format!("rows of {row}")));
        }
        if !offset.is_multiple_of(alignment as u64) {
            let expected = format!("`{name}` at a multiple of {alignment}");
            return Err(malformed(path, expected, format!("offset {offset}")));
        }
        let end_of = |begin: usize| {
            let values = shape.iter().try_fold(1usize, |values, dim| values.checked_mul(*dim))?;
            begin.checked_add((values / dtype.block_values).checked_mul(dtype.block_bytes)?)
        };
        let begin = usize::try_from(offset).ok().and_then(|offset| start.checked_add(offset));
        let range = begin.and_then(|begin| Some(begin..end_of(begin)?)).filter(|range| range.end <= file);
        let Some(range) = range else {
            let found = format!(
                "`{name}`: {} of shape {shape:?} at offset {offset} of the data, which start at byte {start}: truncated",
                dtype.name
            );
            return Err(malformed(path, format!("tensors within the file's {file} bytes"), found));
        };
        tensors.push(Entry { name, shape, dtype, range });
    }
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        let found = format!("`{}` and `{}` sharing bytes", pair[0].name, pair[1].name);
        return Err(malformed(path, "tensors that do not overlap", found));
    }
    Ok(tensors)
}

/// An entry of the tensor table, not yet placed in the file.
struct Info {
    name: String,
    shape: Vec<usize>,
    dtype: GgmlType,
    offset: u64,
}

/// Reads the head from front to back; nothing is allocated before its bytes are known to be there.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    /// The length of the whole file, which may exceed the part that a head may take.
    whole: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..length) else {
            return Err(self.too_short(what));
        };
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things that take at least `min_bytes` each, so no more than the rest of the head can hold.
    fn count(&mut self, what: &str, min_bytes: usize) -> Result<usize> {
        let count = self.u64(what)?;
        let room = (self.bytes.len() - self.at) / min_bytes;
        match usize::try_from(count) {
            Ok(count) if count <= room => Ok(count),
            _ => {
                let expected = format!(
                    "for {what} at byte {} at most {room}, what the rest of the head can hold",
                    self.at - 8
                );
                Err(malformed(self.path, expected, format!("{count}{}", self.limit())))
            }
        }
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let length = self.count(&format!("the length of {what}"), 1)?;
        let start = self.at;
        let text = self.take(length, what)?;
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                Err(malformed(self.path, format!("{what} at byte {start} in UTF-8"), error.to_string()))
            }
        }
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<MetadataValue> {
        const WHAT: &str = "a metadata value";
        Ok(match kind {
            0 => MetadataValue::U8(u8::from_le_bytes(self.array(WHAT)?)),
            1 => MetadataValue::I8(i8::from_le_bytes(self.array(WHAT)?)),
            2 => MetadataValue::U16(u16::from_le_bytes(self.array(WHAT)?)),
            3 => MetadataValue::I16(i16::from_le_bytes(self.array(WHAT)?)),
            4 => MetadataValue::U32(self.u32(WHAT)?),
            5 => MetadataValue::I32(i32::from_le_bytes(self.array(WHAT)?)),
            6 => MetadataValue::F32(f32::from_le_bytes(self.array(WHAT)?)),
            7 => match self.array(WHAT)? {
                [0] => MetadataValue::Bool(false),
                [1] => MetadataValue::Bool(true),
                [other] => return Err(malformed(self.path, "a truth value of 0 or 1", other.to_string())),
            },
            8 => MetadataValue::String(self.string(WHAT)?),
            9 => self.nested(depth)?,
            10 => MetadataValue::U64(self.u64(WHAT)?),
            11 => MetadataValue::I64(i64::from_le_bytes(self.array(WHAT)?)),
            12 => MetadataValue::F64(f64::from_le_bytes(self.array(WHAT)?)),
            other => return Err(malformed(self.path, "a metadata type from 0 to 12", other.to_string())),
        })
    }

    fn nested(&mut self, depth: usize) -> Result<MetadataValue> {
        if depth >= MAX_DEPTH {
            return Err(malformed(self.path, format!("arrays at most {MAX_DEPTH} deep"), "a deeper one"));
        }
        let kind = self.u32("an array's type")?;
        let min_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            9 => 4 + 8,
            // Unknown types, too: the first value refuses them.
            _ => 8,
        };
        let count = self.count("the length of an array", min_bytes)?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.value(kind, depth + 1)?);
        }
        Ok(MetadataValue::Array(values))
    }

    fn tensor_info(&mut self) -> Result<Info> {
        let name = self.string("a tensor's name")?;
        let dims = self.u32("a tensor's number of dimensions")?;
        if dims > MAX_DIMS {
            return Err(malformed(
                self.path,
                format!("`{name}` with at most {MAX_DIMS} dimensions"),
                dims.to_string(),
            ));
        }
        let mut shape = Vec::with_capacity(dims as usize);
        for _ in 0..dims {
            let dim = self.u64("a tensor's dimension")?;
            let Ok(dim) = usize::try_from(dim) else {
                return Err(malformed(
                    self.path,
                    format!("`{name}` with dimensions that fit"),
                    dim.to_string(),
                ));
            };
            shape.push(dim);
        }
        shape.reverse();
        let id = self.u32("a tensor's type")?;
        let Some(dtype) = GgmlType::from_id(id) else {
            return Err(malformed(
                self.path,
                format!("`{name}` of a known type"),
                format!("type number {id}"),
            ));
        };
        let offset = self.u64("a tensor's offset")?;
        Ok(Info { name, shape, dtype, offset })
    }

    fn too_short(&self, what: &str) -> Error {
        let found = format!("{} bytes{}", self.whole, self.limit());
        malformed(self.path, format!("{what} at byte {}", self.at), found)
    }

    fn limit(&self) -> String {
        if self.whole > self.bytes.len() {
            format!(": the head is longer than the {MAX_HEAD_BYTES} bytes that are read")
        } else {
            ": truncated".into()
        }
    }
}
