/// What a model does by itself, beyond answering with text.
///
/// ```
/// use llmkit_core::Capabilities;
///
/// let capabilities = Capabilities::new().with_tools(true).with_context_tokens(8192);
/// assert!(capabilities.tools && !capabilities.json_schema);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// It is shown a request's [`tools`](crate::ChatRequest::tools) and its calls are understood.
    pub tools: bool,
    /// Its answers can be held to a [`ResponseFormat`](crate::ResponseFormat).
    pub json_schema: bool,
    /// How many tokens prompt and answer may have together, where that is known.
    pub context_tokens: Option<usize>,
}

impl Capabilities {
    /// Text only, of unknown length.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`tools`](Self::tools).
    pub fn with_tools(self, tools: bool) -> Self {
        Self { tools, ..self }
    }

    /// Sets [`json_schema`](Self::json_schema).
    pub fn with_json_schema(self, json_schema: bool) -> Self {
        Self { json_schema, ..self }
    }

    /// Sets [`context_tokens`](Self::context_tokens).
    pub fn with_context_tokens(self, tokens: usize) -> Self {
        Self { context_tokens: Some(tokens), ..self }
    }
}
