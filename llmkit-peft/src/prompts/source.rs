use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor, TensorData};
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::models::Model;
use llmkit_core::nn::Layer;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::dropout::derive;
use crate::random::{normal, uniform};
use crate::{Error, Result};

/// Where the parameters of a prompt come from: drawn for a fresh one, or read from a file.
///
/// Nothing is made before its shape was found in the file, so that a configuration can't claim memory.
pub struct ParamSource<'a> {
    device: Device,
    kind: Kind<'a>,
    /// What went wrong first, apart from a file that does not fit.
    error: Option<Error>,
}

enum Kind<'a> {
    Fresh(Box<Fresh<'a>>),
    File {
        file: &'a dyn TensorSource,
        taken: BTreeSet<String>,
        missing: Vec<String>,
        mismatched: Vec<String>,
    },
}

struct Fresh<'a> {
    model: &'a dyn Model,
    rng: ChaCha8Rng,
    text: Option<&'a [u32]>,
    origin: PathBuf,
}

/// How a parameter starts; files don't ask.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PromptStart {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus and plus this.
    Uniform(f64),
    /// All zero.
    Zeros,
    /// The model's vectors of the tokens of a text, repeated or cut off to fit.
    Text,
    /// The model's vectors of tokens drawn from its vocabulary.
    Vocabulary,
    /// These values, in row-major order.
    Values(Vec<f32>),
}

impl<'a> ParamSource<'a> {
    /// Draws for `model`; `seed` fixes what. `text` are the tokens of [`PromptStart::Text`], `origin` is named in errors.
    pub fn fresh(model: &'a dyn Model, seed: u64, text: Option<&'a [u32]>, origin: &Path) -> Self {
        // Apart from what other methods draw from the same seed.
        let rng = ChaCha8Rng::seed_from_u64(derive(seed, 0x70_72_6f_6d_70_74));
        let fresh = Fresh { model, rng, text, origin: origin.to_path_buf() };
        Self { device: model.device(), kind: Kind::Fresh(Box::new(fresh)), error: None }
    }

    /// Reads from `file` onto `device`. `read` are keys of the file that are read otherwise.
    pub fn file(file: &'a dyn TensorSource, read: impl IntoIterator<Item = String>, device: &Device) -> Self {
        let taken = read.into_iter().collect();
        let kind = Kind::File { file, taken, missing: Vec::new(), mismatched: Vec::new() };
        Self { device: device.clone(), kind, error: None }
    }

    /// Whether parameters are drawn.
    pub fn is_fresh(&self) -> bool {
        matches!(self.kind, Kind::Fresh(_))
    }

    /// The parameter under `key`.
    pub fn param<const D: usize>(
        &mut self,
        key: &str,
        shape: [usize; D],
        start: PromptStart,
    ) -> Param<Tensor<D>> {
        let mut parts = self.params(key, shape, 1, 0, start);
        parts.pop().expect("one was asked for")
    }

    /// `count` parameters of this shape, which lie one behind the other along `axis` in what is under `key`.
    pub fn params<const D: usize>(
        &mut self,
        key: &str,
        shape: [usize; D],
        count: usize,
        axis: usize,
        start: PromptStart,
    ) -> Vec<Param<Tensor<D>>> {
        let mut whole = shape;
        whole[axis] *= count;
        let values = match &mut self.kind {
            Kind::Fresh(fresh) => {
                let drawn = fresh.start(whole.iter().product(), whole.last().copied().unwrap_or(1), start);
                drawn.map(Some).unwrap_or_else(|error| {
                    self.error.get_or_insert(error);
                    None
                })
            }
            Kind::File { file, taken, missing, mismatched } => {
                taken.insert(key.to_owned());
                match file.info(key) {
                    None => {
                        missing.push(key.to_owned());
                        None
                    }
                    Some(info) if info.shape != whole => {
                        mismatched.push(format!("{key}: expected {whole:?}, found {:?}", info.shape));
                        None
                    }
                    Some(_) => file.read_f32(key).map(Some).unwrap_or_else(|error| {
                        self.error.get_or_insert(error.into());
                        None
                    }),
                }
            }
        };
        let Some(values) = values else {
            // Never used: `finish` reports what happened.
            return (0..count).map(|_| Param::from_tensor(Tensor::zeros([1; D], &self.device))).collect();
        };
        let inner: usize = whole[axis + 1..].iter().product();
        let (row, part) = (whole[axis] * inner, shape[axis] * inner);
        (0..count)
            .map(|index| {
                let at = index * part;
                let values: Vec<f32> =
                    values.chunks_exact(row).flat_map(|row| &row[at..at + part]).copied().collect();
                Param::from_data(TensorData::new(values, shape), &self.device)
            })
            .collect()
    }

