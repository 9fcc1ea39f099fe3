//! Byte-level BPE: `tokenizer.ggml.model` = `gpt2`.

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, SplitDelimiterBehavior};

use super::{Fields, Vocabulary, bpe, error, guard};
use crate::Result;

/// How Llama 3 cuts text into words before merging: up to three digits together, line breaks with the punctuation before them.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen2 does: as Llama 3, but each digit alone.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The ways to cut text into words that are known, by their name in `tokenizer.ggml.pre`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    Gpt2,
    SmolLm,
    Llama3,
    Qwen2,
}

impl Words {
    const NAMES: &[(&str, Self)] = &[
        ("default", Self::Gpt2),
        ("gpt-2", Self::Gpt2),
        ("smollm", Self::SmolLm),
        ("llama-bpe", Self::Llama3),
        ("llama3", Self::Llama3),
        ("llama-v3", Self::Llama3),
        ("falcon3", Self::Llama3),
        ("qwen2", Self::Qwen2),
        ("deepseek-r1-qwen", Self::Qwen2),
    ];

    fn named(name: &str) -> Result<Self> {
        if let Some((_, words)) = Self::NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(*words);
        }
        let known: Vec<&str> = Self::NAMES.iter().map(|(known, _)| *known).collect();
        Err(error(format!(
            "`tokenizer.ggml.pre` is `{name}`; known are {}. Put the original model's tokenizer.json beside the file and \
             read that instead",
            known.join(", ")
        )))
    }

    /// The name that llama.cpp's converter would write.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::SmolLm => "smollm",
            Self::Llama3 => "llama-bpe",
            Self::Qwen2 => "qwen2",
        }
    }

    /// Llama 3's vocabulary holds whole words that its merges do not reach; they are looked up first.
    pub(super) fn ignores_merges(self) -> bool {
        self == Self::Llama3
    }

    /// The way that these steps of a `tokenizer.json` cut text, if it is one of ours.
    pub(super) fn of_steps(steps: &[Value], normalizer: &Value) -> Option<Self> {
        let words = [Self::Gpt2, Self::SmolLm, Self::Llama3, Self::Qwen2].into_iter().find(|words| {
            let ours = words.pre_tokenizer().ok().and_then(|ours| serde_json::to_value(ours).ok());
            let ours = match ours {
                Some(sequence) if sequence["type"] == "Sequence" => sequence["pretokenizers"].clone(),
                Some(one) => Value::Array(vec![one]),
                None => return false,
            };
            ours.as_array().is_some_and(|ours| {
                ours.len() == steps.len() && ours.iter().zip(steps).all(|(ours, step)| same_step(ours, step))
            })
        })?;
        let normal = if words == Self::Qwen2 { normalizer["type"] == "NFC" } else { normalizer.is_null() };
        normal.then_some(words)
    }

    fn pre_tokenizer(self) -> Result<PreTokenizerWrapper> {
        let bytes = |use_regex| PreTokenizerWrapper::from(ByteLevel::new(false, true, use_regex));
        let split = |pattern: &str| {
            guard("compiling the pre-tokenizer", || {
                Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
            })
        };
        let steps = match self {
            Self::Gpt2 => return Ok(bytes(true)),
            Self::SmolLm => vec![Digits::new(true).into(), bytes(true)],
            Self::Llama3 => vec![split(LLAMA3)?.into(), bytes(false)],
            Self::Qwen2 => vec![split(QWEN2)?.into(), bytes(false)],
        };
        Ok(Sequence::new(steps).into())
    }
}

/// Whether two steps cut alike; what only moves offsets counts for nothing.
fn same_step(ours: &Value, theirs: &Value) -> bool {
    let fields: &[&str] = match ours["type"].as_str() {
        Some("ByteLevel") => &["add_prefix_space", "use_regex"],
        Some("Digits") => &["individual_digits"],
        Some("Split") => &["pattern", "behavior", "invert"],
        _ => return false,
    };
    ours["type"] == theirs["type"] && fields.iter().all(|field| ours[*field] == theirs[*field])
}

/// The tokenizer without its added tokens, and whether a text begins with the begin token unless the file says otherwise.
pub(super) fn build(
    fields: &Fields<'_>,
    vocabulary: &Vocabulary<'_>,
) -> Result<(tokenizers::Tokenizer, bool)> {
    let words = Words::named(fields.string("tokenizer.ggml.pre")?.unwrap_or("default"))?;
    let merges = vocabulary.merges(fields)?.ok_or_else(|| {
        error("`tokenizer.ggml.merges` is missing, which a `gpt2` tokenizer needs".to_owned())
    })?;
    let ignore_merges = words.ignores_merges();
    let model =
        bpe(BPE::builder().vocab_and_merges(vocabulary.ids.clone(), merges).ignore_merges(ignore_merges))?;

    let mut tokenizer = tokenizers::Tokenizer::new(model);
    if words == Words::Qwen2 {
        guard("setting the normalizer", || {
            tokenizer.with_normalizer(Some(NormalizerWrapper::from(NFC))).map(|_| ())
        })?;
    }
    tokenizer.with_pre_tokenizer(Some(words.pre_tokenizer()?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    Ok((tokenizer, words == Words::Llama3))
}
