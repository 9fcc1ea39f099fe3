//! Why a request failed, before it becomes an error about a model.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use super::secrets::Secrets;

/// The longest quotation of a server's words, in characters.
pub(super) const QUOTE: usize = 400;

/// A failed attempt. Its words hold no secrets.
#[derive(Debug)]
pub(super) struct Failure {
    /// What happened, and what to do.
    pub(super) reason: String,
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<Duration>,
    pub(super) source: Option<reqwest::Error>,
    /// Whether another attempt may do better.
    pub(super) retry: bool,
}

impl Failure {
    /// A failure that another attempt would repeat.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), status: None, retry_after: None, source: None, retry: false }
    }

    /// The same failure as one that another attempt may not meet.
    pub(super) fn transient(self) -> Self {
        Self { retry: true, ..self }
    }

    /// The failure as an error about `model`.
    pub(super) fn about(self, model: &str) -> llmkit_core::Error {
        let Self { reason, status, retry_after, source, .. } = self;
        llmkit_core::Error::Remote {
            model: model.to_owned(),
            reason,
            status,
            retry_after,
            source: source.map(|error| Box::new(error) as Box<dyn StdError + Send + Sync>),
        }
    }
}

/// An error and its causes in one line; the cause of a connection's failure is far down.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// What a server says in the body of an error, and the code that it gives it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ServerError {
    pub(super) message: String,
    pub(super) code: Option<String>,
}

impl ServerError {
    /// Reads the shapes that servers use: OpenAI's `{"error": {"message": .., "code": ..}}`, Ollama's `{"error": ".."}`, vLLM's and llama.cpp's
    /// `{"message": ..}`, FastAPI's `{"detail": ..}`. A body of another shape is the message itself.
    pub(super) fn read(body: &[u8], secrets: &Secrets) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::from_value(&value, secrets),
            Err(_) => Self { message: secrets.quote(&String::from_utf8_lossy(body), QUOTE), code: None },
        }
    }

    /// As [`read`](Self::read), from a value.
    pub(super) fn from_value(value: &Value, secrets: &Secrets) -> Self {
        let inner =
            ["error", "detail"].iter().find_map(|name| value.get(name).filter(|inner| !inner.is_null()));
        let inner = inner.unwrap_or(value);
        let message = inner.get("message").or_else(|| value.get("message")).unwrap_or(inner);
        let message = match message {
            Value::String(text) => secrets.quote(text, QUOTE),
            Value::Null => String::new(),
            other => secrets.quote(&other.to_string(), QUOTE),
        };
        let code = ["code", "type"].iter().find_map(|name| match inner.get(name) {
            Some(Value::String(code)) => Some(secrets.quote(code, 60)),
            Some(Value::Number(code)) => Some(code.to_string()),
            _ => None,
        });
        Self { message, code }
    }

    /// Whether the server complains of a conversation that is too long for its model.
    fn is_about_length(&self) -> bool {
        let code = self.code.as_deref();
        if matches!(code, Some("context_length_exceeded" | "exceed_context_size_error")) {
            return true;
        }
        let message = self.message.to_lowercase();
        [
            "context length",
            "context window",
            "context size",
            "maximum context",
            "prompt is too long",
            "too many tokens",
        ]
        .iter()
        .any(|words| message.contains(words))
    }
}

/// What a status means, the server's words, and what to do. `address` is where the request went.
pub(super) fn explain(status: StatusCode, error: &ServerError, address: &str) -> String {
    let remedy = match status.as_u16() {
        _ if error.is_about_length() => {
            "the conversation is longer than the model's context: shorten it or lower `max_tokens`"
        }
        300..=399 => {
            "the server sends elsewhere, which is not followed: give the new address as the base URL"
        }
        400 | 422 => {
            "the server refused the request: see its message; a field that it does not know may be the cause"
        }
        401 => "the API key is missing or wrong: set it with `with_api_key`",
        402 => "the account has no credit left: see the provider's billing page",
        403 => "the API key may not use this model",
        404 => "no such address or model: check the base URL (it usually ends in `/v1`) and the model's name",
        405 => "the address does not take requests: check the base URL (it usually ends in `/v1`)",
        408 => "the server waited too long for the request",
        413 => "the request is too large for the server: shorten the conversation",
        429 if error.code.as_deref() == Some("insufficient_quota") => {
            "the account's quota is used up: see the provider's billing page"
        }
        429 => "the server limits how much is asked of it: ask less with `with_rate_limit`",
        500..=599 => "the server failed: try again later or see its log",
        _ => "the server refused the request",
    };
    let code = error.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
    let words = if error.message.is_empty() { "no message".to_owned() } else { error.message.clone() };
    format!("{address} answered{code}: {words}; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_servers_message_is_found() {
        let read = |body: &str| {
            let error = ServerError::read(body.as_bytes(), &Secrets::default());
            (error.message, error.code)
        };
        let some = |text: &str| Some(text.to_owned());
        for (body, message, code) in [
            (r#"{"error": {"message": "no", "type": "t", "code": "c"}}"#, "no", some("c")),
            (r#"{"error": {"message": "no", "type": "t", "code": null}}"#, "no", some("t")),
            (r#"{"error": {"message": "no", "code": 404}}"#, "no", some("404")),
            (r#"{"error": "no"}"#, "no", None),
            (r#"{"object": "error", "message": "no", "code": 40303}"#, "no", some("40303")),
            (r#"{"detail": "no"}"#, "no", None),
            (r#"{"detail": [{"loc": ["body"], "msg": "no"}]}"#, r#"[{"loc":["body"],"msg":"no"}]"#, None),
            ("<html>no\n</html>", "<html>no </html>", None),
            ("", "", None),
            ("null", "", None),
        ] {
            assert_eq!(read(body), (message.to_owned(), code), "{body}");
        }
    }

    #[test]
    fn each_status_says_what_to_do() {
        let say = |status: u16, message: &str| {
            let error = ServerError { message: message.to_owned(), code: None };
            explain(StatusCode::from_u16(status).unwrap(), &error, "http://x/v1/chat/completions")
        };
        assert!(say(401, "who?").contains("`with_api_key`"));
        assert!(say(404, "").contains("no message; no such address or model"));
        assert!(say(400, "This model's maximum context length is 8192 tokens").contains("shorten it"));
        assert!(say(429, "slow down").contains("`with_rate_limit`"));
    }
}
