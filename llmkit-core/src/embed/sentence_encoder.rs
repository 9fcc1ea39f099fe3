use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use burn::tensor::Device;

use super::batch::{Batch, by_length, check, padding};
use super::folder::{Json, max_length, module_folder, transformer_settings};
use super::pooling::Pooling;
use super::step::Step;
use super::worker::Worker;
use crate::checkpoint::Checkpoint;
use crate::models::{Encoder, load_encoder, locate};
use crate::nn::Layer;
use crate::tokenizer::Encoded;
use crate::{Adapter, Embedder, Error, NoAdapter, Result, Tokenizer};

/// Texts side by side in one pass of the model.
const BATCH_SIZE: usize = 32;

/// Turns texts into vectors as a model of sentence-transformers does: an encoder, a pooling of its tokens' vectors, and what follows
/// (Reimers and Gurevych 2019, <https://arxiv.org/abs/1908.10084>).
///
/// Cloning is cheap: clones share the model. See [the module](super) for an example.
#[derive(Clone)]
pub struct SentenceEncoder {
    id: String,
    encoder: Arc<dyn Encoder>,
    adapter: Arc<dyn Adapter>,
    tokenizer: Tokenizer,
    pooling: Pooling,
    steps: Vec<Step>,
    max_seq_length: usize,
    dimensions: usize,
    prompts: BTreeMap<String, String>,
    default_prompt: Option<String>,
    batch_size: usize,
    worker: Worker,
}

impl std::fmt::Debug for SentenceEncoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SentenceEncoder")
            .field("id", &self.id)
            .field("dimensions", &self.dimensions)
            .field("max_seq_length", &self.max_seq_length)
            .field("pooling", &self.pooling)
            .field("steps", &self.steps.len())
            .field("prompts", &self.prompts)
            .finish_non_exhaustive()
    }
}

impl SentenceEncoder {
    /// Loads a folder that sentence-transformers saved onto `device`: `modules.json` and what it names. With the feature `hub`, the folder may
    /// also be the name of a repository, such as `sentence-transformers/all-MiniLM-L6-v2` (see [`locate`]). The modules known are
    /// `Transformer`, `Pooling`, `Dense`, `Normalize` and `Dropout`.
    ///
    /// # Errors
    /// [`Error::MissingFile`] without `modules.json`; [`Error::Config`] naming the module or setting that is unknown or impossible; and what
    /// [`load_encoder`] and [`Tokenizer::from_folder`] report.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let name = folder.as_ref();
        let folder = &locate(name)?;
        let remedy = "the folder is no model of sentence-transformers; for a plain encoder choose a pooling, with SentenceEncoder::new";
        let modules = Json::read(folder.join("modules.json"), remedy)?;
        let mut listed = read_modules(&modules)?.into_iter();

        let body = match listed.next() {
            Some(("Transformer", path)) => module_folder(folder, &modules, path)?,
            other => {
                let found = other.map_or("nothing", |(kind, _)| kind);
                return Err(modules.wrong("type", "a Transformer first", found));
            }
        };
        let settings = transformer_settings(&body)?;
        let checkpoint = Checkpoint::open(&body)?;
        let encoder = load_encoder(&checkpoint, device)?;
        let mut tokenizer = Tokenizer::from_folder(&body)?;
        let mut lower_case = false;
        if let Some(settings) = &settings {
            settings.text("transformer_task")?.map_or(Ok(()), |task| match task {
                "feature-extraction" => Ok(()),
                other => Err(settings.wrong("transformer_task", "\"feature-extraction\"", other)),
            })?;
            lower_case = settings.flag_or("do_lower_case", false)?;
        }
        if lower_case {
            tokenizer = tokenizer.with_lowercase()?;
        }
        let longest = max_length(settings.as_ref(), &body, encoder.max_positions())?;

