use burn::tensor::Tensor;

use crate::adapter::Adapter;
use crate::nn::{Activation, Layer, LayerMut, Linear, Norm, NormConfig, Weights};

/// `norm(activation(dense(x)))`, which prepares an encoder's vectors for a head's last layer.
#[derive(Debug, Clone)]
pub(in crate::models) struct Transform {
    /// `[hidden, hidden]`
    dense: Linear,
    activation: Activation,
    norm: Option<Norm>,
}

impl Transform {
    /// Reads the dense layer.
    pub(in crate::models) fn load(
        weights: &Weights<'_>,
        width: usize,
        bias: bool,
        activation: Activation,
    ) -> Self {
        Self { dense: Linear::load(weights, width, width, bias), activation, norm: None }
    }

    /// A layer that is already there.
    pub(super) fn new(dense: Linear, activation: Activation, norm: Option<Norm>) -> Self {
        Self { dense, activation, norm }
    }

    /// Reads the normalisation.
    pub(in crate::models) fn with_norm(mut self, weights: &Weights<'_>, config: NormConfig) -> Self {
        self.norm = Some(Norm::load(weights, self.dense.d_output(), config));
        self
    }

    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    pub(super) fn forward(&self, hidden: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        let output = self.activation.apply(adapter.linear(&self.dense, hidden));
        match &self.norm {
            Some(norm) => adapter.norm(norm, output),
            None => output,
        }
    }

    pub(super) fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        see(Layer::Linear(&self.dense));
        if let Some(norm) = &self.norm {
            see(Layer::Norm(norm));
        }
    }

    pub(super) fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>) -> bool) {
        edit(LayerMut::Linear(&mut self.dense));
        if let Some(norm) = &mut self.norm {
            edit(LayerMut::Norm(norm));
        }
    }
}
