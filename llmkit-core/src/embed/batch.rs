use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::models::Encoder;
use crate::tokenizer::Encoded;
use crate::{Error, Result};

/// Texts side by side, padded on the right to the longest of them.
pub(super) struct Batch {
    /// `[batch, seq]`
    pub(super) ids: Tensor<2, Int>,
    pub(super) lengths: Vec<usize>,
    /// `[batch, seq]`, for models that tell types apart.
    pub(super) types: Option<Tensor<2, Int>>,
}

impl Batch {
    /// Puts `texts` side by side for `encoder`.
    pub(super) fn new(texts: &[&Encoded], encoder: &dyn Encoder, pad: u32) -> Self {
        let device = encoder.device();
        let lengths: Vec<_> = texts.iter().map(|text| text.ids.len()).collect();
        let seq = lengths.iter().copied().max().unwrap_or(0);
        let padded = |values: &dyn Fn(&Encoded) -> Vec<u32>, pad: u32| {
            let rows = texts.iter().flat_map(|text| {
                let row = values(text);
                let missing = seq - row.len();
                row.into_iter().chain(std::iter::repeat_n(pad, missing)).map(|id| id as i32)
            });
            table(rows.collect(), [texts.len(), seq], &device)
        };
        let types = encoder.num_token_types() > 1;
        Self {
            ids: padded(&|text| text.ids.clone(), pad),
            types: types.then(|| padded(&|text| text.type_ids.clone(), 0)),
            lengths,
        }
    }
}

fn table(values: Vec<i32>, shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The indices of `texts` in batches of at most `batch_size`, longest first, so that texts of like lengths share a batch.
pub(super) fn by_length(texts: &[Encoded], batch_size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<_> = (0..texts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(texts[*index].ids.len()));
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Insists that `encoder` can read `texts`, and says how many were cut.
pub(super) fn check(texts: &[Encoded], encoder: &dyn Encoder, model: &str) -> Result<()> {
    let refuse = |reason: String| Err(Error::Model { model: model.to_owned(), reason });
    let (vocab_size, types) = (encoder.vocab_size(), encoder.num_token_types());
    for text in texts {
        if text.ids.is_empty() {
            return refuse("a text without any token has no vector; leave it out".into());
        }
        if let Some(id) = text.ids.iter().find(|id| **id as usize >= vocab_size) {
            return refuse(format!(
                "the tokenizer gave the id {id}, where the model knows {vocab_size}: it does not belong to the model"
            ));
        }
        if let Some(kind) = text.type_ids.iter().find(|kind| types > 1 && **kind as usize >= types) {
            return refuse(format!(
                "the tokenizer gave the token type {kind}, where the model knows {types}"
            ));
        }
    }
    let cut = texts.iter().filter(|text| text.truncated).count();
    if cut > 0 {
        tracing::warn!(model, cut, of = texts.len(), "texts were cut to the maximal length");
    }
    Ok(())
}

/// The id that fills up rows: what it is does not matter, except to RoBERTa, which counts positions by it.
pub(super) fn padding(tokenizer: &crate::Tokenizer, encoder: &dyn Encoder) -> u32 {
    let configured = encoder.config().get("pad_token_id").and_then(serde_json::Value::as_u64);
    let pad = configured.and_then(|id| u32::try_from(id).ok()).or_else(|| tokenizer.pad_token_id());
    pad.filter(|id| (*id as usize) < encoder.vocab_size()).unwrap_or(0)
}
