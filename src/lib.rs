//! llmkit
