use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use llmkit_core::{Embedder, Result, Usage};
use serde_json::{Map, Value, json};

use super::answer::reported;
use super::endpoint::{Call, Endpoint};
use super::failure::{Failure, QUOTE};
use super::openai::environment;
use super::secrets::Secrets;
use super::{Provider, RateLimit, Retries, Timeouts, runtime};

/// The most texts in a request.
const BATCH: usize = 256;

/// The most bytes of text in a request, unless one text alone is longer.
const BATCH_BYTES: usize = 256 << 10;

/// Requests at the same time.
const CONCURRENT: usize = 4;

/// A model behind an HTTP interface like OpenAI's that turns texts into vectors.
///
/// Texts go out in batches of 256, four batches at a time, and come back in order. Vectors are as the server makes them: their length is checked, and that
/// they hold numbers, and nothing is normalised.
///
/// ```no_run
/// use llmkit_core::Embedder;
/// use llmkit_prompt::remote::OpenAiEmbedder;
///
/// # pollster::block_on(async {
/// let embedder = OpenAiEmbedder::new("http://localhost:8080/v1", "all-MiniLM-L6-v2", 384)?;
/// let vectors = embedder.embed(&["A tureen is a deep dish.".to_owned()]).await?;
/// assert_eq!(vectors[0].len(), 384);
/// # Ok::<(), llmkit_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct OpenAiEmbedder {
    endpoint: Arc<Endpoint>,
    model: String,
    id: String,
    provider: Provider,
    dimensions: usize,
    batch: usize,
    concurrent: usize,
    extra: Map<String, Value>,
}

impl OpenAiEmbedder {
    /// The model called `model`, whose vectors have this many dimensions, at the server whose interface begins at `base_url`.
    ///
    /// # Errors
    /// As [`OpenAi::new`](super::OpenAi::new).
    pub fn new(base_url: &str, model: impl Into<String>, dimensions: usize) -> Result<Self> {
        let model = model.into();
        let endpoint = Endpoint::new(base_url).map_err(|failure| failure.about(&model))?;
        Ok(Self {
            endpoint: Arc::new(endpoint),
            id: model.clone(),
            model,
            provider: Provider::guess(base_url),
            dimensions,
            batch: BATCH,
            concurrent: CONCURRENT,
            extra: Map::new(),
        })
    }

    /// As [`OpenAi::from_env`](super::OpenAi::from_env).
    ///
    /// # Errors
    /// As there.
    pub fn from_env(model: impl Into<String>, dimensions: usize) -> Result<Self> {
        let model = model.into();
        let (base_url, key) = environment().map_err(|failure| failure.about(&model))?;
        let embedder = Self::new(&base_url, model, dimensions)?;
        Ok(match key {
            Some(key) => embedder.with_api_key(&key),
            None => embedder,
        })
    }

    /// Asks the server for vectors of the [dimensions](Embedder::dimensions) given to [`new`](Self::new), for models that can shorten theirs. They are then
    /// part of the [identity](Embedder::id).
    pub fn with_shortened_vectors(mut self) -> Self {
        let dimensions = self.dimensions;
        self.id = format!("{}:{dimensions}", self.model);
        self.with_extra("dimensions", dimensions)
    }

    /// Sends this key with every request, as `Authorization: Bearer ..`.
    pub fn with_api_key(mut self, key: &str) -> Self {
        self.endpoint_mut().set_key(key);
        self
    }

