use std::collections::BTreeMap;
use std::env::{self, VarError};
use std::sync::Arc;

use async_trait::async_trait;
use llmkit_core::{
    Capabilities, ChatRequest, ChatResponse, ChatStream, Error, LanguageModel, ResponseFormat, Result,
    ToolChoice,
};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::endpoint::{Call, Endpoint};
use super::failure::Failure;
use super::request::chat_body;
use super::{Provider, RateLimit, Retries, Timeouts, runtime, stream};

/// Where OpenAI's own models are.
pub(super) const OPENAI: &str = "https://api.openai.com/v1";

/// A model behind an HTTP interface like OpenAI's.
///
/// ```no_run
/// use llmkit_core::{ChatRequest, LanguageModel, Message};
/// use llmkit_prompt::remote::{OpenAi, Provider};
///
/// # pollster::block_on(async {
/// let model = OpenAi::new("http://localhost:8080/v1", "SmolLM2-135M-Instruct")?.with_provider(Provider::LlamaCpp);
/// let answer = model.chat(ChatRequest::new(vec![Message::user("What is a tureen?")])).await?;
/// println!("{}", answer.message.content);
/// # Ok::<(), llmkit_core::Error>(())
/// # }).unwrap();
/// ```
///
/// Clones share connections and the rate limit. Dropping the future or the stream of an answer closes its connection, by which servers stop working on it.
#[derive(Debug, Clone)]
pub struct OpenAi {
    endpoint: Arc<Endpoint>,
    model: String,
    provider: Provider,
    capabilities: Capabilities,
    adapters: BTreeMap<String, String>,
    extra: Map<String, Value>,
}

impl OpenAi {
    /// The model called `model` at the server whose interface begins at `base_url`, usually with `/v1` at its end. The
    /// [provider](Provider::guess) and with it the model's capabilities are guessed from the address. No key is sent.
    ///
    /// A query in the address (Azure's `?api-version=..`) is sent with every request.
    ///
    /// # Errors
    /// [`Error::Remote`] when the address is not one of `http` or `https`, or holds a password.
    ///
    /// ```
    /// use llmkit_prompt::remote::OpenAi;
    ///
    /// let error = OpenAi::new("localhost:8080/v1", "m").unwrap_err();
    /// assert!(error.to_string().contains("expected `http://` or `https://`"));
    /// ```
    pub fn new(base_url: &str, model: impl Into<String>) -> Result<Self> {
        let model = model.into();
        let endpoint = Endpoint::new(base_url).map_err(|failure| failure.about(&model))?;
        let provider = Provider::guess(base_url);
        Ok(Self {
            endpoint: Arc::new(endpoint),
            model,
            provider,
            capabilities: provider.capabilities(),
            adapters: BTreeMap::new(),
            extra: Map::new(),
        })
    }

    /// The model called `model` at the server that the environment names: `OPENAI_BASE_URL` (default: OpenAI's own), with the key in `OPENAI_API_KEY` if
    /// there is one.
    ///
    /// # Errors
    /// As [`new`](Self::new); also when a variable is not Unicode, or when there is no key for OpenAI's own server.
    pub fn from_env(model: impl Into<String>) -> Result<Self> {
        let model = model.into();
        let (base_url, key) = environment().map_err(|failure| failure.about(&model))?;
        let remote = Self::new(&base_url, model)?;
        Ok(match key {
            Some(key) => remote.with_api_key(&key),
            None => remote,
        })
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

    /// Sets whose server it is, and with it the capabilities.
    pub fn with_provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self.capabilities = provider.capabilities();
        self
    }

    /// Sets what the model can do, where it differs from what the provider says.
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
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

    /// Sets the most that an answer may weigh, in bytes. Default 64 MiB.
    pub fn with_max_body_bytes(mut self, bytes: usize) -> Self {
        self.endpoint_mut().set_max_body_bytes(bytes);
        self
    }

