use std::path::Path;

use async_trait::async_trait;
use burn::tensor::Device;
use serde_json::Value;

use super::Function;
use super::batch::{Batch, by_length, check, padding};
use super::folder::{Json, max_length, transformer_settings};
use super::worker::Worker;
use crate::checkpoint::Checkpoint;
use crate::models::{SequenceClassifier, load_sequence_classifier, locate};
use crate::tokenizer::Encoded;
use crate::{Error, NoAdapter, Reranker, Result, Tokenizer};

/// Pairs side by side in one pass of the model.
const BATCH_SIZE: usize = 32;

/// Scores how well two texts belong together by reading them as one, as a `CrossEncoder` of sentence-transformers with one label does.
///
/// ```no_run
/// use llmkit_core::Device;
/// use llmkit_core::embed::CrossEncoder;
///
/// # fn main() -> llmkit_core::Result<()> {
/// let model = CrossEncoder::load("ms-marco-MiniLM-L6-v2", &Device::Auto.resolve()?)?;
/// let scores = model.score(&[("Where is the library?", "The library is across the street.")])?;
/// assert_eq!(scores.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CrossEncoder {
    name: String,
    classifier: SequenceClassifier,
    tokenizer: Tokenizer,
    /// Whether the model is told which tokens are of the second text.
    typed: bool,
    function: Function,
    batch_size: usize,
    worker: Worker,
}

impl CrossEncoder {
    /// Loads a folder that sentence-transformers or transformers saved onto `device`: a sequence classifier with one label. With the feature
    /// `hub`, the folder may also be the name of a repository (see [`locate`]). The function at the end is the one that the folder names, a sigmoid where it names none.
    ///
    /// # Errors
    /// [`Error::Config`] for more labels than one, an unknown function or module, and what
    /// [`load_sequence_classifier`] and [`Tokenizer::from_folder`] report.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let name = folder.as_ref();
        let folder = &locate(name)?;
        check_modules(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        let classifier = load_sequence_classifier(&checkpoint, device)?;
        let config = Json { path: folder.join("config.json"), value: checkpoint.config().clone() };
        if classifier.labels().len() != 1 {
            let expected = "one label, whose score ranks documents";
            return Err(config.wrong("num_labels", expected, classifier.labels().len()));
        }
        let settings = transformer_settings(folder)?;
        let mut tokenizer = Tokenizer::from_folder(folder)?;
        if let Some(settings) = &settings
            && settings.flag_or("do_lower_case", false)?
        {
            tokenizer = tokenizer.with_lowercase()?;
        }
        let longest = max_length(settings.as_ref(), folder, classifier.encoder().max_positions())?;
        let name = name.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Self {
            name,
            classifier,
            tokenizer: tokenizer.with_max_length(longest)?,
            typed: typed(folder)?,
            function: function(folder, &config)?,
            batch_size: BATCH_SIZE,
            worker: Worker::default(),
        })
    }

    /// Sets how many pairs share a pass of the model. Default 32.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size.max(1);
        self
    }

    /// Sets the function at the end; [`Function::Identity`] gives the bare scores.
    pub fn with_function(mut self, function: Function) -> Self {
        self.function = function;
        self
    }

    /// The function at the end.
    pub fn function(&self) -> Function {
        self.function
    }

    /// The classifier.
    pub fn classifier(&self) -> &SequenceClassifier {
        &self.classifier
    }

    /// A score for each pair, in order. Pairs of like lengths run together; of those that are too long, the longer text is cut.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a text cannot be tokenized, [`Error::Model`] if the tokenizer doesn't fit the model.
    pub fn score(&self, pairs: &[(impl AsRef<str>, impl AsRef<str>)]) -> Result<Vec<f32>> {
        let encoded = self.tokenizer.encode_pairs(pairs)?;
        check(&encoded, self.classifier.encoder().as_ref(), &self.name)?;
        let mut scores = vec![0.0; encoded.len()];
        for batch in by_length(&encoded, self.batch_size) {
            let together: Vec<_> = batch.iter().map(|index| &encoded[*index]).collect();
            for (index, score) in batch.into_iter().zip(self.run(&together)?) {
                scores[index] = score;
            }
        }
        Ok(scores)
    }

    fn run(&self, pairs: &[&Encoded]) -> Result<Vec<f32>> {
        let encoder = self.classifier.encoder().as_ref();
        let Batch { ids, lengths, types } = Batch::new(pairs, encoder, padding(&self.tokenizer, encoder));
        let types = types.filter(|_| self.typed);
        let scores = self.function.apply(self.classifier.forward(ids, &lengths, types, &NoAdapter));
        let failed = |reason: String| Error::Model { model: self.name.clone(), reason };
        let scores = scores
            .try_into_vec_as::<f32>()
            .map_err(|error| failed(format!("reading the scores from the device failed: {error}")))?;
        if scores.iter().any(|score| !score.is_finite()) {
            return Err(failed("a score is not finite; check the checkpoint".to_owned()));
        }
        Ok(scores)
    }
}

