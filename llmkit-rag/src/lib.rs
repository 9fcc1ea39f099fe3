//! llmkit-rag
