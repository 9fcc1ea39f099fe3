use super::Fields;
use crate::Result;

/// The architectures whose tensors have Hugging Face names here, as in `general.architecture`.
pub(super) const ARCHITECTURES: [&str; 6] = ["llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "phi3"];

/// A Hugging Face class and what llama.cpp makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    /// Llama and what is built like it; also Mistral, which llama.cpp does not tell from it.
    Llama,
    /// Mistral with a sliding window: `llama` with `attention.sliding_window`.
    Mistral,
    /// `llama` with experts.
    Mixtral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma3,
    Phi3,
}

impl Architecture {
    /// The class of a file, or `None` if its architecture is not one of [`ARCHITECTURES`].
    pub(super) fn of_file(fields: &Fields<'_>) -> Result<Option<Self>> {
        Ok(Some(match fields.require_str("general.architecture")? {
            "llama" if fields.u32("llama.expert_count")?.is_some_and(|experts| experts > 0) => Self::Mixtral,
            "llama" if fields.u32("llama.attention.sliding_window")?.is_some_and(|window| window > 0) => {
                Self::Mistral
            }
            "llama" => Self::Llama,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "qwen3moe" => Self::Qwen3Moe,
            "gemma3" => Self::Gemma3,
            "phi3" => Self::Phi3,
            _ => return Ok(None),
        }))
    }

    /// The name of the Hugging Face class.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Mixtral => "MixtralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Qwen3Moe => "Qwen3MoeForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
            Self::Phi3 => "Phi3ForCausalLM",
        }
    }

    /// The `model_type` of the Hugging Face configuration.
    pub(super) fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Mixtral => "mixtral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3_moe",
            Self::Gemma3 => "gemma3_text",
            Self::Phi3 => "phi3",
        }
    }

    /// All, in the order of their declaration.
    pub(super) const ALL: [Self; 8] = [
        Self::Llama,
        Self::Mistral,
        Self::Mixtral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Gemma3,
        Self::Phi3,
    ];

    /// llama.cpp's name, as in `general.architecture`.
    pub(super) fn gguf_name(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral | Self::Mixtral => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
        }
    }

    /// Whether llama.cpp interleaves the rows of query and key (see `permute`).
    pub(super) fn interleaves(self) -> bool {
        self.gguf_name() == "llama"
    }

    /// Whether llama.cpp adds 1 to the weights of all norms: Gemma multiplies by `1 + weight`.
    pub(super) fn offsets_norms(self) -> bool {
        self == Self::Gemma3
    }
}
