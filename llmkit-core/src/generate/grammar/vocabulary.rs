use std::sync::Arc;

use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::{Error, Result, Tokenizer};

/// A tokenizer's tokens as grammars see them: by their bytes.
pub(super) struct Vocabulary {
    tokenizer: Tokenizer,
    trie: TokTrie,
    /// Whether a text's own tokens can be told: not where the tokenizer adds a space before them.
    canonical: bool,
}

impl Vocabulary {
    /// `eos` end an answer, whatever else they are.
    pub(super) fn environment(tokenizer: &Tokenizer, eos: &[u32]) -> Result<TokEnv> {
        let mut tokens = Vec::new();
        for token in tokenizer.token_bytes()? {
            // What is special stands for itself and never for its letters.
            let special = token.special || eos.contains(&token.id);
            let mut bytes = if special { vec![TokTrie::SPECIAL_TOKEN_MARKER] } else { Vec::new() };
            bytes.extend(token.bytes);
            let index = token.id as usize;
            if tokens.len() <= index {
                tokens.resize(index + 1, Vec::new());
            }
            tokens[index] = bytes;
        }
        let mut eos: Vec<TokenId> = eos.iter().copied().filter(|&id| (id as usize) < tokens.len()).collect();
        if eos.is_empty() {
            // Where nothing ends an answer, a token does that no model gives.
            eos.push(tokens.len() as TokenId);
            tokens.push([&[TokTrie::SPECIAL_TOKEN_MARKER], "<end of the answer>".as_bytes()].concat());
        }
        let count = u32::try_from(tokens.len()).map_err(|_| Error::Tokenizer {
            reason: format!("{} tokens are too many for a grammar", tokens.len()),
        })?;
        let trie = TokTrie::from(&TokRxInfo::new(count, eos[0]), &tokens).with_eos_tokens(&eos);
        let keeps = |text: &str| {
            tokenizer.encode(text, false).is_ok_and(|ids| trie.decode_raw(&ids) == text.as_bytes())
        };
        let canonical = keeps("a") && keeps(" a") && keeps("{\"");
        Ok(Arc::new(Self { tokenizer: tokenizer.clone(), trie, canonical }))
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let ids = std::str::from_utf8(bytes).ok().and_then(|text| self.tokenizer.encode(text, false).ok());
        // A special token's letters are not that token, and a normaliser may change the text.
        ids.filter(|ids| self.trie.decode_raw(ids) == bytes)
            .unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}
