//! Backpropagation through any stack of blocks, with everything kept or one block at a time.

use burn::tensor::Tensor;
use llmkit_core::Adapter;

use super::{Gradients, Recompute};
use crate::PeftModule;

/// A model that reads one batch: an embedding, blocks, and a head that gives a loss.
pub(super) trait Pass {
    /// What the blocks need to know beside their input, such as positions.
    type Context;

    /// # Shapes
    /// `[batch, seq, hidden]`
    fn embed(&self, adapter: &dyn Adapter) -> (Tensor<3>, Self::Context);

    fn num_blocks(&self) -> usize;

    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    fn block(
        &self,
        index: usize,
        hidden: Tensor<3>,
        context: &Self::Context,
        adapter: &dyn Adapter,
    ) -> Tensor<3>;

    /// The loss, summed, and its gradient with respect to the last block's output; that of the head's parameters goes to `gradients`.
    ///
    /// # Shapes
    /// `hidden [batch, seq, hidden]`, without autodiff; the gradient has the same shape.
    fn head_backward<A: PeftModule>(
        &self,
        adapter: &A,
        hidden: &Tensor<3>,
        context: &Self::Context,
        gradients: &mut Gradients,
    ) -> (f64, Tensor<3>);
}

/// The last block's output.
pub(super) fn forward<P: Pass>(pass: &P, adapter: &dyn Adapter) -> (Tensor<3>, P::Context) {
    let (hidden, context) = pass.embed(adapter);
    let hidden =
        (0..pass.num_blocks()).fold(hidden, |hidden, index| pass.block(index, hidden, &context, adapter));
    (hidden, context)
}

/// The loss, summed, and its gradients.
pub(super) fn backward<P: Pass, A: PeftModule>(
    pass: &P,
    adapter: &A,
    recompute: Recompute,
) -> (f64, Gradients) {
    match recompute {
        Recompute::Off => ordinary(pass, adapter),
        Recompute::Blocks => recomputing(pass, adapter),
    }
}

fn ordinary<P: Pass, A: PeftModule>(pass: &P, adapter: &A) -> (f64, Gradients) {
    let mut gradients = Gradients::new();
    let (hidden, context) = forward(pass, adapter);
    let detached = hidden.clone().without_autodiff();
    let (loss_sum, from_head) = pass.head_backward(adapter, &detached, &context, &mut gradients);
    if hidden.is_tracked() {
        gradients.accumulate(adapter, (hidden * from_head).sum().backward());
    }
    (loss_sum, gradients)
}

fn recomputing<P: Pass, A: PeftModule>(pass: &P, adapter: &A) -> (f64, Gradients) {
    let mut gradients = Gradients::new();
    let frozen = adapter.valid();

    let (mut hidden, context) = pass.embed(&frozen);
    let mut inputs = Vec::with_capacity(pass.num_blocks());
    for index in 0..pass.num_blocks() {
        inputs.push(hidden.clone());
        hidden = pass.block(index, hidden, &context, &frozen);
    }

    let (loss_sum, mut gradient) = pass.head_backward(adapter, &hidden, &context, &mut gradients);
    drop(hidden);
    for (index, input) in inputs.into_iter().enumerate().rev() {
        let input = Tensor::from_inner(input).require_grad();
        let output = pass.block(index, input.clone(), &context, adapter);
        let mut tape = (output * gradient).sum().backward();
        gradient = input.grad_remove(&mut tape).expect("a block's output depends on its input");
        gradients.accumulate(adapter, tape);
    }
    let (embedded, _) = pass.embed(adapter);
    if embedded.is_tracked() {
        gradients.accumulate(adapter, (embedded * gradient).sum().backward());
    }
    (loss_sum, gradients)
}
