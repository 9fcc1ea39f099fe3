//! A tokenizer as GGUF metadata: the inverse of reading it out of them.

use serde_json::Value;

use super::super::{Tokenizer, guard};
use super::byte_level::Words;
use super::error;
use crate::Result;
use crate::checkpoint::gguf::{Metadata, MetadataValue};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The character that stands for a space in SentencePiece.
const SPACE: &str = "▁";

/// The metadata of `tokenizer`.
pub(in super::super) fn metadata(tokenizer: &Tokenizer) -> Result<Metadata> {
    let text = guard("reading the tokenizer", || tokenizer.inner.to_string(false))?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|source| error(format!("cannot read the tokenizer: {source}")))?;
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(unsupported(&format!("a model of type {}", model["type"])));
    }
    let merges = merges(model)?;
    let mut metadata = Metadata::new();
    let mut set = |name: &str, value: MetadataValue| metadata.insert(format!("tokenizer.ggml.{name}"), value);
    let string = |text: &str| MetadataValue::String(text.to_owned());

    let steps = steps(&json["pre_tokenizer"], "pretokenizers");
    let byte_level = steps.iter().any(|step| step["type"] == "ByteLevel");
    let (tokens, mut types) = vocabulary(tokenizer, &json)?;
    if byte_level {
        let words = Words::of_steps(&steps, &json["normalizer"])
            .ok_or_else(|| unsupported("a pre-tokenizer that llama.cpp has no name for here"))?;
        if model["ignore_merges"].as_bool().unwrap_or(false) != words.ignores_merges() {
            return Err(unsupported(&format!("`ignore_merges` other than `{}` implies", words.name())));
        }
        set("model", string("gpt2"));
        set("pre", string(words.name()));
    } else {
        let prefix = sentencepiece(&json, &steps)?;
        set("model", string("llama"));
        set("pre", string("default"));
        set("add_space_prefix", MetadataValue::Bool(prefix));
        for (token, kind) in tokens.iter().zip(&mut types) {
            if *kind == NORMAL && is_byte(token) {
                *kind = BYTE;
            }
        }
        set("scores", MetadataValue::Array(scores(&tokens, &merges)));
    }
    // With every byte a token nothing is unknown, and some files name no such token; SentencePiece's is there all the same.
    let unknown = model["unk_token"].as_str().or((!byte_level).then_some("<unk>"));
    if let Some(id) = unknown.and_then(|token| tokenizer.token_to_id(token)) {
        if !byte_level {
            types[id as usize] = UNKNOWN;
        }
        set("unknown_token_id", MetadataValue::U32(id));
    }
    set("token_type", MetadataValue::Array(types.into_iter().map(MetadataValue::I32).collect()));
    set("tokens", MetadataValue::Array(tokens.into_iter().map(MetadataValue::String).collect()));
    let joined = merges.into_iter().map(|(left, right)| MetadataValue::String(format!("{left} {right}")));
    set("merges", MetadataValue::Array(joined.collect()));

    let special = &tokenizer.special;
    let mut ids = vec![("bos_token_id", special.bos), ("padding_token_id", special.pad)];
    // Those beyond the third end a turn, too, and the format has no name for them.
    let names = ["eos_token_id", "eot_token_id", "eom_token_id"];
    ids.extend(names.into_iter().zip(special.eos.iter().copied().map(Some)));
    if special.eos.len() > names.len() {
        tracing::warn!(ids = ?&special.eos[names.len()..], "GGUF names three tokens that end a turn; these are left out");
    }
    for (name, id) in ids {
        if let Some(id) = id {
            set(name, MetadataValue::U32(id));
        }
    }
    let (begins, ends) = around(tokenizer, &json)?;
    set("add_bos_token", MetadataValue::Bool(begins));
    set("add_eos_token", MetadataValue::Bool(ends));
    Ok(metadata)
}

/// The tokens by id, and what each is. Ids that no token has become unused ones.
fn vocabulary(tokenizer: &Tokenizer, json: &Value) -> Result<(Vec<String>, Vec<i32>)> {
    let vocab = tokenizer.inner.get_vocab(true);
    let count = vocab.values().copied().max().map_or(0, |id| id as usize + 1);
    // Ids may have gaps, but not so many that the file would be made of them.
    if count > 2 * vocab.len() + 1024 {
        return Err(unsupported(&format!("{} tokens with ids up to {count}", vocab.len())));
    }
    let mut tokens: Vec<String> = (0..count).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED; count];
    for (token, id) in vocab {
        tokens[id as usize] = token;
        types[id as usize] = NORMAL;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let id = added["id"].as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < count);
        let Some(id) = id else {
            return Err(unsupported("an added token without an id"));
        };
        types[id] = if added["special"].as_bool().unwrap_or(false) { CONTROL } else { USER_DEFINED };
    }
    Ok((tokens, types))
}

