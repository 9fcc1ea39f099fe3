use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::atomic::{Staged, remove_if_there};
use super::index::Index;
use super::safetensors::{INDEX_FILE, SINGLE_FILE};
use super::shard::MAX_HEADER_BYTES;
use super::{TensorData, malformed};
use crate::{Error, Result};

/// The header's key for free-form strings; no tensor can have this name.
const METADATA_KEY: &str = "__metadata__";

/// Writes a safetensors file, replacing the file at `path` all at once or not at all (see [`write_atomic`](super::write_atomic)).
///
/// `metadata` defaults to `{"format": "pt"}`, without which transformers refuses to load a file; with `Some`, that entry is added unless it
/// is there. Tensors lie in the order of their names, the wider types first so that all are aligned; the same input gives the same bytes.
/// One tensor is converted at a time.
///
/// # Errors
/// [`Error::Io`] when writing fails, [`Error::Checkpoint`] when two tensors have one name or a name is reserved, and whatever a
/// [deferred](TensorData::deferred) tensor fails with.
pub fn save_safetensors<'a>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (String, TensorData<'a>)>,
    metadata: Option<BTreeMap<String, String>>,
) -> Result<()> {
    let path = path.as_ref();
    let tensors = sorted(path, tensors)?;
    stage(path, tensors, &with_format(metadata))?.commit()
}

/// Writes a folder's weights as transformers does: `model.safetensors` if they take at most `max_shard_bytes`, else
/// `model-00001-of-0000n.safetensors` and so on with their index. Creates the folder. A tensor larger than the limit gets a shard of its
/// own. `metadata` goes into every file, as in [`save_safetensors`].
///
/// Every file is complete on the disk before the first one is renamed, so an error such as a full disk leaves an older checkpoint as it was.
/// A process killed during the renames leaves shards without an index, which [`Safetensors::open`](super::Safetensors::open)
/// refuses, rather than new shards mixed with old ones. Files of an older save that the new one does not overwrite (a former index and the
/// shards it names, or a former single file) are removed at the end.
///
/// # Errors
/// As [`save_safetensors`].
pub fn save_sharded<'a>(
    folder: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (String, TensorData<'a>)>,
    metadata: Option<BTreeMap<String, String>>,
    max_shard_bytes: usize,
) -> Result<()> {
    let folder = folder.as_ref();
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let metadata = with_format(metadata);
    let index_path = folder.join(INDEX_FILE);
    let tensors = sorted(&index_path, tensors)?;
    let total: usize = tensors.iter().map(|entry| entry.bytes).sum();
    let stale = shards_of_former_save(folder);

    if total <= max_shard_bytes {
        stage(&folder.join(SINGLE_FILE), tensors, &metadata)?.commit()?;
        remove_if_there(&index_path)?;
        return stale.iter().try_for_each(|file| remove_if_there(&folder.join(file)));
    }

    let shards = split(tensors, max_shard_bytes);
    let count = shards.len();
    let mut weight_map = BTreeMap::new();
    let mut staged = Vec::with_capacity(count + 1);
    for (at, shard) in shards.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", at + 1);
        weight_map.extend(shard.iter().map(|entry| (entry.name.clone(), file.clone())));
        staged.push(stage(&folder.join(file), shard, &metadata)?);
    }
    let files: BTreeSet<String> = weight_map.values().cloned().collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    let (index, ()) = Staged::write(&index_path, |file| Ok(serde_json::to_writer_pretty(file, &index)?))?;
    staged.push(index);

    remove_if_there(&index_path)?;
    staged.into_iter().try_for_each(Staged::commit)?;
    remove_if_there(&folder.join(SINGLE_FILE))?;
    stale.difference(&files).try_for_each(|file| remove_if_there(&folder.join(file)))
}

struct Entry<'a> {
    name: String,
    tensor: TensorData<'a>,
    bytes: usize,
}

/// Sorts by name and refuses what no header can hold.
fn sorted<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, TensorData<'a>)>,
) -> Result<Vec<Entry<'a>>> {
    let mut entries = Vec::new();
    let mut total = 0usize;
    for (name, tensor) in tensors {
        if name == METADATA_KEY {
            return Err(malformed(
                path,
                format!("tensor names other than `{METADATA_KEY}`"),
                "a tensor of that name",
            ));
        }
        let size = tensor.bytes().and_then(|bytes| Some((bytes, total.checked_add(bytes)?)));
        let Some((bytes, sum)) = size else {
            let found = format!("`{name}` of shape {:?}", tensor.shape());
            return Err(malformed(path, "tensors that fit into memory", found));
        };
        total = sum;
        entries.push(Entry { name, tensor, bytes });
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(malformed(path, "one tensor a name", format!("two named `{}`", pair[0].name)));
    }
    Ok(entries)
}

/// Fills shards in the order of names, each up to the limit.
fn split(entries: Vec<Entry<'_>>, max_shard_bytes: usize) -> Vec<Vec<Entry<'_>>> {
    let mut shards: Vec<Vec<Entry<'_>>> = Vec::new();
    let mut filled = 0usize;
    for entry in entries {
        let fits = filled.saturating_add(entry.bytes) <= max_shard_bytes;
        match shards.last_mut() {
            Some(shard) if fits => {
                filled += entry.bytes;
                shard.push(entry);
            }
            _ => {
                filled = entry.bytes;
                shards.push(vec![entry]);
            }
        }
    }
    shards
}

/// Writes one safetensors file beside `path`.
fn stage(path: &Path, mut entries: Vec<Entry<'_>>, metadata: &BTreeMap<String, String>) -> Result<Staged> {
    // A stable sort: names stay in order within a type.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.tensor.dtype().bytes()));
    let mut header = Map::new();
    header.insert(METADATA_KEY.to_owned(), json!(metadata));
    let mut start = 0;
    for Entry { name, tensor, bytes } in &entries {
        let end = start + bytes;
        let info =
            json!({ "dtype": tensor.dtype().name(), "shape": tensor.shape(), "data_offsets": [start, end] });
        header.insert(name.clone(), info);
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The data begin at a multiple of eight, so that readers can use mapped values in place.
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > MAX_HEADER_BYTES {
        let expected = format!("names and metadata of at most {MAX_HEADER_BYTES} bytes");
        return Err(malformed(path, expected, format!("{} bytes", header.len())));
    }

    let (staged, ()) = Staged::write(path, |file| -> io::Result<()> {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        entries.into_iter().try_for_each(|entry| entry.tensor.write(&entry.name, file))
    })?;
    Ok(staged)
}

fn with_format(metadata: Option<BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut metadata = metadata.unwrap_or_default();
    metadata.entry("format".into()).or_insert_with(|| "pt".into());
    metadata
}

/// The shards that the folder's present index names. An unreadable index names none, and files that are no shards are left alone
/// whatever it names: nothing else is ours to remove.
fn shards_of_former_save(folder: &Path) -> BTreeSet<String> {
    let Ok(index) = Index::read(&folder.join(INDEX_FILE)) else { return BTreeSet::new() };
    index
        .weight_map
        .into_values()
        .filter(|file| file != SINGLE_FILE && file.ends_with(".safetensors"))
        .collect()
}
