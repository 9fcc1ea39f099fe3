//! SentencePiece BPE with byte fallback: `tokenizer.ggml.model` = `llama`.

use std::cmp::{Ordering, Reverse};

use tokenizers::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use super::{Fields, Vocabulary, bpe, error, fields, guard};
use crate::Result;

/// The character that stands for a space.
const SPACE: char = '▁';
/// The longest token whose merges are derived, in characters; the work grows with the square of it. SentencePiece's default is 16.
const LONGEST: usize = 256;

/// The tokenizer without its added tokens, and whether a text begins with the begin token unless the file says otherwise.
pub(super) fn build(
    fields: &Fields<'_>,
    vocabulary: &Vocabulary<'_>,
) -> Result<(tokenizers::Tokenizer, bool)> {
    let architecture = fields.string("general.architecture")?.unwrap_or_default();
    if architecture.starts_with("gemma") {
        return Err(error(format!(
            "`general.architecture` is `{architecture}`, whose scores do not give its merges; put the original model's \
             tokenizer.json beside the file and read that instead"
        )));
    }
    let merges = match vocabulary.merges(fields)? {
        Some(merges) => merges,
        None => derive_merges(fields, vocabulary)?,
    };
    let mut builder =
        BPE::builder().vocab_and_merges(vocabulary.ids.clone(), merges).fuse_unk(true).byte_fallback(true);
    if let Some(unknown) = fields.id("tokenizer.ggml.unknown_token_id", vocabulary.tokens.len())? {
        builder = builder.unk_token(vocabulary.token(unknown).to_owned());
    }
    let mut tokenizer = tokenizers::Tokenizer::new(bpe(builder)?);

    let prefix = fields.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    if architecture == "phi3" {
        // Phi-3 puts its space before every stretch of text and before a text that begins with one, the others only where there is none.
        let replace = guard("building the normalizer", || Replace::new(" ", SPACE.to_string()))?;
        let mut steps = vec![NormalizerWrapper::from(replace)];
        if prefix {
            steps.insert(0, Prepend::new(SPACE.to_string()).into());
        }
        guard("setting the normalizer", || {
            tokenizer.with_normalizer(Some(Normalizers::new(steps))).map(|_| ())
        })?;
    } else {
        let scheme = if prefix { PrependScheme::First } else { PrependScheme::Never };
        tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::from(Metaspace::new(SPACE, scheme, false))));
    }
    tokenizer.with_decoder(Some(decoder(prefix)?));
    Ok((tokenizer, true))
}

fn decoder(prefix: bool) -> Result<DecoderWrapper> {
    let replace = guard("building the decoder", || Replace::new(SPACE.to_string(), " "))?;
    let mut steps: Vec<DecoderWrapper> = vec![replace.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Sequence::new(steps).into())
}

/// Merges from scores, as `transformers` derives them: each way to make a token of two others is a merge; the better the made token's
/// score the earlier, then the longer the left part, then the right; what is still equal stays in the order of the tokens made,
/// then of the ids of the parts.
fn derive_merges(fields: &Fields<'_>, vocabulary: &Vocabulary<'_>) -> Result<Merges> {
    let scores = fields.floats("tokenizer.ggml.scores")?.ok_or_else(|| {
        error("neither `tokenizer.ggml.scores` nor `tokenizer.ggml.merges` is there".to_owned())
    })?;
    fields::same_length("tokenizer.ggml.scores", scores.len(), vocabulary.tokens.len())?;

    let mut merges = Vec::new();
    for (token, score) in vocabulary.tokens.iter().zip(scores) {
        let length = token.chars().count();
        if length > LONGEST {
            return Err(error(format!(
                "a token is {length} characters long; merges are derived up to {LONGEST}"
            )));
        }
        let first = merges.len();
        for (left_length, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (vocabulary.ids.get(left), vocabulary.ids.get(right)) {
                let order = (score, left_length, length - left_length);
                merges.push((order, (left_id, right_id), (left, right)));
            }
        }
        merges[first..].sort_by_key(|(_, ids, _)| *ids);
    }
    // Stable, so that ties keep their order.
    merges.sort_by(|(a, ..), (b, ..)| {
        b.0.partial_cmp(&a.0)
            .unwrap_or(Ordering::Equal)
            .then_with(|| Reverse((a.1, a.2)).cmp(&Reverse((b.1, b.2))))
    });
    Ok(merges.into_iter().map(|(.., (left, right))| (left.to_owned(), right.to_owned())).collect())
}