/// Both forms in which `tokenizer.json` has them: `"a b"` and `["a", "b"]`.
fn merges(model: &Value) -> Result<Vec<(String, String)>> {
    let listed = model["merges"].as_array().ok_or_else(|| unsupported("BPE without merges"))?;
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        Value::Array(parts) => match &parts[..] {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    };
    let spaced = |(left, right): &(String, String)| left.contains(' ') || right.contains(' ');
    listed
        .iter()
        .map(|merge| pair(merge).filter(|pair| !spaced(pair)))
        .collect::<Option<_>>()
        .ok_or_else(|| unsupported("merges of tokens with spaces in them"))
}

/// The scores that make SentencePiece merge in the order of `merges`: minus the rank of the first merge that makes a token. Tokens that no
/// merge makes come after, in the order of their ids; they are characters, whose scores decide nothing.
fn scores(tokens: &[String], merges: &[(String, String)]) -> Vec<MetadataValue> {
    let mut ranks = std::collections::HashMap::with_capacity(merges.len());
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let rank = |(id, token): (usize, &String)| ranks.get(token).copied().unwrap_or(merges.len() + id);
    tokens.iter().enumerate().map(rank).map(|rank| MetadataValue::F32(-(rank as f32))).collect()
}

/// Whether a text gets a space before it, of BPE over SentencePiece's pieces.
fn sentencepiece(json: &Value, steps: &[Value]) -> Result<bool> {
    let model = &json["model"];
    if model["byte_fallback"] != true {
        return Err(unsupported("BPE that is neither byte-level nor falls back to bytes"));
    }
    let normalizers = self::steps(&json["normalizer"], "normalizers");
    let prepends = normalizers.iter().any(|step| step["type"] == "Prepend" && step["prepend"] == SPACE);
    let plain = normalizers.iter().all(|step| {
        step["type"] == "Prepend" && step["prepend"] == SPACE
            || step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == SPACE
    });
    let scheme = match steps {
        [] => None,
        [step] if step["type"] == "Metaspace" && step["split"] == false && step["replacement"] == SPACE => {
            step["prepend_scheme"].as_str()
        }
        _ => return Err(unsupported("a pre-tokenizer other than Metaspace without splitting")),
    };
    if !plain || steps.is_empty() && normalizers.is_empty() {
        return Err(unsupported("a normalizer other than one that writes spaces as `▁`"));
    }
    Ok(prepends || matches!(scheme, Some("first" | "always")))
}

/// Whether a text begins with the begin token and ends with the end token.
fn around(tokenizer: &Tokenizer, json: &Value) -> Result<(bool, bool)> {
    let processors = steps(&json["post_processor"], "processors");
    let template = processors.iter().find(|step| step["type"] == "TemplateProcessing");
    let Some(single) = template.and_then(|template| template["single"].as_array()) else {
        return Ok((false, false));
    };
    let token =
        |piece: &Value| piece["SpecialToken"]["id"].as_str().and_then(|token| tokenizer.token_to_id(token));
    let at = single.iter().position(|piece| piece.get("Sequence").is_some()).unwrap_or(0);
    let (before, after) = (&single[..at], single.get(at + 1..).unwrap_or_default());
    let is = |pieces: &[Value], id: Option<u32>| match pieces {
        [] => Some(false),
        [piece] if id.is_some() && token(piece) == id => Some(true),
        _ => None,
    };
    is(before, tokenizer.special.bos).zip(is(after, tokenizer.special.eos.first().copied())).ok_or_else(
        || unsupported("a text that begins or ends with other tokens than its begin and end token"),
    )
}

/// The steps of a component: none, itself, or those of a sequence.
fn steps(component: &Value, field: &str) -> Vec<Value> {
    match component {
        Value::Null => Vec::new(),
        sequence if sequence["type"] == "Sequence" => sequence[field].as_array().cloned().unwrap_or_default(),
        one => vec![one.clone()],
    }
}

/// `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn unsupported(what: &str) -> crate::Error {
    error(format!("cannot write it into a GGUF file: it has {what}"))
}
