use burn::module::{Param, ParamId};
use burn::tensor::Tensor;
use llmkit_core::checkpoint::TensorData;

/// One trained tensor and its key in the method's file.
#[derive(Debug, Clone)]
pub struct Named<'a> {
    /// The key, or its end where the layer's path goes before it: `lora_A.weight`.
    pub key: String,
    /// The key under which another version of PEFT writes the same tensor.
    pub alias: Option<String>,
    /// The tensor, of the shape that it has in the file.
    pub param: ParamRef<'a>,
}

/// A parameter of any of the ranks that files hold.
#[derive(Debug, Clone, Copy)]
pub enum ParamRef<'a> {
    /// Of one dimension.
    Vector(&'a Param<Tensor<1>>),
    /// Of two.
    Matrix(&'a Param<Tensor<2>>),
    /// Of three.
    Cube(&'a Param<Tensor<3>>),
    /// Of four.
    Hypercube(&'a Param<Tensor<4>>),
}

impl<'a> Named<'a> {
    /// `param` under `key`.
    pub fn new(key: impl Into<String>, param: impl Into<ParamRef<'a>>) -> Self {
        Self { key: key.into(), alias: None, param: param.into() }
    }

    /// Reads it under `alias` as well.
    pub fn with_alias(self, alias: impl Into<String>) -> Self {
        Self { alias: Some(alias.into()), ..self }
    }

    /// The same with `prefix` before its keys.
    pub fn below(self, prefix: &str) -> Self {
        let below = |key: String| format!("{prefix}{key}");
        Self { key: below(self.key), alias: self.alias.map(below), ..self }
    }
}

impl ParamRef<'_> {
    /// The parameter's id.
    pub fn id(&self) -> ParamId {
        match self {
            Self::Vector(param) => param.id,
            Self::Matrix(param) => param.id,
            Self::Cube(param) => param.id,
            Self::Hypercube(param) => param.id,
        }
    }

    /// Its shape.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(param) => param.shape().to_vec(),
            Self::Matrix(param) => param.shape().to_vec(),
            Self::Cube(param) => param.shape().to_vec(),
            Self::Hypercube(param) => param.shape().to_vec(),
        }
    }

    /// Its values, row by row.
    pub(crate) fn values(&self) -> Vec<f32> {
        let data = match self {
            Self::Vector(param) => param.val().without_autodiff().into_data(),
            Self::Matrix(param) => param.val().without_autodiff().into_data(),
            Self::Cube(param) => param.val().without_autodiff().into_data(),
            Self::Hypercube(param) => param.val().without_autodiff().into_data(),
        };
        data.convert::<f32>().try_to_vec().expect("the data was converted to f32")
    }

    /// Its values, for a file.
    pub fn data(&self) -> TensorData<'static> {
        match self {
            Self::Vector(param) => TensorData::from_tensor(param.val().without_autodiff()),
            Self::Matrix(param) => TensorData::from_tensor(param.val().without_autodiff()),
            Self::Cube(param) => TensorData::from_tensor(param.val().without_autodiff()),
            Self::Hypercube(param) => TensorData::from_tensor(param.val().without_autodiff()),
        }
    }
}

impl<'a> From<&'a Param<Tensor<1>>> for ParamRef<'a> {
    fn from(param: &'a Param<Tensor<1>>) -> Self {
        Self::Vector(param)
    }
}

impl<'a> From<&'a Param<Tensor<2>>> for ParamRef<'a> {
    fn from(param: &'a Param<Tensor<2>>) -> Self {
        Self::Matrix(param)
    }
}

impl<'a> From<&'a Param<Tensor<3>>> for ParamRef<'a> {
    fn from(param: &'a Param<Tensor<3>>) -> Self {
        Self::Cube(param)
    }
}

impl<'a> From<&'a Param<Tensor<4>>> for ParamRef<'a> {
    fn from(param: &'a Param<Tensor<4>>) -> Self {
        Self::Hypercube(param)
    }
}
