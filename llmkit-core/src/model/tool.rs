use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A tool that a model may call, as it is described to the model.
///
/// Serialised as `{"type": "function", "function": {"name": .., "description": .., "parameters": ..}}`, which chat templates and OpenAI's
/// API read.
///
/// ```
/// use llmkit_core::ToolDefinition;
/// use serde_json::json;
///
/// let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
/// let tool = ToolDefinition::new("weather", "The weather in a city", parameters.clone());
/// assert_eq!(serde_json::to_value(&tool).unwrap(), json!({
///     "type": "function",
///     "function": {"name": "weather", "description": "The weather in a city", "parameters": parameters},
/// }));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Wrapped", into = "Wrapped")]
pub struct ToolDefinition {
    /// The name by which the model calls it.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// The JSON schema of its arguments, which are an object.
    pub parameters: Value,
}

impl ToolDefinition {
    /// A tool of this name, described to the model, whose arguments have the JSON schema `parameters`.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        Self { name: name.into(), description: description.into(), parameters }
    }
}

#[derive(Serialize, Deserialize)]
struct Wrapped {
    r#type: Kind,
    function: Function,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Function,
}

#[derive(Serialize, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Value,
}

impl From<Wrapped> for ToolDefinition {
    fn from(Wrapped { function: Function { name, description, parameters }, .. }: Wrapped) -> Self {
        Self { name, description, parameters }
    }
}

impl From<ToolDefinition> for Wrapped {
    fn from(ToolDefinition { name, description, parameters }: ToolDefinition) -> Self {
        Self { r#type: Kind::Function, function: Function { name, description, parameters } }
    }
}

/// Whether a model calls tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As it sees fit.
    #[default]
    Auto,
    /// Not at all, though it sees them.
    None,
    /// At least one.
    Required,
    /// The one of this name.
    Tool(String),
}