        let pooling = match listed.next() {
            Some(("Pooling", path)) => {
                let at = module_folder(folder, &modules, path)?.join("config.json");
                Pooling::read(&Json::read(at, "fetch the model's folder completely")?, encoder.hidden_size())?
            }
            other => {
                let found = other.map_or("nothing", |(kind, _)| kind);
                return Err(modules.wrong("type", "a Pooling after the Transformer", found));
            }
        };
        let mut this = Self::new(encoder, tokenizer, pooling)?.with_max_seq_length(longest)?;
        for (kind, path) in listed {
            let step = match kind {
                "Normalize" => Step::Normalize,
                "Dense" => {
                    Step::read_dense(&module_folder(folder, &modules, path)?, this.dimensions, device)?
                }
                // It does nothing outside training.
                "Dropout" => continue,
                other => {
                    return Err(modules.wrong(
                        "type",
                        "Dense, Normalize or Dropout after the Pooling",
                        other,
                    ));
                }
            };
            this.push(step);
        }
        if let Some(config) = Json::find(folder.join("config_sentence_transformers.json"))? {
            this.read_config(&config)?;
        }
        let name = name.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        this.id = format!("{name}@{:016x}", this.fingerprint(lower_case));
        Ok(this)
    }

    /// A sentence encoder of parts: vectors of `pooling`, without a prompt, of texts up to the encoder's longest.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the encoder is too short for the tokenizer's special tokens.
    pub fn new(encoder: Arc<dyn Encoder>, tokenizer: Tokenizer, pooling: Pooling) -> Result<Self> {
        let max_seq_length = encoder.max_positions();
        let mut this = Self {
            id: String::new(),
            dimensions: pooling.modes().len() * encoder.hidden_size(),
            tokenizer: tokenizer.with_max_length(max_seq_length)?,
            encoder,
            adapter: Arc::new(NoAdapter),
            pooling,
            steps: Vec::new(),
            max_seq_length,
            prompts: BTreeMap::new(),
            default_prompt: None,
            batch_size: BATCH_SIZE,
            worker: Worker::default(),
        };
        this.id = format!("encoder@{:016x}", this.fingerprint(false));
        Ok(this)
    }

    /// Sets how many tokens of a text are read, special ones included; the rest is cut off with a warning.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if there is no room beside the special tokens, [`Error::Model`] if the encoder cannot read that many.
    pub fn with_max_seq_length(mut self, max_seq_length: usize) -> Result<Self> {
        let most = self.encoder.max_positions();
        if max_seq_length > most {
            let reason =
                format!("a maximal length of {max_seq_length} is beyond the {most} positions of the encoder");
            return Err(self.failed(reason));
        }
        self.tokenizer = self.tokenizer.with_max_length(max_seq_length)?;
        self.max_seq_length = max_seq_length;
        Ok(self)
    }

    /// Sets how many texts share a pass of the model. Default 32.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size.max(1);
        self
    }

    /// Sets the adapter through which the model runs. It is another model then, so the caller names it by `id`.
    pub fn with_adapter(mut self, adapter: Arc<dyn Adapter>, id: impl Into<String>) -> Self {
        self.adapter = adapter;
        self.id = id.into();
        self
    }

    /// Sets what stands before every text that [`encode`](Self::encode) and [`Embedder::embed`] are given.
    pub fn with_default_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.default_prompt = Some(prompt.into());
        self
    }

    /// The same model for queries: its prompt of that name is the default prompt. Both sides of a search may share an index.
    pub fn for_queries(&self) -> Self {
        self.clone().with_default_prompt(self.query_prompt())
    }

    /// The same model for documents: its prompt of that name is the default prompt.
    pub fn for_documents(&self) -> Self {
        self.clone().with_default_prompt(self.document_prompt())
    }

    /// The length of a vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// How many tokens of a text are read, special ones included.
    pub fn max_seq_length(&self) -> usize {
        self.max_seq_length
    }

    /// The prompts that the model was trained with, by name.
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.prompts
    }

    /// The encoder under the pooling.
    pub fn encoder(&self) -> &Arc<dyn Encoder> {
        &self.encoder
    }

    /// The tokenizer, which cuts texts to [`max_seq_length`](Self::max_seq_length).
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// One vector for each text, in order, with the default prompt if there is one. Texts of like lengths run together.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a text cannot be tokenized, [`Error::Model`] if it has no tokens or the tokenizer doesn't fit the model.
    pub fn encode(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>> {
        self.encode_with_prompt(texts, self.default_prompt.as_deref().unwrap_or_default())
    }

    /// Vectors of queries, for models that tell queries and documents apart by a prompt: the one called `query`, if there is one.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_queries(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>> {
        self.encode_with_prompt(texts, self.query_prompt())
    }

    /// Vectors of documents, for models that tell queries and documents apart by a prompt: the one called `document`, if there is one. (As
    /// in sentence-transformers, a prompt called otherwise, such as `passage`, must be given to
    /// [`encode_with_prompt`](Self::encode_with_prompt).)
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_documents(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>> {
        self.encode_with_prompt(texts, self.document_prompt())
    }

    /// Vectors of texts with `prompt` before each.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with_prompt(&self, texts: &[impl AsRef<str>], prompt: &str) -> Result<Vec<Vec<f32>>> {
        let skipped =
            if self.pooling.include_prompt() || prompt.is_empty() { 0 } else { self.length(prompt)? };
        let encoded = if prompt.is_empty() {
            self.tokenizer.encode_texts(texts)?
        } else {
            let prompted: Vec<_> = texts.iter().map(|text| format!("{prompt}{}", text.as_ref())).collect();
            self.tokenizer.encode_texts(&prompted)?
        };
        check(&encoded, self.encoder.as_ref(), &self.id)?;
        if encoded.iter().any(|text| text.ids.len() <= skipped) {
            return Err(
                self.failed("a text has no tokens besides the prompt, which is not pooled".to_owned())
            );
        }
        let mut vectors = vec![Vec::new(); encoded.len()];
        for batch in by_length(&encoded, self.batch_size) {
            let together: Vec<_> = batch.iter().map(|index| &encoded[*index]).collect();
            for (index, vector) in batch.into_iter().zip(self.run(&together, skipped)?) {
                vectors[index] = vector;
            }
        }
        Ok(vectors)
    }

    fn run(&self, texts: &[&Encoded], skipped: usize) -> Result<Vec<Vec<f32>>> {
        let adapter = self.adapter.as_ref();
        let Batch { ids, lengths, types } =
            Batch::new(texts, self.encoder.as_ref(), padding(&self.tokenizer, self.encoder.as_ref()));
        let [_, given] = ids.dims();
        let hidden = self.encoder.forward(ids, &lengths, types, adapter);
        // What an adapter puts in front is pooled like the text.
        let [_, seq, _] = hidden.dims();
        let lengths: Vec<_> = lengths.iter().map(|length| length + seq - given).collect();
        let pooled = self.pooling.forward(hidden, &lengths, skipped);
        let output = self.steps.iter().fold(pooled, |x, step| step.forward(x, adapter));
        let values = output
            .try_into_vec_as::<f32>()
            .map_err(|error| self.failed(format!("reading the vectors from the device failed: {error}")))?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(self.failed("a vector is not finite; check the checkpoint".to_owned()));
        }
        Ok(values.chunks_exact(self.dimensions).map(<[f32]>::to_vec).collect())
    }

    /// How many tokens a prompt takes in front of a text: without the special token that ends it.
    fn length(&self, prompt: &str) -> Result<usize> {
        let encoded = self.tokenizer.encode_texts(&[prompt])?;
        let ids = encoded.first().map_or(&[][..], |encoded| &encoded.ids);
        let ended = ids.last().is_some_and(|last| self.tokenizer.is_special(*last));
        Ok(ids.len() - usize::from(ended))
    }

    fn push(&mut self, step: Step) {
        self.dimensions = step.width(self.dimensions);
        self.steps.push(step);
    }

    fn query_prompt(&self) -> &str {
        self.prompts.get("query").map_or("", String::as_str)
    }

    fn document_prompt(&self) -> &str {
        self.prompts.get("document").map_or("", String::as_str)
    }

    fn read_config(&mut self, config: &Json) -> Result<()> {
        match config.text("model_type")? {
            None | Some("SentenceTransformer") => {}
            Some(other) => return Err(config.wrong("model_type", "\"SentenceTransformer\"", other)),
        }
        if let Some(kept) = config.size("truncate_dim")? {
            self.push(Step::Truncate(kept));
        }
        if let Some(prompts) = config.get("prompts") {
            let texts = prompts.as_object().map(|prompts| {
                let text = |value: &serde_json::Value| match value {
                    serde_json::Value::Null => Some(String::new()),
                    value => value.as_str().map(str::to_owned),
                };
                prompts.iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect()
            });
            self.prompts =
                texts.flatten().ok_or_else(|| config.wrong("prompts", "texts by name", prompts))?;
        }
        if let Some(name) = config.text("default_prompt_name")? {
            let prompt = self.prompts.get(name).cloned();
            let expected = "the name of one of the prompts";
            self.default_prompt =
                Some(prompt.ok_or_else(|| config.wrong("default_prompt_name", expected, name))?);
        }
        Ok(())
    }

    /// Differs between models whose vectors differ: made of every layer's first row and of the settings (FNV-1a, 64 bits).
    fn fingerprint(&self, lower_case: bool) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        let mut add_layer = |layer: Layer<'_>| {
            add(layer.path().as_bytes());
            let first_row = match layer {
                Layer::Linear(linear) => linear.weight.clone().slice([0..1]).into_data_as::<f32>(),
                Layer::Embedding(table) => table.weight.clone().slice([0..1]).into_data_as::<f32>(),
                Layer::Norm(norm) => norm.weight.clone().into_data_as::<f32>(),
            };
            first_row
                .as_slice::<f32>()
                .unwrap_or_default()
                .iter()
                .for_each(|value| add(&value.to_le_bytes()));
        };
        self.encoder.visit(&mut add_layer);
        for step in &self.steps {
            if let Step::Dense { linear, .. } = step {
                add_layer(Layer::Linear(linear));
            }
        }
        let settings = (&self.pooling, self.max_seq_length, lower_case, self.steps.len(), self.dimensions);
        add(format!("{settings:?}").as_bytes());
        hash
    }

    fn failed(&self, reason: String) -> Error {
        Error::Model { model: self.id.clone(), reason }
    }
}

