use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use super::architecture::Architecture;
use super::dequant::dequantize;
use super::dtype::GgmlType;
use super::encode::{self, ALIGNMENT, Entry};
use super::hyperparameters::{self, Hyperparameters};
use super::names::{gguf_name, required};
use super::permute::interleave;
use super::{Metadata, MetadataValue, quantize};
use crate::checkpoint::{TensorSource, malformed, write_atomic};
use crate::{Error, Result};

/// How the weights of linear layers and embeddings are stored. Norms, biases and the routers of experts are always `f32`, as llama.cpp has
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(non_camel_case_types)]
pub enum GgufType {
    /// Single precision, 32 bits a weight.
    F32,
    /// Half precision, 16 bits a weight.
    F16,
    /// Blocks of 32 bytes with a scale, 8.5 bits a weight.
    Q8_0,
    /// Blocks of 32 half-bytes with a scale, 4.5 bits a weight. The output layer (the embedding where the two are tied) is stored as `Q8_0`,
    /// because it suffers most; llama.cpp's own tool takes Q6_K for it.
    Q4_0,
}

impl GgufType {
    /// The number in the format.
    fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
        }
    }

    /// What `general.file_type` says of a file that is mostly of this type.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
        }
    }

    /// What is read back of `values` that are stored as this type in rows of `columns`. Rows that are no whole number of blocks are stored as
    /// F16.
    ///
    /// # Panics
    /// If `values` are no whole number of rows.
    pub fn round(self, values: &[f32], columns: usize) -> Vec<f32> {
        assert!(
            columns > 0 && values.len().is_multiple_of(columns),
            "{} values in rows of {columns}",
            values.len()
        );
        let kind = if columns.is_multiple_of(self.layout().block_values) { self } else { Self::F16 };
        dequantize(kind.layout(), &kind.encode(values)).expect("every type that is written can be read")
    }

    fn layout(self) -> GgmlType {
        GgmlType::from_id(self.id()).expect("every type that is written can be read")
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => quantize::f32(values),
            Self::F16 => quantize::f16(values),
            Self::Q8_0 => quantize::q8_0(values),
            Self::Q4_0 => quantize::q4_0(values),
        }
    }
}

/// What goes into a GGUF file beside the model itself.
#[derive(Debug, Clone)]
pub struct GgufOptions {
    weights: GgufType,
    name: Option<String>,
    extra: Metadata,
}

impl GgufOptions {
    /// Weights of this type, and neither a name nor a tokenizer.
    pub fn new(weights: GgufType) -> Self {
        Self { weights, name: None, extra: Metadata::new() }
    }

    /// What the model is called (`general.name`).
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The tokenizer, as [`Tokenizer::to_gguf`](crate::Tokenizer::to_gguf) gives it. Without one the file says so, and llama.cpp
    /// computes with it but takes and gives token ids alone.
    pub fn with_tokenizer(mut self, tokenizer: Metadata) -> Self {
        self.extra.extend(tokenizer);
        self
    }

    /// The source of the chat template (Jinja).
    pub fn with_chat_template(mut self, source: impl Into<String>) -> Self {
        self.extra.insert("tokenizer.chat_template".into(), MetadataValue::String(source.into()));
        self
    }

    /// Further key-value pairs; they win over those that the model's configuration gives.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.extra.extend(metadata);
        self
    }
}