/// The newest folders list their modules; only the transformer alone is a classifier as it is read here.
fn check_modules(folder: &Path) -> Result<()> {
    let Some(modules) = Json::find(folder.join("modules.json"))? else { return Ok(()) };
    let alone = modules.value.as_array().is_some_and(|listed| match listed.as_slice() {
        [only] => {
            let kind = only["type"].as_str().and_then(|kind| kind.strip_prefix("sentence_transformers."));
            kind.is_some_and(|kind| kind.ends_with(".Transformer")) && only["path"] == ""
        }
        _ => false,
    });
    if alone { Ok(()) } else { Err(modules.wrong("type", "a Transformer alone", &modules.value)) }
}

/// Whether transformers gives the model token types: as `model_input_names` say; where they are not said, all tokenizers do, except the
/// generic one of transformers 5.
fn typed(folder: &Path) -> Result<bool> {
    let Some(config) = Json::find(folder.join("tokenizer_config.json"))? else { return Ok(true) };
    match config.get("model_input_names") {
        Some(names) => match names.as_array() {
            Some(names) => Ok(names.iter().any(|name| name == "token_type_ids")),
            None => Err(config.wrong("model_input_names", "a list of names", names)),
        },
        None => Ok(config.text("tokenizer_class")? != Some("TokenizersBackend")),
    }
}

/// The function that the folder names, in the places where versions of sentence-transformers have put it.
fn function(folder: &Path, config: &Json) -> Result<Function> {
    let named = |json: &Json, field: &str, value: Option<&Value>| match value.filter(|value| !value.is_null())
    {
        None => Ok(None),
        Some(value) => {
            let found = value.as_str().and_then(Function::named);
            found.map(Some).ok_or_else(|| Function::unknown(json, field, &value.to_string()))
        }
    };
    if let Some(settings) = Json::find(folder.join("config_sentence_transformers.json"))?
        && let Some(function) = named(&settings, "activation_fn", settings.get("activation_fn"))?
    {
        return Ok(function);
    }
    let nested = config.get("sentence_transformers").and_then(|nested| nested.get("activation_fn"));
    if let Some(function) = named(config, "sentence_transformers.activation_fn", nested)? {
        return Ok(function);
    }
    let older = "sbert_ce_default_activation_function";
    Ok(named(config, older, config.get(older))?.unwrap_or(Function::Sigmoid))
}

#[async_trait]
impl Reranker for CrossEncoder {
    /// As [`score`](CrossEncoder::score), on a thread of its own; any executor may wait for it.
    async fn rerank(&self, query: &str, documents: &[String]) -> Result<Vec<f32>> {
        let this = self.clone();
        let pairs: Vec<_> = documents.iter().map(|document| (query.to_owned(), document.clone())).collect();
        self.worker.run(&self.name, move || this.score(&pairs)).await
    }
}
