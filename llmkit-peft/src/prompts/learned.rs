use std::fmt::Debug;

use burn::module::{Module, ModuleDisplay, Param, ParamId};
use burn::tensor::Tensor;
use llmkit_core::checkpoint::TensorData;
use llmkit_core::nn::KeyValue;

use super::{ParamSource, PromptConfig};
use crate::{Dropout, ParamRef, Result};

/// What a method learns to put before a sequence: all that such a method has to say. [`PromptMethod`](super::PromptMethod) makes a whole
/// method of it.
pub trait Learned: Module + ModuleDisplay + Debug + Sync + 'static {
    /// The method's configuration.
    type Config: PromptConfig;

    /// Whether keys and values of every block are learned, by [`prefix`](Self::prefix), and not vectors, by [`prompt`](Self::prompt).
    const IS_PREFIX: bool = false;

    /// Makes the state, fresh or from a file, as `source` says, for a configuration that was completed. `encoder` says whether what is
    /// learned comes out of a network that trains, where the configuration has one.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration can't be followed. What is missing in a file `source` reports.
    fn make(config: &Self::Config, source: &mut ParamSource<'_>, encoder: bool) -> Result<Self>;

    /// Whether the configuration has a network that what is learned comes out of.
    fn wants_encoder(_config: &Self::Config) -> bool {
        false
    }

    /// The tensors that train: those of PEFT's file or, where there is a network, its own.
    fn tensors(&self) -> Vec<LearnedTensor<'_>>;

    /// What the network gives, where there is one: the `prompt_embeddings` of PEFT's file.
    ///
    /// # Shapes
    /// `[tokens, token_dim]`, or in prefix tuning `[tokens, 2 * layers * token_dim]`.
    fn output(&self) -> Option<Tensor<2>> {
        None
    }

    /// The vectors that come before the embedded tokens of `batch` sequences. Dropout is set while training.
    ///
    /// # Shapes
    /// `[batch, tokens, hidden]`
    fn prompt(&self, _batch: usize, _dropout: Option<Dropout>) -> Option<Tensor<3>> {
        None
    }

    /// The keys and values that come before those of `batch` sequences in block `layer`.
    ///
    /// # Shapes
    /// `[batch, tokens, kv_heads, head_dim]`, both.
    fn prefix(&self, _layer: usize, _batch: usize) -> Option<KeyValue> {
        None
    }
}

/// A tensor of a file, and the parameters that it consists of: several where each block has its own, so that the gradient of one block
/// does not have the size of all.
#[derive(Debug, Clone)]
pub struct LearnedTensor<'a> {
    key: String,
    axis: usize,
    parts: Vec<ParamRef<'a>>,
}

impl<'a> LearnedTensor<'a> {
    /// `param` under `key`.
    pub fn new(key: impl Into<String>, param: impl Into<ParamRef<'a>>) -> Self {
        Self { key: key.into(), axis: 0, parts: vec![param.into()] }
    }

    /// What is under `key` lies in `params` of one or two dimensions, one behind the other along `axis`.
    pub fn parts<const D: usize>(
        key: impl Into<String>,
        axis: usize,
        params: impl IntoIterator<Item = &'a Param<Tensor<D>>>,
    ) -> Self
    where
        ParamRef<'a>: From<&'a Param<Tensor<D>>>,
    {
        Self { key: key.into(), axis, parts: params.into_iter().map(ParamRef::from).collect() }
    }

    /// The parameters with names of their own.
    pub(super) fn names(&self) -> Vec<(ParamId, String)> {
        match self.parts.as_slice() {
            [whole] => vec![(whole.id(), self.key.clone())],
            parts => {
                parts.iter().enumerate().map(|(i, part)| (part.id(), format!("{}.{i}", self.key))).collect()
            }
        }
    }

    /// The key and the values, for a file.
    pub(super) fn data(&self) -> (String, TensorData<'static>) {
        let data = match self.parts.as_slice() {
            [whole] => whole.data(),
            [ParamRef::Vector(_), ..] => self.joined(|part| match part {
                ParamRef::Vector(param) => Some(param.val()),
                _ => None,
            }),
            _ => self.joined(|part| match part {
                ParamRef::Matrix(param) => Some(param.val()),
                _ => None,
            }),
        };
        (self.key.clone(), data)
    }

    fn joined<const D: usize>(
        &self,
        value: impl Fn(&ParamRef<'a>) -> Option<Tensor<D>>,
    ) -> TensorData<'static> {
        let parts: Vec<Tensor<D>> = self.parts.iter().filter_map(value).collect();
        assert_eq!(parts.len(), self.parts.len(), "{}: parts of one or two dimensions, all alike", self.key);
        TensorData::from_tensor(Tensor::cat(parts, self.axis).without_autodiff())
    }
}