/// Writes a model as a GGUF file (version 3), which llama.cpp and [`GgufFile`](super::GgufFile) read, replacing the file at `path` all at
/// once or not at all.
///
/// `config` is the model's Hugging Face configuration (Llama, Mistral, Mixtral, Qwen 2, Qwen 3, Qwen 3 MoE, Gemma 3 text or Phi-3), `weights`
/// its tensors under their Hugging Face names. Names, the order of query and key rows, Gemma's norms and the stacking of experts become
/// llama.cpp's; quantised blocks equal those of llama.cpp's Python library byte for byte. Where rows are no whole number of blocks (32
/// values), the tensor is stored as F16 with a warning (`tracing`). One tensor is in memory at a time.
///
/// ```no_run
/// use llmkit_core::Tokenizer;
/// use llmkit_core::checkpoint::Checkpoint;
/// use llmkit_core::checkpoint::gguf::{GgufOptions, GgufType, save_gguf};
///
/// # fn main() -> llmkit_core::Result<()> {
/// let folder = "SmolLM2-135M-Instruct";
/// let checkpoint = Checkpoint::open(folder)?;
/// let tokenizer = Tokenizer::from_folder(folder)?;
/// let options = GgufOptions::new(GgufType::Q8_0).with_tokenizer(tokenizer.to_gguf()?);
/// save_gguf("SmolLM2-135M-Instruct.Q8_0.gguf", checkpoint.config(), checkpoint.source(), &options)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::UnsupportedArchitecture`] and [`Error::Config`] for what llama.cpp's file cannot say, [`Error::Tensors`] when tensors are missing
/// or have no place, [`Error::Checkpoint`] for weights that the type cannot hold, [`Error::Io`] when writing fails.
pub fn save_gguf(
    path: impl AsRef<Path>,
    config: &Value,
    weights: &dyn TensorSource,
    options: &GgufOptions,
) -> Result<()> {
    let model = hyperparameters::read(weights.path(), config)?;
    let tensors = plan(&model, weights, options.weights)?;
    let metadata = metadata(&model, &tensors, options, weights.path())?;
    let entries: Vec<Entry<'_>> = tensors
        .iter()
        .map(|tensor| Entry {
            name: &tensor.name,
            shape: &tensor.shape,
            type_id: tensor.kind.id(),
            bytes: tensor.bytes,
        })
        .collect();
    let head = encode::head(&metadata, &entries);
    write_atomic(path, |file| {
        file.write_all(&head)?;
        tensors.iter().try_for_each(|tensor| {
            tensor.write(file, weights)?;
            file.write_all(&[0; ALIGNMENT][..tensor.bytes.next_multiple_of(ALIGNMENT) - tensor.bytes])
        })
    })
}

/// A tensor of the file.
struct Planned {
    name: String,
    shape: Vec<usize>,
    kind: GgufType,
    bytes: usize,
    from: From,
    change: Change,
}

/// Where a tensor's values come from.
enum From {
    /// One tensor, or one an expert, whose values follow one another.
    Tensors(Vec<String>),
    Values(Vec<f32>),
}

/// What llama.cpp does to a tensor.
#[derive(Clone, Copy)]
enum Change {
    None,
    Interleave { heads: usize },
    Offset,
}

impl Planned {
    /// Writes the values. Errors of reading travel inside the I/O error, from which `write_atomic` takes them out again.
    fn write(&self, file: &mut impl Write, weights: &dyn TensorSource) -> io::Result<()> {
        match &self.from {
            From::Values(values) => file.write_all(&self.kind.encode(values)),
            From::Tensors(names) => names.iter().try_for_each(|name| {
                let values = self.changed(weights.read_f32(name).map_err(io::Error::other)?);
                self.check(weights.path(), name, &values).map_err(io::Error::other)?;
                file.write_all(&self.kind.encode(&values))
            }),
        }
    }

    fn changed(&self, mut values: Vec<f32>) -> Vec<f32> {
        match self.change {
            Change::None => {}
            Change::Interleave { heads } => {
                values = interleave(&values, heads, self.shape.iter().skip(1).product());
            }
            Change::Offset => values.iter_mut().for_each(|value| *value += 1.0),
        }
        values
    }

    /// Refuses what the type would turn into something else.
    fn check(&self, path: &Path, name: &str, values: &[f32]) -> Result<()> {
        // The scales of blocks are at most the largest value, and half precision too.
        let limit = if self.kind == GgufType::F32 { f32::MAX } else { half::f16::MAX.to_f32() };
        match values.iter().find(|value| !value.is_finite() || value.abs() > limit) {
            None => Ok(()),
            Some(value) => {
                let expected =
                    format!("`{name}` with finite values of at most {limit} to store as {:?}", self.kind);
                Err(malformed(path, expected, format!("{value}; store it as F32 if it is finite")))
            }
        }
    }
}

