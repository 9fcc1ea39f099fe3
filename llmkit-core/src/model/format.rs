use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The form of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// JSON that fits a schema.
    JsonSchema {
        /// What the schema is called; some servers want a name of letters, digits, `_` and `-`.
        name: String,
        /// The JSON schema.
        schema: Value,
    },
}