    /// Sends this header with every request, in place of the client's own header of that name. Its value is treated as a secret.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.endpoint_mut().add_header(name.into(), value.into());
        self
    }

    /// Sets whose server it is.
    pub fn with_provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// Sets how long a request may take.
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.endpoint_mut().set_timeouts(timeouts);
        self
    }

    /// Sets when a failed request is made again.
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.endpoint_mut().set_retries(retries);
        self
    }

    /// Sets how much is asked of the server. Clones made from here on share the limit.
    pub fn with_rate_limit(mut self, limit: RateLimit) -> Self {
        self.endpoint_mut().set_limit(limit);
        self
    }

    /// Sends requests through this proxy, such as `http://proxy:3128`. The proxy variables of the environment are not read.
    pub fn with_proxy(mut self, url: impl Into<String>) -> Self {
        self.endpoint_mut().set_proxy(url.into());
        self
    }

    /// Sets the most texts in a request, at least 1. Default 256.
    pub fn with_batch(mut self, texts: usize) -> Self {
        self.batch = texts.max(1);
        self
    }

    /// Sets how many requests are made at the same time, at least 1. Default 4.
    pub fn with_concurrent(mut self, requests: usize) -> Self {
        self.concurrent = requests.max(1);
        self
    }

    /// Sends this field with every request.
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(name.into(), value.into());
        self
    }

    fn endpoint_mut(&mut self) -> &mut Endpoint {
        Arc::make_mut(&mut self.endpoint)
    }

    async fn embed_batch(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut body = Map::new();
        body.insert("model".to_owned(), self.model.as_str().into());
        body.insert("input".to_owned(), json!(texts));
        let encoding = if self.provider.encodes_vectors() { "base64" } else { "float" };
        body.insert("encoding_format".to_owned(), encoding.into());
        body.extend(self.extra.clone());
        let call = self.endpoint.call("embeddings", &body.into(), false, 0);
        let (endpoint, count, dimensions) = (self.endpoint.clone(), texts.len(), self.dimensions);
        let work = async move { endpoint.in_time(vectors(&endpoint, &call, count, dimensions)).await };
        runtime::run(work).await.map_err(|failure| failure.about(&self.model))
    }
}

#[async_trait]
impl Embedder for OpenAiEmbedder {
    fn id(&self) -> &str {
        &self.id
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// # Errors
    /// [`Error::Remote`](llmkit_core::Error::Remote) as for [`OpenAi`](super::OpenAi), or when the vectors are not what was asked for: their number, their
    /// length, a value that is not a finite number.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        // The futures are collected first: a stream that makes them from borrowed batches is not `Send` enough for the compiler.
        let work: Vec<_> =
            batches(texts, self.batch).into_iter().map(|batch| self.embed_batch(batch)).collect();
        let parts: Vec<Vec<Vec<f32>>> = stream::iter(work).buffered(self.concurrent).try_collect().await?;
        Ok(parts.concat())
    }
}

