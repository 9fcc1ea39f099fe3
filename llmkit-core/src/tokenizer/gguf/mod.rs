//! Tokenizers out of a GGUF file's metadata.

mod byte_level;
mod fields;
mod sentencepiece;
mod write;

use fields::{Fields, TokenType};
use serde_json::json;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, PostProcessorWrapper};

use super::{SpecialTokens, Tokenizer, guard};
pub(super) use write::metadata;

use crate::checkpoint::gguf::Metadata;
use crate::{Error, Result};

/// Builds the tokenizer that `metadata` describes.
pub(super) fn build(metadata: &Metadata) -> Result<Tokenizer> {
    let fields = Fields::new(metadata);
    let vocabulary = Vocabulary::read(&fields)?;
    let (mut inner, begins_by_default) = match fields.string("tokenizer.ggml.model")? {
        Some("gpt2") => byte_level::build(&fields, &vocabulary)?,
        Some("llama") => sentencepiece::build(&fields, &vocabulary)?,
        found => {
            return Err(error(format!(
                "`tokenizer.ggml.model` is {}; supported are `gpt2` (byte-level BPE) and `llama` (SentencePiece BPE). \
                 Put the original model's tokenizer.json beside the file and read that instead",
                found.map_or("missing".to_owned(), |found| format!("`{found}`"))
            )));
        }
    };

    let id = |name: &str| fields.id(name, vocabulary.tokens.len());
    let mut special = SpecialTokens {
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos: id("tokenizer.ggml.eos_token_id")?.into_iter().collect(),
        pad: id("tokenizer.ggml.padding_token_id")?,
    };
    // Chat models end a turn with a token of their own, and a call for a tool with another.
    special.extend_eos(id("tokenizer.ggml.eot_token_id")?);
    special.extend_eos(id("tokenizer.ggml.eom_token_id")?);

    let named = special.bos.into_iter().chain(special.eos.iter().copied()).chain(special.pad);
    let named: Vec<u32> = named.chain(id("tokenizer.ggml.unknown_token_id")?).collect();
    vocabulary.register_added(&mut inner, &named)?;

    let begin = fields.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(begins_by_default);
    let end = fields.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let token = |id: Option<u32>, wanted: bool| id.filter(|_| wanted).map(|id| (vocabulary.token(id), id));
    let begin = token(special.bos, begin);
    let end = token(special.eos.first().copied(), end);
    if begin.is_some() || end.is_some() {
        inner.with_post_processor(Some(surround(begin, end)?));
    }
    Ok(Tokenizer::new(inner, special))
}

/// The tokens of the file and what each is.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    types: Vec<TokenType>,
    ids: Vocab,
}

impl<'a> Vocabulary<'a> {
    fn read(fields: &Fields<'a>) -> Result<Self> {
        let tokens = fields.strings("tokenizer.ggml.tokens")?.ok_or_else(|| {
            error("`tokenizer.ggml.tokens` is missing: the file carries no tokenizer".to_owned())
        })?;
        let types = match fields.integers("tokenizer.ggml.token_type")? {
            Some(types) => {
                fields::same_length("tokenizer.ggml.token_type", types.len(), tokens.len())?;
                types.into_iter().map(TokenType::new).collect()
            }
            None => vec![TokenType::Normal; tokens.len()],
        };
        let mut ids = Vocab::with_capacity(tokens.len());
        for (id, token) in (0_u32..).zip(&tokens) {
            if let Some(first) = ids.insert((*token).to_owned(), id) {
                return Err(error(format!("tokens {first} and {id} are both `{token}`")));
            }
        }
        Ok(Self { tokens, types, ids })
    }

    /// The text of an id that was checked against the vocabulary.
    fn token(&self, id: u32) -> &'a str {
        self.tokens.get(id as usize).copied().unwrap_or_default()
    }

    /// The merges that the file lists, each checked: its parts are tokens, and so is what they make.
    fn merges(&self, fields: &Fields<'_>) -> Result<Option<Merges>> {
        let Some(lines) = fields.strings("tokenizer.ggml.merges")? else { return Ok(None) };
        let mut merges = Merges::with_capacity(lines.len());
        for (index, line) in lines.into_iter().enumerate() {
            // A part may itself begin with a space in vocabularies that are not byte-level.
            let pair = line
                .char_indices()
                .skip(1)
                .find(|(_, c)| *c == ' ')
                .map(|(at, _)| (&line[..at], &line[at + 1..]));
            let Some((left, right)) = pair else {
                return Err(error(format!(
                    "merge {index} is `{line}`; expected two tokens with a space between"
                )));
            };
            for token in [left, right, &format!("{left}{right}")] {
                if !self.ids.contains_key(token) {
                    return Err(error(format!("merge {index} is `{line}`, but `{token}` is not a token")));
                }
            }
            merges.push((left.to_owned(), right.to_owned()));
        }
        Ok(Some(merges))
    }

    /// Makes control tokens, and those with the ids `named`, special, and user-defined ones matched whole in any text.
    fn register_added(&self, tokenizer: &mut tokenizers::Tokenizer, named: &[u32]) -> Result<()> {
        let mut added = Vec::new();
        for ((id, token), kind) in (0_u32..).zip(&self.tokens).zip(&self.types) {
            let special = named.contains(&id) || matches!(kind, TokenType::Control | TokenType::Unknown);
            if token.is_empty() {
                continue;
            }
            if special || *kind == TokenType::UserDefined {
                added.push(AddedToken::from(*token, special).normalized(false));
            }
        }
        guard("adding special tokens", || tokenizer.add_tokens(added).map(|_| ()))
    }
}

fn bpe(builder: tokenizers::models::bpe::BpeBuilder) -> Result<BPE> {
    guard("building the BPE model", || builder.build())
}

/// A post-processor that puts `begin` before a text and `end` behind it.
fn surround(begin: Option<(&str, u32)>, end: Option<(&str, u32)>) -> Result<PostProcessorWrapper> {
    let around = |sequence: &str, type_id: u32| {
        let special = |token: Option<(&str, u32)>| {
            token.map(|(text, _)| json!({"SpecialToken": {"id": text, "type_id": type_id}}))
        };
        let middle = json!({"Sequence": {"id": sequence, "type_id": type_id}});
        special(begin).into_iter().chain([middle]).chain(special(end)).collect::<Vec<_>>()
    };
    let single = around("A", 0);
    let pair: Vec<_> = single.iter().cloned().chain(around("B", 1)).collect();
    let mut tokens = serde_json::Map::new();
    for (text, id) in begin.into_iter().chain(end) {
        tokens.insert(text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}));
    }
    // Built as JSON because the builder's own syntax splits at spaces and colons, which a token may hold.
    let template =
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens});
    serde_json::from_value(template)
        .map_err(|source| error(format!("cannot add begin and end tokens: {source}")))
}

fn error(reason: String) -> Error {
    Error::Tokenizer { reason }
}
