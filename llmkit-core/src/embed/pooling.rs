use burn::tensor::{Device, Tensor, TensorData};

use super::folder::Json;
use crate::Result;

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingMode {
    /// The first token's.
    Cls,
    /// The largest of each component.
    Max,
    /// The mean.
    Mean,
    /// The sum divided by the square root of the number of tokens.
    MeanSqrtLen,
    /// The mean weighted by position: 1, 2, 3 and so on (Muennighoff 2022, <https://arxiv.org/abs/2202.08904>).
    WeightedMean,
    /// The last token's.
    LastToken,
}

/// Modes by their names in today's files and in older ones, in the order in which older files mean them to be concatenated.
const NAMES: [(PoolingMode, &str, &str); 6] = [
    (PoolingMode::Cls, "cls", "pooling_mode_cls_token"),
    (PoolingMode::Max, "max", "pooling_mode_max_tokens"),
    (PoolingMode::Mean, "mean", "pooling_mode_mean_tokens"),
    (PoolingMode::MeanSqrtLen, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (PoolingMode::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (PoolingMode::LastToken, "lasttoken", "pooling_mode_lasttoken"),
];

/// Makes one vector of a text's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    modes: Vec<PoolingMode>,
    include_prompt: bool,
}

impl Pooling {
    /// Concatenates what each of `modes` gives.
    ///
    /// # Panics
    /// If `modes` is empty.
    pub fn new(modes: impl Into<Vec<PoolingMode>>) -> Self {
        let modes = modes.into();
        assert!(!modes.is_empty(), "pooling needs at least one mode");
        Self { modes, include_prompt: true }
    }

    /// Whether the tokens of a prompt in front of the text are pooled with it. Default true.
    pub fn with_include_prompt(mut self, include_prompt: bool) -> Self {
        self.include_prompt = include_prompt;
        self
    }

    /// The modes whose vectors are concatenated.
    pub fn modes(&self) -> &[PoolingMode] {
        &self.modes
    }

    /// Whether the tokens of a prompt are pooled with the text.
    pub fn include_prompt(&self) -> bool {
        self.include_prompt
    }

    /// Reads `1_Pooling/config.json`, for vectors of `width`.
    pub(super) fn read(json: &Json, width: usize) -> Result<Self> {
        for field in ["embedding_dimension", "word_embedding_dimension"] {
            if let Some(found) = json.size(field)?.filter(|found| *found != width) {
                return Err(json.wrong(field, &format!("the model's hidden size ({width})"), found));
            }
        }
        let modes = match json.get("pooling_mode") {
            Some(value) => {
                let listed = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                let modes = listed.iter().map(|name| {
                    NAMES.iter().find(|(_, known, _)| name.as_str() == Some(known)).map(|(mode, ..)| *mode)
                });
                match modes.collect::<Option<Vec<_>>>() {
                    // More than one of each would be a hostile file.
                    Some(modes) if !modes.is_empty() && modes.len() <= NAMES.len() => modes,
                    _ => {
                        let known = NAMES.map(|(_, name, _)| name);
                        return Err(json.wrong("pooling_mode", &format!("one or some of {known:?}"), value));
                    }
                }
            }
            None => {
                let mut modes = Vec::new();
                for (mode, _, field) in NAMES {
                    if json.flag_or(field, false)? {
                        modes.push(mode);
                    }
                }
                if modes.is_empty() { vec![PoolingMode::Mean] } else { modes }
            }
        };
        Ok(Self { modes, include_prompt: json.flag_or("include_prompt", true)? })
    }

    /// One vector for each text. Of each row, the tokens before `skipped` and those from its length on don't count.
    ///
    /// # Shapes
    /// `[batch, seq, hidden]` to `[batch, modes * hidden]`.
    ///
    /// # Panics
    /// If a length is not above `skipped`.
    pub(crate) fn forward(&self, hidden: Tensor<3>, lengths: &[usize], skipped: usize) -> Tensor<2> {
        assert!(lengths.iter().all(|length| *length > skipped), "pooling: nothing left of {lengths:?}");
        let pooled = self.modes.iter().map(|mode| match mode {
            PoolingMode::Max => max(hidden.clone(), lengths, skipped),
            mode => weighted(*mode, hidden.clone(), lengths, skipped),
        });
        Tensor::cat(pooled.collect(), 1)
    }
}

/// The sum of the tokens' vectors, each times its weight.
fn weighted(mode: PoolingMode, hidden: Tensor<3>, lengths: &[usize], skipped: usize) -> Tensor<2> {
    let [_, seq, _] = hidden.dims();
    let weights = each_position(lengths, seq, &hidden.device(), |length, position| {
        let counted = (length - skipped) as f32;
        let weight = match mode {
            PoolingMode::Cls => f32::from(position == skipped),
            PoolingMode::LastToken => f32::from(position == length - 1),
            PoolingMode::MeanSqrtLen => counted.sqrt().recip(),
            PoolingMode::WeightedMean => {
                // The sum of skipped + 1 ..= length.
                (position + 1) as f32 / (counted * (skipped + 1 + length) as f32 / 2.0)
            }
            PoolingMode::Mean | PoolingMode::Max => counted.recip(),
        };
        if (skipped..length).contains(&position) { weight } else { 0.0 }
    });
    weights.swap_dims(1, 2).matmul(hidden).squeeze_dim(1)
}

fn max(hidden: Tensor<3>, lengths: &[usize], skipped: usize) -> Tensor<2> {
    let [_, seq, _] = hidden.dims();
    let hidden_away = each_position(lengths, seq, &hidden.device(), |length, position| {
        if (skipped..length).contains(&position) { 0.0 } else { f32::NEG_INFINITY }
    });
    (hidden + hidden_away).max_dim(1).squeeze_dim(1)
}

/// A number for each position, `[batch, seq, 1]`, of the row's length and the position.
fn each_position(
    lengths: &[usize],
    seq: usize,
    device: &Device,
    value: impl Fn(usize, usize) -> f32,
) -> Tensor<3> {
    let values: Vec<f32> =
        lengths.iter().flat_map(|length| (0..seq).map(|position| value(*length, position))).collect();
    Tensor::from_data(TensorData::new(values, [lengths.len(), seq, 1]), device)
}
