use llmkit_core::Capabilities;
use reqwest::Url;

/// Whose server it is: where servers that speak OpenAI's interface differ from OpenAI's own.
///
/// [`OpenAi::new`](super::OpenAi::new) guesses it from the address (see [`guess`](Self::guess)), and
/// [`with_provider`](super::OpenAi::with_provider) sets it. What a preset says of a server's abilities is what that server's documentation says;
/// [`with_capabilities`](super::OpenAi::with_capabilities) corrects it for one model.
///
/// | | `max_tokens` is called | tools | JSON | JSON schema |
/// |---|---|---|---|---|
/// | `OpenAi` | `max_completion_tokens` | yes | yes | yes |
/// | `DeepSeek` | `max_tokens` | yes | yes | no |
/// | `Qwen` (DashScope) | `max_tokens` | yes | yes | no |
/// | `Vllm` | `max_tokens` | yes | yes | yes |
/// | `LlamaCpp` | `max_tokens` | yes | yes | yes |
/// | `Ollama` | `max_tokens` | yes, without `tool_choice` | yes | yes |
/// | `Other` | `max_tokens` | no | no | no |
///
/// ```
/// use llmkit_prompt::remote::Provider;
///
/// assert_eq!(Provider::guess("https://api.deepseek.com/v1"), Provider::DeepSeek);
/// assert_eq!(Provider::guess("http://localhost:11434/v1"), Provider::Ollama);
/// assert_eq!(Provider::guess("http://localhost:8080/v1"), Provider::Other);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// OpenAI, and Azure's service of it. Schemas are sent as strict ones where they can be made so.
    OpenAi,
    /// DeepSeek. The thoughts of earlier turns are not sent back, those since the last user's turn are.
    DeepSeek,
    /// Qwen's models at Alibaba's DashScope.
    Qwen,
    /// vLLM's server. An adapter is a model of its own there: a request's adapter is asked for by its name.
    Vllm,
    /// llama.cpp's server, and that of llama-cpp-python.
    LlamaCpp,
    /// Ollama. It ignores `tool_choice`, so a request that needs it is an error.
    Ollama,
    /// Any other: nothing is assumed that a server might not have.
    Other,
}

impl Provider {
    /// The provider that an address points to: OpenAI's, Azure's, DeepSeek's and DashScope's hosts, and Ollama's port 11434. Anything else is
    /// [`Other`](Self::Other).
    pub fn guess(base_url: &str) -> Self {
        let Ok(url) = Url::parse(base_url) else { return Self::Other };
        let host = url.host_str().unwrap_or_default();
        let within = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if within("api.openai.com") || within("openai.azure.com") {
            Self::OpenAi
        } else if within("api.deepseek.com") {
            Self::DeepSeek
        } else if ["dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"]
            .contains(&host)
        {
            Self::Qwen
        } else if url.port() == Some(11434) {
            Self::Ollama
        } else {
            Self::Other
        }
    }

    /// What the provider's models do by themselves, unless told otherwise.
    pub fn capabilities(self) -> Capabilities {
        Capabilities::new()
            .with_tools(!matches!(self, Self::Other))
            .with_json_schema(matches!(self, Self::OpenAi | Self::Vllm | Self::LlamaCpp | Self::Ollama))
    }

    /// Whether the server answers in JSON when asked to, without a schema.
    pub(super) fn writes_json(self) -> bool {
        !matches!(self, Self::Other)
    }

    /// The name of the longest answer's field.
    pub(super) fn max_tokens(self) -> &'static str {
        match self {
            Self::OpenAi => "max_completion_tokens",
            _ => "max_tokens",
        }
    }

    /// Whether vectors may be asked for in base64, a quarter of the size of decimals.
    pub(super) fn encodes_vectors(self) -> bool {
        matches!(self, Self::OpenAi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_only_looks_like_a_provider_is_not_one() {
        assert_eq!(Provider::guess("https://api.openai.com/v1"), Provider::OpenAi);
        assert_eq!(Provider::guess("https://me.openai.azure.com/openai/v1?api-version=1"), Provider::OpenAi);
        assert_eq!(Provider::guess("https://dashscope-intl.aliyuncs.com/compatible-mode/v1"), Provider::Qwen);
        for other in ["https://notapi.openai.com.evil.org/v1", "https://evilopenai.azure.com/v1", "nonsense"]
        {
            assert_eq!(Provider::guess(other), Provider::Other, "{other}");
        }
    }
}