    /// Says whether everything was found, and nothing else.
    ///
    /// # Errors
    /// [`Error::Adapter`] naming every key that is missing, unknown or of the wrong shape; whatever else went wrong on the way.
    pub fn finish(self) -> Result<()> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let Kind::File { file, taken, missing, mismatched } = self.kind else { return Ok(()) };
        let unexpected: Vec<_> = file.names().into_iter().filter(|name| !taken.contains(name)).collect();
        if missing.is_empty() && unexpected.is_empty() && mismatched.is_empty() {
            return Ok(());
        }
        Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched })
    }
}

impl Fresh<'_> {
    fn start(&mut self, len: usize, width: usize, start: PromptStart) -> Result<Vec<f32>> {
        let rng = &mut self.rng;
        Ok(match start {
            PromptStart::Normal(std) => normal(len, std, rng),
            PromptStart::Uniform(bound) => uniform(len, bound, rng),
            PromptStart::Zeros => vec![0.0; len],
            PromptStart::Values(values) if values.len() == len => values,
            PromptStart::Values(values) => {
                let found = format!("{} values", values.len());
                return Err(self.wrong(
                    "prompt_tuning_init_state_dict_path",
                    &format!("{len} values"),
                    found,
                ));
            }
            PromptStart::Text => {
                let Some(text) = self.text else {
                    let expected = "another start (one from a text needs the tokenizer: use `from_text`)";
                    return Err(self.wrong("prompt_tuning_init", expected, "TEXT".into()));
                };
                self.words(text, len / width)?
            }
            PromptStart::Vocabulary => {
                let mut vocab = 0;
                self.model.visit(&mut |layer| {
                    if let (Layer::Embedding(table), 0) = (layer, vocab) {
                        vocab = table.weight.dims()[0];
                    }
                });
                let ids: Vec<u32> =
                    (0..len / width).map(|_| self.rng.random_range(0..vocab.max(1)) as u32).collect();
                self.words(&ids, len / width)?
            }
        })
    }

    /// The vectors that the model gives these tokens, repeated or cut off to be `count`.
    fn words(&self, ids: &[u32], count: usize) -> Result<Vec<f32>> {
        let mut table = None;
        self.model.visit(&mut |layer| {
            if let Layer::Embedding(embedding) = layer {
                table.get_or_insert_with(|| embedding.weight.clone());
            }
        });
        let field = "prompt_tuning_init_text";
        let table =
            table.ok_or_else(|| self.wrong(field, "a model with an embedding", "another".to_owned()))?;
        let [vocab, _] = table.dims();
        if ids.is_empty() {
            return Err(self.wrong(field, "a text of at least one token", "none".into()));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            let expected = format!("tokens of the model's {vocab} (does the tokenizer belong to it?)");
            return Err(self.wrong(field, &expected, format!("the id {id}")));
        }
        let ids: Vec<i32> = ids.iter().cycle().take(count).map(|id| *id as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &table.device());
        let vectors = table.select(0, ids) * self.model.embedding_scale();
        vectors
            .try_into_vec_as::<f32>()
            .map_err(|error| self.wrong(field, "an embedding that can be read", error.to_string()))
    }

    fn wrong(&self, field: &str, expected: &str, found: String) -> Error {
        Error::Config { origin: self.origin.clone(), field: field.into(), expected: expected.into(), found }
    }
}