/// Names, shapes and types of all tensors of the file, in the order of the layers.
fn plan(model: &Hyperparameters, weights: &dyn TensorSource, kind: GgufType) -> Result<Vec<Planned>> {
    let mut parts: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
    let mut unexpected = Vec::new();
    for name in weights.names() {
        // Old checkpoints carry RoPE's frequencies, which follow from the configuration; a tied output layer is the embedding once more.
        if name.ends_with(".rotary_emb.inv_freq") || model.tied && name == "lm_head.weight" {
            continue;
        }
        let place = gguf_name(model.architecture, &name);
        match place.filter(|(ours, expert)| {
            layer_of(ours).is_none_or(|layer| layer < model.layers)
                && expert.is_none_or(|expert| expert < model.experts as usize)
        }) {
            Some((ours, expert)) => {
                parts.entry(ours).or_default().insert(expert.unwrap_or(0), name);
            }
            None => unexpected.push(name),
        }
    }
    let missing = missing(model, &parts);
    if !missing.is_empty() || !unexpected.is_empty() {
        let path = weights.path().to_path_buf();
        return Err(Error::Tensors { path, missing, unexpected, mismatched: Vec::new() });
    }

    let mut tensors = Vec::with_capacity(parts.len());
    for (name, parts) in parts {
        tensors.push(planned(model, weights, kind, name, parts.into_values().collect())?);
    }
    for (name, values) in &model.rope_factors {
        tensors.push(Planned {
            name: (*name).to_owned(),
            shape: vec![values.len()],
            kind: GgufType::F32,
            bytes: 4 * values.len(),
            from: From::Values(values.clone()),
            change: Change::None,
        });
    }
    // The embedding, the layers by number, the rest.
    tensors.sort_by_key(|tensor| match layer_of(&tensor.name) {
        Some(layer) => (1, layer),
        None => (if tensor.name.starts_with("token_embd") { 0 } else { 2 }, 0),
    });
    Ok(tensors)
}

fn planned(
    model: &Hyperparameters,
    weights: &dyn TensorSource,
    kind: GgufType,
    name: String,
    parts: Vec<String>,
) -> Result<Planned> {
    let mut shape = None;
    for part in &parts {
        let found = weights.info(part).map(|info| info.shape).unwrap_or_default();
        match &shape {
            None => shape = Some(found),
            Some(shape) if *shape == found => {}
            Some(shape) => {
                let expected = format!("`{part}` of shape {shape:?} as the other experts");
                return Err(malformed(weights.path(), expected, format!("{found:?}")));
            }
        }
    }
    let mut shape = shape.unwrap_or_default();
    let place = name.rsplit('.').nth(1).unwrap_or_default();
    let change = match place {
        "attn_q" | "attn_k" if model.architecture.interleaves() => {
            let heads = if place == "attn_q" { model.heads } else { model.key_heads } as usize;
            let rows = shape.first().copied().unwrap_or(1);
            if heads == 0 || !rows.is_multiple_of(2 * heads) {
                let expected = format!("`{}` with rows for {heads} heads of even size", parts[0]);
                return Err(malformed(weights.path(), expected, format!("shape {shape:?}")));
            }
            Change::Interleave { heads }
        }
        _ if model.architecture.offsets_norms() && name.ends_with("_norm.weight") => Change::Offset,
        _ => Change::None,
    };
    let row = shape.last().copied().unwrap_or(1);
    let is_output = place == "output" || model.tied && place == "token_embd";
    let kind = match kind {
        _ if shape.len() < 2 || place == "ffn_gate_inp" => GgufType::F32,
        GgufType::Q4_0 if is_output => GgufType::Q8_0,
        kind => kind,
    };
    let kind = if row.is_multiple_of(kind.layout().block_values) {
        kind
    } else {
        tracing::warn!(tensor = name, row, "rows are no whole number of blocks: stored as F16");
        GgufType::F16
    };
    if model.experts > 0 && place.ends_with("_exps") {
        shape.insert(0, parts.len());
    }
    let values = shape.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let bytes = values
        .and_then(|values| (values / kind.layout().block_values).checked_mul(kind.layout().block_bytes));
    let Some(bytes) = bytes else {
        return Err(malformed(
            weights.path(),
            "tensors that fit into memory",
            format!("`{name}` of shape {shape:?}"),
        ));
    };
    Ok(Planned { name, shape, kind, bytes, from: From::Tensors(parts), change })
}

