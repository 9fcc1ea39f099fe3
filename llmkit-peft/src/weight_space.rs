use burn::tensor::{DType, Tensor};
use llmkit_core::nn::LayerMut;

use crate::{Result, TunedLayer};

/// A [`TunedLayer`] of a linear layer that is a function of the layer's weight alone, so that it can be worked into the weight, and
/// attach to the weights of [any burn module](crate::reparam).
pub trait WeightSpace: TunedLayer + 'static {
    /// A short name, which is a part of the paths of its parameters in a burn module: `loha`.
    const NAME: &'static str;

    /// The weight with the state worked in, through which gradients reach the state.
    ///
    /// # Shapes
    /// `[out, in]`, both.
    fn weight(&self, base: Tensor<2>, shared: &Self::Shared) -> Tensor<2>;

    /// Whether the state changes the layer's bias as well, or gives it one.
    fn changes_bias(&self, _has_bias: bool) -> bool {
        false
    }
}

/// Puts the weight with the state worked in into a linear layer; computed in `f32` and kept in the weight's own type.
pub(crate) fn replace_weight<L: WeightSpace>(
    tuned: &L,
    layer: LayerMut<'_>,
    shared: &L::Shared,
) -> Result<()> {
    let LayerMut::Linear(linear) = layer else { unreachable!("`accepts` says: linear layers only") };
    let dtype = linear.weight.dtype();
    let merged = tuned.weight(linear.weight.clone().cast(DType::F32), shared).without_autodiff();
    linear.weight = merged.cast(dtype);
    Ok(())
}