/// Runs of texts of at most `most` texts and [`BATCH_BYTES`].
fn batches(texts: &[String], most: usize) -> Vec<&[String]> {
    let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, text) in texts.iter().enumerate() {
        if index > start && (index - start == most || bytes + text.len() > BATCH_BYTES) {
            batches.push(&texts[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += text.len();
    }
    if start < texts.len() {
        batches.push(&texts[start..]);
    }
    batches
}

async fn vectors(
    endpoint: &Endpoint,
    call: &Call,
    count: usize,
    dimensions: usize,
) -> Result<Vec<Vec<f32>>, Failure> {
    let mut attempts = endpoint.attempts();
    loop {
        let attempt = async {
            let opened = endpoint.open(call).await?;
            let answer = endpoint.json(opened.response).await?;
            let tokens = answer.pointer("/usage/prompt_tokens").and_then(Value::as_u64).unwrap_or(0);
            let prompt_tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
            opened.pass.took(Usage { prompt_tokens, ..Usage::default() });
            read_vectors(&answer, count, dimensions, endpoint.secrets())
        };
        match attempt.await {
            Ok(vectors) => return Ok(vectors),
            Err(failure) => attempts.after(failure).await?,
        }
    }
}

/// The vectors of an answer in the order of their texts.
pub(super) fn read_vectors(
    answer: &Value,
    count: usize,
    dimensions: usize,
    secrets: &Secrets,
) -> Result<Vec<Vec<f32>>, Failure> {
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        return Err(reported(error, secrets));
    }
    let Some(data) = answer.get("data").and_then(Value::as_array) else {
        return Err(Failure::new(format!(
            "the answer has no `data`: does the server make embeddings? It says: {}",
            secrets.quote(&answer.to_string(), QUOTE)
        )));
    };
    if data.len() != count {
        return Err(Failure::new(format!(
            "expected a vector for each of {count} texts, found {}",
            data.len()
        )));
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    for (position, item) in data.iter().enumerate() {
        let index = match item.get("index").and_then(Value::as_u64) {
            Some(index) => usize::try_from(index).unwrap_or(usize::MAX),
            None => position,
        };
        let embedding = item.get("embedding");
        if embedding.and_then(|rows| rows.get(0)).is_some_and(Value::is_array) {
            return Err(Failure::new(format!(
                "the embedding of text {index} is a vector for each token: let the server pool them (llama.cpp: `--pooling mean`), \
                 or serve a model that is made for embeddings"
            )));
        }
        let vector = embedding.and_then(read_vector).ok_or_else(|| {
            Failure::new(format!(
                "the embedding of text {index} is neither a list of numbers nor floats in base64"
            ))
        })?;
        if vector.len() != dimensions {
            return Err(Failure::new(format!(
                "expected vectors of {dimensions} dimensions, found {}: give the model's own number",
                vector.len()
            )));
        }
        if let Some(value) = vector.iter().find(|value| !value.is_finite()) {
            return Err(Failure::new(format!(
                "the embedding of text {index} holds {value}, expected finite numbers"
            )));
        }
        match vectors.get_mut(index) {
            Some(place @ None) => *place = Some(vector),
            _ => {
                return Err(Failure::new(format!(
                    "expected one embedding for each text, found another for text {index}"
                )));
            }
        }
    }
    Ok(vectors.into_iter().flatten().collect())
}

fn read_vector(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::Array(numbers) => {
            numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
        }
        Value::String(text) => {
            let bytes = decode_base64(text)?;
            let (floats, []) = bytes.as_chunks::<4>() else { return None };
            Some(floats.iter().map(|float| f32::from_le_bytes(*float)).collect())
        }
        _ => None,
    }
}

/// The bytes of a text in the standard alphabet of base64, padded or not.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_text_once_and_no_more_than_allowed() {
        let texts: Vec<String> = [1, 1, 1, BATCH_BYTES, BATCH_BYTES + 1, 1, 1].map(|n| "x".repeat(n)).into();
        let sizes: Vec<usize> = batches(&texts, 2).into_iter().map(<[String]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1, 2]);
        assert!(batches(&[], 2).is_empty());
    }

    #[test]
    fn vectors_come_in_any_order_and_either_encoding() {
        let answer = json!({"data": [
            {"index": 1, "embedding": [0.5, -2]},
            {"index": 0, "embedding": "AACAPwAAAMA="},
        ]});
        let read = |answer: &Value, count| read_vectors(answer, count, 2, &Secrets::default());
        assert_eq!(read(&answer, 2).unwrap(), [[1.0, -2.0], [0.5, -2.0]]);
        for (answer, words) in [
            (
                json!({"data": [{"index": 0, "embedding": [1, 2]}, {"index": 0, "embedding": [1, 2]}]}),
                "another for text 0",
            ),
            (
                json!({"data": [{"index": 0, "embedding": [1, 2]}, {"index": 9, "embedding": [1, 2]}]}),
                "another for text 9",
            ),
            (json!({"data": [{"embedding": [1, 2]}]}), "each of 2 texts, found 1"),
            (
                json!({"data": [{"embedding": [1, 2, 3]}, {"embedding": [1, 2, 3]}]}),
                "of 2 dimensions, found 3",
            ),
            (json!({"data": [{"embedding": [1, null]}, {"embedding": [1, 2]}]}), "neither a list"),
            (json!({"data": [{"embedding": "AAAAfwAAgH8="}, {"embedding": [1, 2]}]}), "holds inf"),
            (json!({"data": [{"embedding": "A*"}, {"embedding": [1, 2]}]}), "neither a list"),
            (
                json!({"data": [{"embedding": [[1, 2], [3, 4]]}, {"embedding": [[1, 2]]}]}),
                "a vector for each token",
            ),
            (json!({"error": {"message": "no embeddings"}}), "no embeddings"),
            (json!([]), "no `data`"),
        ] {
            let failure = read(&answer, 2).unwrap_err();
            assert!(failure.reason.contains(words), "{answer}: {}", failure.reason);
        }
    }
}
