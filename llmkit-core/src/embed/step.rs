use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::Function;
use super::folder::Json;
use crate::checkpoint::Safetensors;
use crate::nn::{Linear, Weights};
use crate::{Adapter, Result};

/// What happens to a text's vector after pooling.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Its length becomes 1.
    Normalize,
    /// A layer.
    Dense(Box<Dense>),
    /// Only the first components stay.
    Truncate(usize),
}

/// `function(linear(x))`, plus `x` or its projection where there is a residual.
#[derive(Debug, Clone)]
pub(super) struct Dense {
    pub(super) linear: Linear,
    function: Function,
    /// Whether the input, or its projection, is added to the output.
    residual: bool,
    projection: Option<Linear>,
}

impl Step {
    /// Reads a module `Dense` from its folder, for vectors of `width`.
    pub(super) fn read_dense(folder: &Path, width: usize, device: &Device) -> Result<Self> {
        let json = Json::read(folder.join("config.json"), "fetch the model's folder completely")?;
        for field in ["module_input_name", "module_output_name"] {
            match json.text(field)? {
                None | Some("sentence_embedding") => {}
                Some(other) => return Err(json.wrong(field, "\"sentence_embedding\"", other)),
            }
        }
        let size =
            |field: &str| json.size(field)?.ok_or_else(|| json.wrong(field, "a positive integer", "nothing"));
        let (d_input, d_output) = (size("in_features")?, size("out_features")?);
        if d_input != width {
            let expected = format!("{width}, the length of the vectors before it");
            return Err(json.wrong("in_features", &expected, d_input));
        }
        let function = match json.text("activation_function")? {
            None => Function::Tanh,
            Some(name) => {
                Function::named(name).ok_or_else(|| Function::unknown(&json, "activation_function", name))?
            }
        };
        let bias = json.flag_or("bias", true)?;
        let residual = json.flag_or("use_residual", false)?;
        Weights::load(&Safetensors::open(folder)?, device, |weights| {
            let projection = (residual && d_input != d_output)
                .then(|| Linear::load(&weights.at("residual"), d_input, d_output, false));
            let linear = Linear::load(&weights.at("linear"), d_input, d_output, bias);
            Self::Dense(Box::new(Dense { linear, function, residual, projection }))
        })
    }

    /// The length of its vectors, for vectors of `width` before it.
    pub(super) fn width(&self, width: usize) -> usize {
        match self {
            Self::Normalize => width,
            Self::Dense(dense) => dense.linear.d_output(),
            Self::Truncate(kept) => width.min(*kept),
        }
    }

    /// # Shapes
    /// `[batch, width]` to `[batch, another]`.
    pub(super) fn forward(&self, x: Tensor<2>, adapter: &dyn Adapter) -> Tensor<2> {
        match self {
            Self::Truncate(kept) => {
                let [_, width] = x.dims();
                x.narrow(1, 0, width.min(*kept))
            }
            Self::Normalize => {
                // As torch's `normalize`: a vector of zeros stays one.
                let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
                x / length
            }
            Self::Dense(dense) => dense.forward(x, adapter),
        }
    }
}

impl Dense {
    fn forward(&self, x: Tensor<2>, adapter: &dyn Adapter) -> Tensor<2> {
        let apply = |linear, x: Tensor<2>| adapter.linear(linear, x.unsqueeze_dim(1)).squeeze_dim(1);
        let output = self.function.apply(apply(&self.linear, x.clone()));
        match (&self.projection, self.residual) {
            (Some(projection), _) => output + apply(projection, x),
            (None, true) => output + x,
            (None, false) => output,
        }
    }
}
