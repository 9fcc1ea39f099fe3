use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use llmkit_core::{
    ApproximateTokens, Capabilities, ChatRequest, ChatResponse, Error, FinishReason, LanguageModel, Message,
    Result, TokenCounter, Usage,
};

type Answer = dyn Fn(&ChatRequest) -> Result<ChatResponse> + Send + Sync;

/// A model that says what it was told to, and remembers what it was asked.
///
/// ```
/// use llmkit_core::{ChatRequest, LanguageModel, Message};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["first", "second"]);
/// let answer = model.chat(ChatRequest::new(vec![Message::user("Hello")])).await?;
/// assert_eq!(answer.message.content, "first");
/// assert_eq!(model.requests()[0].messages[0].content, "Hello");
///
/// // Or with an answer to whatever comes:
/// let echo = ScriptedModel::from_fn(|request| request.messages[0].content.to_uppercase());
/// let answer = echo.chat(ChatRequest::new(vec![Message::user("Hello")])).await?;
/// assert_eq!(answer.message.content, "HELLO");
/// # Ok::<(), llmkit_core::Error>(())
/// # }).unwrap();
/// ```
pub struct ScriptedModel {
    name: String,
    capabilities: Capabilities,
    answer: Box<Answer>,
    requests: Mutex<Vec<ChatRequest>>,
}

impl ScriptedModel {
    /// A model that gives these answers in order, one a call. A call beyond them is an error.
    pub fn new<T: Into<String>>(answers: impl IntoIterator<Item = T>) -> Self {
        Self::with_results(answers.into_iter().map(|text| Ok(said(text.into()))))
    }

    /// A model that gives these responses in order, one a call: for tool calls and other ends than [`FinishReason::Stop`].
    pub fn with_responses(responses: impl IntoIterator<Item = ChatResponse>) -> Self {
        Self::with_results(responses.into_iter().map(Ok))
    }

    /// A model that answers or fails in this order, one a call.
    pub fn with_results(results: impl IntoIterator<Item = Result<ChatResponse>>) -> Self {
        let results = Mutex::new(results.into_iter().collect::<VecDeque<_>>());
        Self::from_response_fn(move |request| {
            let next = results.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            next.unwrap_or_else(|| {
                let asked = request.messages.last().map_or("", |message| message.content.as_str());
                let reason = format!("its script is over, and it was asked: {asked}");
                Err(Error::Model { model: "scripted".to_owned(), reason })
            })
        })
    }

    /// A model whose answer `answer` makes from the request.
    pub fn from_fn<T: Into<String>>(answer: impl Fn(&ChatRequest) -> T + Send + Sync + 'static) -> Self {
        Self::from_response_fn(move |request| Ok(said(answer(request).into())))
    }

    /// A model whose response `answer` makes from the request.
    pub fn from_response_fn(
        answer: impl Fn(&ChatRequest) -> Result<ChatResponse> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: "scripted".to_owned(),
            capabilities: Capabilities::new(),
            answer: Box::new(answer),
            requests: Mutex::default(),
        }
    }

    /// The model with this name; `scripted` without.
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The model with these capabilities; none without.
    pub fn with_capabilities(self, capabilities: Capabilities) -> Self {
        Self { capabilities, ..self }
    }

    /// What it was asked so far, in order.
    pub fn requests(&self) -> Vec<ChatRequest> {
        self.asked().clone()
    }

    fn asked(&self) -> MutexGuard<'_, Vec<ChatRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer of this text.
fn said(text: String) -> ChatResponse {
    ChatResponse {
        message: Message::assistant(text),
        finish_reason: FinishReason::Stop,
        usage: Usage::default(),
    }
}

#[async_trait]
impl LanguageModel for ScriptedModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        let mut response = (self.answer)(&request);
        if let Ok(ChatResponse { message, usage, .. }) = &mut response
            && *usage == Usage::default()
        {
            for message in &request.messages {
                usage.prompt_tokens += ApproximateTokens.count(&message.content)?;
            }
            usage.completion_tokens = ApproximateTokens.count(&message.content)?;
        }
        self.asked().push(request);
        response
    }
}

impl fmt::Debug for ScriptedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedModel")
            .field("name", &self.name)
            .field("requests", &self.asked().len())
            .finish_non_exhaustive()
    }
}
