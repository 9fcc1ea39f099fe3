use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory, TokenParser, regex_to_lark};
use serde_json::{Map, Value};

use super::Grammar;
use super::vocabulary::Vocabulary;
use crate::generate::Constraint;
use crate::{Error, Result, Tokenizer};

/// The most that may stand between two tokens of JSON. Where any amount may, a model may write blanks for ever.
pub(crate) const BLANKS: &str = r"[\x20\x0A\x0D\x09]{1,32}";
/// The longest grammar, in bytes of its text.
const LONGEST: usize = 1 << 20;
/// How deep a schema may be nested; the compiler recurses.
const DEEPEST: usize = 128;
/// The stack of the thread that compiles, in bytes of address space (memory is taken as it is used).
const STACK: usize = if cfg!(target_pointer_width = "64") { 256 << 20 } else { 32 << 20 };

/// Makes constraints for the tokens of one tokenizer, whose vocabulary it has prepared: build it once and share it (clones do).
///
/// Building looks at every token, compiling a grammar does not. See [`Grammar`] for an example.
#[derive(Clone)]
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
    eos_token_ids: Vec<u32>,
}

impl GrammarCompiler {
    /// Prepares the vocabulary of `tokenizer` for a model whose answers `eos_token_ids` end.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when its tokens do not stand for bytes: it must be byte-level or of SentencePiece's kind.
    pub fn new(tokenizer: &Tokenizer, eos_token_ids: &[u32]) -> Result<Self> {
        let vocabulary = Vocabulary::environment(tokenizer, eos_token_ids)?;
        let mut factory = ParserFactory::new_simple(&vocabulary).map_err(|error| Error::Tokenizer {
            reason: format!("its vocabulary cannot be prepared for grammars: {error}"),
        })?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory: Arc::new(factory), eos_token_ids: eos_token_ids.to_vec() })
    }

    /// A constraint for one answer.
    ///
    /// # Errors
    /// [`Error::Grammar`] when the grammar does not parse, is too large, or asks for what cannot be enforced; the message names it.
    pub fn compile(&self, grammar: &Grammar) -> Result<GrammarConstraint> {
        let grammar = match grammar {
            Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(prepare_schema(schema, BLANKS)?),
            Grammar::Regex(pattern) => {
                check_length(pattern.len())?;
                let lark = format!("start: /{}/", regex_to_lark(pattern, ""));
                TopLevelGrammar::from_grammar(GrammarWithLexer::from_lark(lark))
            }
            Grammar::Lark(text) => {
                check_length(text.len())?;
                TopLevelGrammar::from_lark(text.clone())
            }
        };
        let parser = self.on_deep_stack(|| {
            self.factory.create_parser(grammar).map_err(|error| failed(&format!("{error:#}")))
        })?;
        Ok(GrammarConstraint { matcher: Matcher::new(Ok(parser)), eos_token_ids: self.eos_token_ids.clone() })
    }

    fn on_deep_stack(&self, work: impl FnOnce() -> Result<TokenParser> + Send) -> Result<TokenParser> {
        let panicked = || failed("its compiler panicked; please report the grammar");
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("grammar".to_owned()).stack_size(STACK);
            let thread = thread.spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(work)));
            let thread = thread.map_err(|error| failed(&format!("no thread to compile it: {error}")))?;
            thread.join().ok().and_then(std::result::Result::ok).unwrap_or_else(|| Err(panicked()))
        })
    }
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tokens = self.factory.tok_env().tok_trie().vocab_size();
        formatter.debug_struct("GrammarCompiler").field("tokens", &tokens).finish_non_exhaustive()
    }
}

/// Holds one answer to a [`Grammar`].
pub struct GrammarConstraint {
    matcher: Matcher,
    eos_token_ids: Vec<u32>,
}

impl GrammarConstraint {
    /// Whether the answer may end here.
    ///
    /// # Errors
    /// [`Error::Grammar`] when the grammar became too complex to follow.
    pub fn is_accepting(&mut self) -> Result<bool> {
        self.matcher.is_accepting().map_err(|error| failed(&error.to_string()))
    }

    fn check(&self) -> Result<()> {
        match self.matcher.stop_reason() {
            reason if reason.is_ok() => Ok(()),
            reason => Err(failed(&format!("it cannot be followed any further ({reason}); make it simpler"))),
        }
    }
}

impl Constraint for GrammarConstraint {
    fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        self.check()?;
        if self.matcher.is_stopped() {
            let eos = &self.eos_token_ids;
            let barred = (0_u32..).zip(logits).filter(|(id, _)| !eos.contains(id));
            barred.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            return Ok(());
        }
        let allowed = self.matcher.compute_mask().map_err(|error| failed(&error.to_string()))?;
        self.check()?;
        let words = allowed.as_slice();
        for (index, logits) in logits.chunks_mut(u32::BITS as usize).enumerate() {
            // Rows beyond the vocabulary are no tokens.
            match words.get(index).copied().unwrap_or(0) {
                0 => logits.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        self.matcher.consume_token(token).map_err(|error| failed(&error.to_string()))?;
        self.check()
    }

    fn is_over(&self) -> bool {
        self.matcher.is_stopped()
    }
}

impl std::fmt::Debug for GrammarConstraint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GrammarConstraint").field("over", &self.is_over()).finish_non_exhaustive()
    }
}

fn failed(reason: &str) -> Error {
    let mut reason = reason.trim().to_owned();
    if reason.len() > 1000 {
        reason.truncate(reason.floor_char_boundary(1000));
        reason += " ..";
    }
    Error::Grammar { reason }
}

fn check_length(len: usize) -> Result<()> {
    if len > LONGEST {
        return Err(failed(&format!("it is {len} bytes long; expected at most {LONGEST}")));
    }
    Ok(())
}

/// What may stand between tokens of JSON in a call: a blank, as chat templates write it.
pub(crate) const ONE_BLANK: &str = r"\x20";

/// The schema with our settings for its compiler, which no schema may choose itself.
pub(crate) fn prepare_schema(schema: &Value, blanks: &str) -> Result<Value> {
    let mut schema = match schema {
        Value::Object(fields) => Value::Object(fields.clone()),
        Value::Bool(true) => Value::Object(Map::new()),
        _ => return Err(failed("a JSON schema is an object, or `true`")),
    };
    check_depth(&schema)?;
    JsonCompileOptions { whitespace_pattern: Some(blanks.to_owned()), ..JsonCompileOptions::default() }
        .apply_to(&mut schema);
    check_length(schema.to_string().len())?;
    Ok(schema)
}

/// Refuses a schema that is nested too deep, without recursing.
fn check_depth(schema: &Value) -> Result<()> {
    let mut waiting = vec![(schema, 0)];
    while let Some((value, depth)) = waiting.pop() {
        if depth > DEEPEST {
            return Err(failed(&format!("the schema is nested deeper than {DEEPEST} levels")));
        }
        match value {
            Value::Array(values) => waiting.extend(values.iter().map(|value| (value, depth + 1))),
            Value::Object(fields) => waiting.extend(fields.values().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}
