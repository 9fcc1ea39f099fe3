//! Attention on the CPU: blocks of queries against all keys that any of them sees, so that a block's scores stay in the cache and
//! those above the diagonal are not computed.

mod backward;
mod decode;
mod forward;
mod view;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::super::cpu::all_f32;
use super::{AttentionKernel, InputGrads, Inputs, Outputs, Wanted, primitive};
use view::{Dims, View, strided};

impl AttentionKernel for Flex {
    fn forward(inputs: Inputs<Self>) -> Outputs<Self> {
        let dims = Dims::of(&inputs);
        if dims.is_empty() || !all_f32([&inputs.q, &inputs.k, &inputs.v]) {
            return primitive::forward::<Self>(inputs);
        }
        let [q, k, v] = [inputs.q, inputs.k, inputs.v].map(strided);
        let [q, k, v] = [View::new(&q), View::new(&k), View::new(&v)];
        if dims.t == 1 { decode::forward(&dims, q, k, v) } else { forward::forward(&dims, q, k, v) }
    }

    fn backward(
        inputs: Inputs<Self>,
        outputs: Outputs<Self>,
        grad: FlexTensor,
        wanted: Wanted,
    ) -> InputGrads<Self> {
        let dims = Dims::of(&inputs);
        if dims.is_empty()
            || !all_f32([&inputs.q, &inputs.k, &inputs.v, &outputs.output, &outputs.log_sum, &grad])
        {
            return primitive::backward::<Self>(inputs, outputs, grad, wanted);
        }
        backward::backward(&dims, inputs, outputs, grad, wanted)
    }
}
