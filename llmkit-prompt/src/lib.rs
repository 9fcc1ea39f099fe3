//! llmkit-prompt