/// The kinds and folders of the modules, in order.
fn read_modules(modules: &Json) -> Result<Vec<(&str, &str)>> {
    let listed = modules.value.as_array();
    let listed =
        listed.ok_or_else(|| modules.wrong("(the whole file)", "a list of modules", "another JSON value"))?;
    let read = |module: &serde_json::Value| {
        let (kind, path) = (module["type"].as_str().unwrap_or_default(), module["path"].as_str());
        let known = kind.strip_prefix("sentence_transformers.").and_then(|kind| kind.rsplit('.').next());
        match (known, path) {
            (Some(_), Some(_)) => Ok(()),
            _ => Err(modules.wrong("type", "a module of sentence_transformers with a path", module)),
        }
    };
    listed.iter().try_for_each(read)?;
    let named = listed
        .iter()
        .filter_map(|module| Some((module["type"].as_str()?.rsplit('.').next()?, module["path"].as_str()?)));
    Ok(named.collect())
}

#[async_trait]
impl Embedder for SentenceEncoder {
    /// The folder's name and a fingerprint of the model.
    fn id(&self) -> &str {
        &self.id
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// As [`encode`](SentenceEncoder::encode), on a thread of its own; any executor may wait for it.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let (this, texts) = (self.clone(), texts.to_vec());
        self.worker.run(&self.id, move || this.encode(&texts)).await
    }
}
