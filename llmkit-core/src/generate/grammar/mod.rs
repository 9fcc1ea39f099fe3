//! Answers that fit a grammar, over the `llguidance` crate.

mod compiler;
mod vocabulary;

pub(crate) use compiler::{BLANKS, ONE_BLANK, prepare_schema};
pub use compiler::{GrammarCompiler, GrammarConstraint};

use serde_json::Value;

/// The form that an answer must have.
///
/// ```
/// use std::ops::ControlFlow;
/// use llmkit_core::generate::{Grammar, GrammarCompiler, Sampling, generate_constrained};
/// use llmkit_core::models::{CachedModel, Pretrained};
/// use llmkit_core::{Device, NoAdapter};
///
/// # fn main() -> llmkit_core::Result<()> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama/gguf/model.gguf");
/// let Pretrained { model, tokenizer, generation, .. } = Pretrained::load(path, &Device::from_env()?.resolve()?)?;
/// let compiler = GrammarCompiler::new(&tokenizer, &generation.eos_token_ids)?;
///
/// let answer = generate_constrained(
///     &mut CachedModel::new(model.as_ref(), &NoAdapter),
///     &mut tokenizer.decode_stream(true),
///     &tokenizer.encode("Rust is from ", true)?,
///     &generation.with_sampling(Sampling::new(1.0)),
///     &mut compiler.compile(&Grammar::regex("(19|20)[0-9]{2}"))?,
///     &mut |_| ControlFlow::Continue(()),
/// )?;
/// let year: u32 = answer.text.parse().unwrap();
/// assert!((1900..2100).contains(&year));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Grammar {
    /// JSON that fits a schema. Properties come in the order in which the schema lists them, the required ones and then those that it does
    /// not list. Between tokens of JSON there are at most 32 blanks.
    JsonSchema(Value),
    /// All of the answer matches a regular expression, of the `regex` crate's syntax without anchors, word boundaries and lazy repetition.
    Regex(String),
    /// A context-free grammar in [llguidance's variant of Lark's syntax](https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
    Lark(String),
}

impl Grammar {
    /// A [`JsonSchema`](Self::JsonSchema).
    pub fn json_schema(schema: Value) -> Self {
        Self::JsonSchema(schema)
    }

    /// Any JSON object.
    pub fn json_object() -> Self {
        Self::JsonSchema(serde_json::json!({"type": "object"}))
    }

    /// A [`Regex`](Self::Regex).
    pub fn regex(pattern: impl Into<String>) -> Self {
        Self::Regex(pattern.into())
    }

    /// A [`Lark`](Self::Lark) grammar.
    pub fn lark(grammar: impl Into<String>) -> Self {
        Self::Lark(grammar.into())
    }
}