/// The weights that the architecture has and `parts` lack, by their Hugging Face names. At most one layer's worth of them is listed, since
/// the number of layers may be made up.
fn missing(model: &Hyperparameters, parts: &BTreeMap<String, BTreeMap<usize, String>>) -> Vec<String> {
    let outside = ["token_embd.weight", "output_norm.weight", "output.weight"];
    let mut missing: Vec<String> = outside
        .into_iter()
        .filter(|name| !parts.contains_key(*name))
        .filter(|name| !model.tied || *name != "output.weight")
        .map(str::to_owned)
        .collect();
    for layer in 0..model.layers {
        if !missing.is_empty() {
            break;
        }
        for (ours, theirs, per_expert) in required(model.architecture) {
            let found = parts.get(&format!("blk.{layer}.{ours}.weight")).map_or(0, BTreeMap::len);
            let needed = if per_expert { model.experts as usize } else { 1 };
            if found < needed {
                missing.push(format!("model.layers.{layer}.{theirs}.weight"));
            }
        }
    }
    missing
}

fn layer_of(name: &str) -> Option<u32> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

fn metadata(
    model: &Hyperparameters,
    tensors: &[Planned],
    options: &GgufOptions,
    path: &Path,
) -> Result<Metadata> {
    let mut metadata = model.metadata.clone();
    let text = |text: &str| MetadataValue::String(text.to_owned());
    metadata.insert("general.architecture".into(), text(model.architecture.gguf_name()));
    metadata.insert("general.type".into(), text("model"));
    metadata.insert("general.quantization_version".into(), MetadataValue::U32(2));
    metadata.insert("general.file_type".into(), MetadataValue::U32(options.weights.file_type()));
    if let Some(name) = &options.name {
        metadata.insert("general.name".into(), text(name));
    }
    metadata.extend(options.extra.clone());
    metadata.entry("tokenizer.ggml.model".into()).or_insert_with(|| text("none"));
    if let Some((key, _)) = metadata.iter().find(|(_, value)| !encode::is_uniform(value)) {
        return Err(Error::Config {
            path: path.to_path_buf(),
            field: key.clone(),
            expected: "an array of values of one type".into(),
            found: "several types".into(),
        });
    }
    pad_vocabulary(&mut metadata, tensors, model.architecture, path)?;
    Ok(metadata)
}

/// llama.cpp needs as many tokens as the embedding has rows; models have more rows for speed. The others become unused tokens.
fn pad_vocabulary(
    metadata: &mut Metadata,
    tensors: &[Planned],
    architecture: Architecture,
    path: &Path,
) -> Result<()> {
    let embedding = tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let rows = embedding.and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
    metadata.insert(format!("{}.vocab_size", architecture.gguf_name()), MetadataValue::U32(rows as u32));
    let Some(MetadataValue::Array(tokens)) = metadata.get("tokenizer.ggml.tokens") else { return Ok(()) };
    let count = tokens.len();
    if count > rows {
        return Err(Error::Config {
            path: path.to_path_buf(),
            field: "tokenizer.ggml.tokens".into(),
            expected: format!("at most {rows} tokens, the rows of the embedding"),
            found: count.to_string(),
        });
    }
    const UNUSED: i32 = 5;
    for (key, filler) in [
        ("tokenizer.ggml.token_type", MetadataValue::I32(UNUSED)),
        ("tokenizer.ggml.scores", MetadataValue::F32(-10000.0)),
    ] {
        if let Some(MetadataValue::Array(values)) = metadata.get_mut(key) {
            values.resize(rows, filler);
        }
    }
    if let Some(MetadataValue::Array(tokens)) = metadata.get_mut("tokenizer.ggml.tokens") {
        tokens.extend((count..rows).map(|id| MetadataValue::String(format!("[PAD{id}]"))));
    }
    Ok(())
}
