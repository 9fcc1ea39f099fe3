use serde::{Deserialize, Serialize};

use super::{ResponseFormat, ToolChoice, ToolDefinition};
use crate::Message;

/// A conversation to be answered, and how. Unset settings take the model's own defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation so far; its last turn is usually the user's.
    pub messages: Vec<Message>,
    /// The longest answer, in tokens.
    pub max_tokens: Option<usize>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus sampling: the smallest set of tokens with this probability mass, in (0, 1].
    pub top_p: Option<f32>,
    /// Texts at which the answer ends; they are not part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Fixes sampling.
    pub seed: Option<u64>,
    /// The adapter that answers, by the name under which the model has it; none for the model as it is.
    #[serde(default)]
    pub adapter: Option<String>,
    /// What the model may ask to have run. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolDefinition>,
    /// Whether the model must, may or must not call tools. Default: it may.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// The form that the answer must have. Default: any text.
    #[serde(default)]
    pub response_format: ResponseFormat,
}

impl ChatRequest {
    /// Asks for an answer to `messages` with the model's own settings.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}
