use std::fmt;

use llmkit_core::ChatRequest;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// What identifies something remembered: the SHA-256 of all that it depends on.
///
/// ```
/// use llmkit_core::{ChatRequest, Message};
/// use llmkit_prompt::cache::CacheKey;
///
/// let mut request = ChatRequest::new(vec![Message::user("What is a tureen?")]);
/// let key = CacheKey::of_chat("smollm2", &request);
/// assert_eq!(key, CacheKey::of_chat("smollm2", &request));
/// request.adapter = Some("cooking".to_owned());
/// assert_ne!(key, CacheKey::of_chat("smollm2", &request));
/// assert_eq!(key.to_string().len(), 64);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of `model`'s answer to `request`: of the model's name, the conversation, the adapter, tools, format and every sampling setting.
    pub fn of_chat(model: &str, request: &ChatRequest) -> Self {
        Self::of("chat", &(model, request))
    }

    /// The key of the vector that the embedder with this identity makes of `text`.
    pub fn of_text(embedder: &str, text: &str) -> Self {
        Self::of("text", &(embedder, text))
    }

    /// The hash of JSON whose fields are in alphabetical order, so that it doesn't matter in which order a schema was written.
    pub(super) fn of(kind: &str, value: &impl Serialize) -> Self {
        // Requests are JSON already where they come from; what is not one can't be told apart, and its kind says so.
        let value = serde_json::to_value(value).expect("strings and requests are JSON");
        let text = json!([1, kind, sorted(value)]).to_string();
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(
                fields.into_iter().map(|(name, value)| (name, sorted(value))).collect::<Map<_, _>>(),
            )
        }
        Value::Array(values) => values.into_iter().map(sorted).collect(),
        other => other,
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use llmkit_core::{Message, ResponseFormat, ToolChoice, ToolDefinition};

    use super::*;

    #[test]
    fn every_setting_changes_the_key_and_the_order_of_a_schemas_fields_does_not() {
        let request = ChatRequest::new(vec![Message::system("s"), Message::user("u")]);
        let changes: [fn(&mut ChatRequest); 11] = [
            |request| request.messages[0].content = "t".to_owned(),
            |request| request.messages[1].reasoning = Some("r".to_owned()),
            |request| request.max_tokens = Some(1),
            |request| request.temperature = Some(0.5),
            |request| request.top_p = Some(0.5),
            |request| request.stop.push("x".to_owned()),
            |request| request.seed = Some(1),
            |request| request.adapter = Some("a".to_owned()),
            |request| request.tools.push(ToolDefinition::new("f", "", json!({}))),
            |request| request.tool_choice = ToolChoice::None,
            |request| request.response_format = ResponseFormat::Json,
        ];
        let mut keys = vec![CacheKey::of_chat("m", &request), CacheKey::of_chat("n", &request)];
        for change in changes {
            let mut changed = request.clone();
            change(&mut changed);
            keys.push(CacheKey::of_chat("m", &changed));
        }
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);

        let with = |schema: &str| {
            let schema = serde_json::from_str(schema).unwrap();
            let response_format = ResponseFormat::JsonSchema { name: "n".to_owned(), schema };
            CacheKey::of_chat("m", &ChatRequest { response_format, ..request.clone() })
        };
        assert_eq!(with(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#), with(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#));
    }
}