    /// Sends this field with every request, whatever the request says of it: what a provider has and others don't.
    ///
    /// ```
    /// use llmkit_prompt::remote::OpenAi;
    ///
    /// # fn main() -> llmkit_core::Result<()> {
    /// let model = OpenAi::new("https://api.openai.com/v1", "gpt-5")?.with_extra("reasoning_effort", "low");
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(name.into(), value.into());
        self
    }

    /// Asks the server for `model` where a request names `adapter`. At [vLLM](Provider::Vllm), an adapter that is not named here is asked for by its own name;
    /// elsewhere it is an error.
    pub fn with_adapter(mut self, adapter: impl Into<String>, model: impl Into<String>) -> Self {
        self.adapters.insert(adapter.into(), model.into());
        self
    }

    fn endpoint_mut(&mut self) -> &mut Endpoint {
        Arc::make_mut(&mut self.endpoint)
    }

    /// The call that `request` is, or why this model cannot be asked it.
    fn call(&self, request: &ChatRequest, stream: bool) -> Result<Call> {
        self.check(request)?;
        let model = match &request.adapter {
            None => &self.model,
            Some(adapter) => match self.adapters.get(adapter) {
                Some(model) => model,
                None if self.provider == Provider::Vllm => adapter,
                None => {
                    return Err(Error::Generation {
                        setting: "adapter",
                        expected: "an adapter that the server has as a model, named by `with_adapter`",
                        found: adapter.clone(),
                    });
                }
            },
        };
        let body = chat_body(self.provider, model, request, &self.extra, stream);
        Ok(self.endpoint.call("chat/completions", &body, stream, request.max_tokens.unwrap_or(0)))
    }

    /// What a server would ignore or misunderstand is an error here.
    fn check(&self, request: &ChatRequest) -> Result<()> {
        let refuse = |setting, expected, found: &str| {
            Err(Error::Generation { setting, expected, found: found.to_owned() })
        };
        if !request.tools.is_empty() && !self.capabilities.tools {
            return refuse(
                "tools",
                "none: the provider is not known to understand them; `with_provider` or `with_capabilities` says that it does",
                &format!("{} tools", request.tools.len()),
            );
        }
        if !request.tools.is_empty()
            && self.provider == Provider::Ollama
            && request.tool_choice != ToolChoice::Auto
        {
            return refuse("tool_choice", "`Auto`: Ollama ignores it", &format!("{:?}", request.tool_choice));
        }
        match &request.response_format {
            ResponseFormat::Text => Ok(()),
            ResponseFormat::Json if self.provider.writes_json() || self.capabilities.json_schema => Ok(()),
            ResponseFormat::JsonSchema { .. } if self.capabilities.json_schema => Ok(()),
            ResponseFormat::Json => refuse(
                "response_format",
                "`Text`: the provider is not known to write JSON; `with_provider` or `with_capabilities` says that it does",
                "Json",
            ),
            ResponseFormat::JsonSchema { .. } => refuse(
                "response_format",
                "`Text` or `Json`: the provider is not known to follow schemas; `with_provider` or `with_capabilities` says that it does",
                "JsonSchema",
            ),
        }
    }
}

#[async_trait]
impl LanguageModel for OpenAi {
    fn name(&self) -> &str {
        &self.model
    }

    /// `openai`, whoever serves it: the conventions name the format by it.
    fn provider(&self) -> &str {
        "openai"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// # Errors
    /// [`Error::Remote`] when the server can't be reached, refuses, fails, is too slow or answers nonsense, each with what to do.
    /// [`Error::Generation`] when the request asks for what the server would ignore.
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        let call = self.call(&request, false)?;
        let endpoint = self.endpoint.clone();
        let work = async move { endpoint.in_time(answer(&endpoint, &call)).await };
        runtime::run(work).await.map_err(|failure| failure.about(&self.model))
    }

    /// # Errors
    /// As [`chat`](Self::chat). A connection that breaks before any part of the answer has been handed over is tried again; one that breaks later is an error
    /// that says how much had come.
    async fn chat_stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let call = self.call(&request, true)?;
        stream::start(self.endpoint.clone(), call, self.model.clone()).await
    }
}

/// One answer as a whole.
async fn answer(endpoint: &Endpoint, call: &Call) -> Result<ChatResponse, Failure> {
    let mut attempts = endpoint.attempts();
    loop {
        match attempt(endpoint, call).await {
            Ok(response) => return Ok(response),
            Err(failure) => attempts.after(failure).await?,
        }
    }
}

async fn attempt(endpoint: &Endpoint, call: &Call) -> Result<ChatResponse, Failure> {
    let opened = endpoint.open(call).await?;
    let value = endpoint.json(opened.response).await?;
    let mut answer = Answer::default();
    answer.add_whole(&value, endpoint.secrets())?;
    let response = answer.finish()?;
    opened.pass.took(response.usage);
    Ok(response)
}

/// The address and the key that the environment names.
pub(super) fn environment() -> Result<(String, Option<String>), Failure> {
    let read = |name: &str| match env::var(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure::new(format!("the variable {name} is not Unicode"))),
    };
    let (base_url, key) = (read("OPENAI_BASE_URL")?, read("OPENAI_API_KEY")?);
    match (base_url, key) {
        (None, None) => Err(Failure::new(
            "neither OPENAI_API_KEY nor OPENAI_BASE_URL is set: set the key, or the address of a server that needs none",
        )),
        (base_url, key) => Ok((base_url.unwrap_or_else(|| OPENAI.to_owned()), key)),
    }
}
