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
    /// `function(linear(x))`, plus `x` or its projection where there is a residual.
    Dense { linear: Linear, function: Function, residual: Residual },
    /// Only the first components stay.
    Truncate(usize),
}

/// What a dense step adds to its output.
#[derive(Debug, Clone)]
pub(super) enum Residual {
    /// Nothing.
    None,
    /// Its input.
    Input,
    /// A projection of its input.
    Projection(Linear),
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
        let use_residual = json.flag_or("use_residual", false)?;
        Weights::load(&Safetensors::open(folder)?, device, |weights| {
            let residual = match use_residual {
                false => Residual::None,
                true if d_input == d_output => Residual::Input,
                true => Residual::Projection(Linear::load(&weights.at("residual"), d_input, d_output, false)),
            };
            let linear = Linear::load(&weights.at("linear"), d_input, d_output, bias);
            Self::Dense { linear, function, residual }
        })
    }

    /// The length of its vectors, for vectors of `width` before it.
    pub(super) fn width(&self, width: usize) -> usize {
        match self {
            Self::Normalize => width,
            Self::Dense { linear, .. } => linear.d_output(),
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
            Self::Dense { linear, function, residual } => {
                let apply = |linear, x: Tensor<2>| adapter.linear(linear, x.unsqueeze_dim(1)).squeeze_dim(1);
                let output = function.apply(apply(linear, x.clone()));
                match residual {
                    Residual::None => output,
                    Residual::Input => output + x,
                    Residual::Projection(linear) => output + apply(linear, x),
                }
            }
        }
    }
}
