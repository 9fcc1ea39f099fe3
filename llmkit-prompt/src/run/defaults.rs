use async_trait::async_trait;
use llmkit_core::{Capabilities, ChatRequest, ChatResponse, ChatStream, LanguageModel, Result};

/// A model with settings of its own for what a request leaves unset.
///
/// The pieces of this crate set only what their algorithm needs: a temperature to get different samples, a longest answer for a one-word one. The rest is the
/// user's to set, here.
///
/// ```
/// use llmkit_core::{ChatRequest, LanguageModel, Message};
/// use llmkit_prompt::WithDefaults;
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["Hello."]);
/// let defaults = ChatRequest { max_tokens: Some(64), temperature: Some(0.0), ..ChatRequest::default() };
/// let brief = WithDefaults::new(&model, defaults);
/// brief.chat(ChatRequest { max_tokens: Some(8), ..ChatRequest::new(vec![Message::user("Hi")]) }).await?;
/// assert_eq!((model.requests()[0].max_tokens, model.requests()[0].temperature), (Some(8), Some(0.0)));
/// # Ok::<(), llmkit_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct WithDefaults<M> {
    model: M,
    defaults: ChatRequest,
}

impl<M: LanguageModel> WithDefaults<M> {
    /// `model` with what is set in `defaults`: longest answer, temperature, top-p, seed and adapter take the place of what a request leaves unset, and stop texts
    /// are added to those of the request. The other fields of `defaults` are not looked at.
    pub fn new(model: M, defaults: ChatRequest) -> Self {
        Self { model, defaults }
    }

    fn fill(&self, mut request: ChatRequest) -> ChatRequest {
        let Self { defaults, .. } = self;
        request.max_tokens = request.max_tokens.or(defaults.max_tokens);
        request.temperature = request.temperature.or(defaults.temperature);
        request.top_p = request.top_p.or(defaults.top_p);
        request.seed = request.seed.or(defaults.seed);
        request.adapter = request.adapter.or_else(|| defaults.adapter.clone());
        for stop in &defaults.stop {
            if !request.stop.contains(stop) {
                request.stop.push(stop.clone());
            }
        }
        request
    }
}

#[async_trait]
impl<M: LanguageModel> LanguageModel for WithDefaults<M> {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn provider(&self) -> &str {
        self.model.provider()
    }

    fn capabilities(&self) -> Capabilities {
        self.model.capabilities()
    }

    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        self.model.chat(self.fill(request)).await
    }

    async fn chat_stream(&self, request: ChatRequest) -> Result<ChatStream> {
        self.model.chat_stream(self.fill(request)).await
    }
}
