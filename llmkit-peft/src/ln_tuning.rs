use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear, Norm, lookup};
use serde::{Deserialize, Serialize};

use crate::{Attach, Dropout, LayerMethod, MethodConfig, Named, Result, Scope, TunedLayer};

/// LN tuning (Zhao et al. 2023, <https://arxiv.org/abs/2312.11420>): the normalisations' own weights and biases train, and nothing else.
///
/// It starts with the model's values, so a fresh one leaves the model as it is. As in PEFT, other layers may be named, too: they train
/// whole.
pub type LnTuning = LayerMethod<LnTuningLayer>;

/// How an [`LnTuning`] is shaped: PEFT's `LNTuningConfig`, and what an `adapter_config.json` of type `LN_TUNING` holds.
///
/// ```
/// use llmkit_peft::{LnTuningConfig, Targets};
///
/// // Every normalisation of a BERT.
/// let config = LnTuningConfig::new(Targets::names(["LayerNorm"]));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LnTuningConfig {
    /// The layers to act on; by default PEFT's choice (every normalisation for Llama, Mistral and Gemma 3, `post_attention_layernorm`
    /// alone for Qwen).
    #[serde(flatten)]
    pub scope: Scope,
}

impl LnTuningConfig {
    /// Trains the layers of `scope`.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self { scope: scope.into() }
    }
}

impl MethodConfig for LnTuningConfig {
    const PEFT_TYPE: &'static str = "LN_TUNING";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &[];
    const ABSENT_FIELDS: &'static [&'static str] = &["layers_to_transform", "layers_pattern"];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    fn validate(&self, _origin: &Path) -> Result<()> {
        Ok(())
    }

    fn default_targets(model_type: &str) -> Option<&'static [&'static str]> {
        match model_type {
            "llama" | "mistral" => Some(&["input_layernorm", "post_attention_layernorm", "norm"]),
            "gemma3_text" => Some(&[
                "input_layernorm",
                "post_attention_layernorm",
                "pre_feedforward_layernorm",
                "post_feedforward_layernorm",
                "norm",
            ]),
            "qwen2" | "qwen3" => Some(&["post_attention_layernorm"]),
            _ => None,
        }
    }
}

/// A copy of one layer that stands in for the base's.
#[derive(Module, Debug)]
pub struct LnTuningLayer {
    /// A normalisation's `[hidden]`.
    vector: Option<Param<Tensor<1>>>,
    /// A linear layer's `[out, in]`, or an embedding's `[vocab, hidden]`.
    matrix: Option<Param<Tensor<2>>>,
    /// `[hidden]` or `[out]`
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    path: String,
}

impl LnTuningLayer {
    fn matrix(&self) -> Tensor<2> {
        self.matrix.as_ref().expect("a linear layer's or embedding's state has a matrix").val()
    }

    fn vector(&self) -> Tensor<1> {
        self.vector.as_ref().expect("a normalisation's state has a vector").val()
    }

    fn bias(&self) -> Option<Tensor<1>> {
        self.bias.as_ref().map(Param::val)
    }
}

impl TunedLayer for LnTuningLayer {
    type Config = LnTuningConfig;
    type Shared = ();

    fn shared(_: &dyn Model, _: &LnTuningConfig, _: u64, _: Option<&dyn TensorSource>) -> Result<()> {
        Ok(())
    }

    fn accepts(_layer: Layer<'_>) -> bool {
        true
    }

    fn attach(layer: Layer<'_>, _config: &LnTuningConfig, _attach: &Attach<'_, ()>) -> Result<Self> {
        let (vector, matrix, bias) = match layer {
            Layer::Norm(norm) => (Some(&norm.weight), None, norm.bias.as_ref()),
            Layer::Linear(linear) => (None, Some(&linear.weight), linear.bias.as_ref()),
            Layer::Embedding(embedding) => (None, Some(&embedding.weight), None),
        };
        Ok(Self {
            vector: vector.map(|vector| Param::from_tensor(vector.clone())),
            matrix: matrix.map(|matrix| Param::from_tensor(matrix.clone())),
            bias: bias.map(|bias| Param::from_tensor(bias.clone())),
            path: layer.path().to_owned(),
        })
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _: &(), _: Option<Dropout>) -> Tensor<3> {
        Linear::new(base.path(), self.matrix(), self.bias()).forward(input)
    }

    fn embed(&self, _base: &Embedding, ids: Tensor<2, Int>, _: &()) -> Tensor<3> {
        lookup(self.matrix(), ids)
    }

    fn norm(&self, base: &Norm, input: Tensor<3>, _: &()) -> Tensor<3> {
        base.forward_with(input, self.vector(), self.bias())
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        let vector = self.vector.iter().map(|vector| Named::new("ln_tuning_layers.weight", vector));
        let matrix = self.matrix.iter().map(|matrix| Named::new("ln_tuning_layers.weight", matrix));
        let bias = self.bias.iter().map(|bias| Named::new("ln_tuning_layers.bias", bias));
        vector.chain(matrix).chain(bias).collect()
    }

    fn merge(&self, layer: LayerMut<'_>, _: &()) -> Result<()> {
        let bias = self.bias().map(Tensor::without_autodiff);
        match layer {
            LayerMut::Norm(norm) => {
                norm.weight = self.vector().without_autodiff();
                norm.bias = bias;
            }
            LayerMut::Linear(linear) => {
                linear.weight = self.matrix().without_autodiff();
                linear.bias = bias;
            }
            LayerMut::Embedding(embedding) => embedding.weight = self.matrix().without_autodiff(),
        }
        Ok(())
    }
}
