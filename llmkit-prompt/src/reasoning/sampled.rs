use async_trait::async_trait;
use llmkit_core::{Capabilities, ChatRequest, ChatResponse, ChatStream, LanguageModel};

/// A model that samples: requests that set no temperature get this one, and each gets this seed, mixed with its own where it has one.
pub(super) struct Sampled<'a> {
    pub(super) model: &'a dyn LanguageModel,
    pub(super) temperature: f32,
    pub(super) seed: u64,
}

impl Sampled<'_> {
    /// For traces, which hold requests as they were before they came here.
    pub(super) fn describe(&self) -> String {
        format!("seed {}, and temperature {} where a request sets none", self.seed, self.temperature)
    }

    fn settings(&self, mut request: ChatRequest) -> ChatRequest {
        request.temperature.get_or_insert(self.temperature);
        // Nested sampling: the odd factor keeps the seeds of two levels from meeting.
        let seed = request
            .seed
            .map_or(self.seed, |inner| self.seed ^ inner.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        request.seed = Some(seed);
        request
    }
}

#[async_trait]
impl LanguageModel for Sampled<'_> {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn provider(&self) -> &str {
        self.model.provider()
    }

    fn capabilities(&self) -> Capabilities {
        self.model.capabilities()
    }

    async fn chat(&self, request: ChatRequest) -> llmkit_core::Result<ChatResponse> {
        self.model.chat(self.settings(request)).await
    }

    async fn chat_stream(&self, request: ChatRequest) -> llmkit_core::Result<ChatStream> {
        self.model.chat_stream(self.settings(request)).await
    }
}
