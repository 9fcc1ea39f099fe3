//! The bytes that each token stands for.

use std::collections::HashMap;

use serde_json::Value;

use super::Tokenizer;
use crate::{Error, Result};

/// No vocabulary in use comes near; a hostile one could have a single token of a huge id.
const MOST_IDS: u32 = 1 << 22;

/// A token and the bytes that it stands for within a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenBytes {
    pub(crate) id: u32,
    pub(crate) bytes: Vec<u8>,
    /// It is a mark of its own, and its bytes are its name.
    pub(crate) special: bool,
}

/// How tokens spell bytes.
enum Spelling {
    /// Each character is a byte: GPT-2's alphabet.
    ByteLevel(HashMap<char, u8>),
    /// Characters are themselves, `space` is a blank, and `<0x0A>` is a byte.
    SentencePiece { space: String, byte_fallback: bool },
}

impl Tokenizer {
    /// Every token, in no order.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when tokens do not stand for bytes, as those of WordPiece don't.
    pub(crate) fn token_bytes(&self) -> Result<Vec<TokenBytes>> {
        let failed = |reason: String| Error::Tokenizer { reason };
        let decoder = serde_json::to_value(self.inner.get_decoder())
            .map_err(|error| failed(format!("its decoder cannot be described: {error}")))?;
        let spelling = Spelling::of(&decoder).ok_or_else(|| {
            failed(format!(
                "the bytes of its tokens are not known: expected a byte-level decoder or one of SentencePiece's kind, found {}",
                decoder["type"]
            ))
        })?;
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let mut tokens = Vec::new();
        for (token, id) in self.inner.get_vocab(true) {
            if id >= MOST_IDS {
                return Err(failed(format!(
                    "token `{token}` has the id {id}; expected ids below {MOST_IDS}"
                )));
            }
            tokens.push(match added.get(&id) {
                Some(added) => {
                    TokenBytes { id, bytes: added.content.clone().into_bytes(), special: added.special }
                }
                None => TokenBytes { id, bytes: spelling.bytes(&token), special: false },
            });
        }
        Ok(tokens)
    }
}

impl Spelling {
    fn of(decoder: &Value) -> Option<Self> {
        let steps = match decoder["type"].as_str()? {
            "Sequence" => decoder["decoders"].as_array()?.iter().collect(),
            _ => vec![decoder],
        };
        let step = |kind: &str| steps.iter().find(|step| step["type"] == kind);
        if step("ByteLevel").is_some() {
            return Some(Self::ByteLevel(gpt2_alphabet()));
        }
        let replaced = steps.iter().find_map(|step| match step["type"].as_str() {
            Some("Metaspace") => step["replacement"].as_str(),
            Some("Replace") if step["content"] == " " => step["pattern"]["String"].as_str(),
            _ => None,
        });
        let space = replaced?.to_owned();
        Some(Self::SentencePiece { space, byte_fallback: step("ByteFallback").is_some() })
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            // A token of other characters is shown as it is.
            Self::ByteLevel(alphabet) => {
                let bytes: Option<_> =
                    token.chars().map(|character| alphabet.get(&character).copied()).collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Self::SentencePiece { space, byte_fallback } => {
                let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                match byte
                    .filter(|byte| *byte_fallback && byte.len() == 2)
                    .map(|byte| u8::from_str_radix(byte, 16))
                {
                    Some(Ok(byte)) => vec![byte],
                    _ => token.replace(space.as_str(), " ").into_bytes(),
                }
            }
        }
    }
}

/// Bytes that are printable stand for themselves, the others for characters from U+0100 on.
fn gpt2_alphabet() -> HashMap<char, u8> {
    let mut others = '\u{100}'..;
    (0..=u8::MAX)
        .filter_map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            Some((if printable { char::from(byte) } else { others.next()? }, byte))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_that_decoding_gives() {
        for name in ["byte_level", "sentencepiece"] {
            let path =
                format!("{}/tests/fixtures/tokenizer/{name}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
            let tokenizer = Tokenizer::from_file(path).unwrap();
            let mut tokens = tokenizer.token_bytes().unwrap();
            tokens.sort_by_key(|token| token.id);
            assert_eq!(tokens.len(), tokenizer.vocab_size(), "{name}");
            // Behind a letter, since a decoder may drop a blank that comes first.
            let before = tokenizer.encode("a", false).unwrap();
            let start = tokenizer.decode(&before, false).unwrap();
            for token in &tokens {
                let text = tokenizer.decode(&[&before[..], &[token.id]].concat(), false).unwrap();
                let expected = String::from_utf8_lossy(&token.bytes);
                assert_eq!(text.strip_prefix(&start), Some(&*expected), "{name}, {token:?}");
            }
            assert!(tokens.iter().any(|token| token.special));
            assert!(
                tokens
                    .iter()
                    .any(|token| !token.special && token.bytes.starts_with(b" ") && token.bytes.len() > 2)
            );
            // Every byte has a token, so every text can be written.
            assert_eq!(
                tokens
                    .iter()
                    .filter(|token| !token.special && token.bytes.len() == 1)
                    .map(|token| token.bytes[0])
                    .collect::<std::collections::BTreeSet<_>>()
                    .len(),
                256,
                "{name}"
            );
        }
    }
}
