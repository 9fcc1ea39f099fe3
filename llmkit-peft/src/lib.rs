//! llmkit-peft
