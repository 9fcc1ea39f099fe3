use burn::tensor::Tensor;

use super::Weights;

/// `y = x W^T + b`, with the weight in torch's layout.
#[derive(Debug, Clone)]
pub struct Linear {
    path: String,
    /// `[out, in]`
    pub weight: Tensor<2>,
    /// `[out]`
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// A layer named `path` over tensors that are already there.
    ///
    /// # Shapes
    /// `weight [out, in]`, `bias [out]`.
    pub fn new(path: impl Into<String>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self { path: path.into(), weight, bias }
    }

    /// Reads `weight`, and `bias` where the model has one.
    pub fn load(weights: &Weights<'_>, d_input: usize, d_output: usize, bias: bool) -> Self {
        Self {
            path: weights.path().to_owned(),
            weight: weights.tensor("weight", [d_output, d_input]),
            bias: bias.then(|| weights.tensor("bias", [d_output])),
        }
    }

    pub(super) fn path_mut(&mut self) -> &mut String {
        &mut self.path
    }

    /// The layer's name in the checkpoint, such as `model.layers.0.self_attn.q_proj`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The length of the vectors that the layer reads.
    pub fn d_input(&self) -> usize {
        self.weight.dims()[1]
    }

    /// The length of the vectors that the layer writes.
    pub fn d_output(&self) -> usize {
        self.weight.dims()[0]
    }

    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    ///
    /// # Panics
    /// If the last dimension of `input` is not `in`.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let output = matmul_transposed(input, self.weight.clone());
        match &self.bias {
            Some(bias) => output + bias.clone().unsqueeze(),
            None => output,
        }
    }
}

/// `x W^T` for a weight in torch's layout.
///
/// # Shapes
/// `x [batch, seq, in]`, `weight [out, in]`, result `[batch, seq, out]`.
///
/// # Panics
/// If the two `in` differ.
pub fn matmul_transposed(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    let [batch, seq, d_input] = x.dims();
    let [d_output, expected] = weight.dims();
    assert_eq!(
        d_input, expected,
        "linear layer of weight [{d_output}, {expected}] fed with [{batch}, {seq}, {d_input}]"
    );
    // Folded to two dimensions: a broadcast batched product would read the weight once for each row of the batch.
    x.reshape([batch * seq, d_input]).matmul(weight.transpose()).reshape([batch, seq, d_output])
}
