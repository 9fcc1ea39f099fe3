use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};

/// Gives parameters new values, found by their id, and leaves the others alone.
///
/// # Panics
/// If a value has another length than its parameter.
pub(crate) fn replace<M: Module>(module: M, values: BTreeMap<ParamId, Vec<f32>>) -> M {
    module.map(&mut Replace(values))
}

struct Replace(BTreeMap<ParamId, Vec<f32>>);

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.0.remove(&param.id) else { return param };
        param.map(|old| {
            let require_grad = old.is_require_grad();
            let new = Tensor::from_data(TensorData::new(values, old.shape()), &old.device());
            new.set_require_grad(require_grad)
        })
    }
}

/// The ids of all float parameters, with their number of elements, in the module's order.
pub(crate) fn sizes<M: Module>(module: &M) -> Vec<(ParamId, usize)> {
    struct Sizes(Vec<(ParamId, usize)>);
    impl ModuleVisitor for Sizes {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push((param.id, param.shape().num_elements()));
        }
    }
    let mut sizes = Sizes(Vec::new());
    module.visit(&mut sizes);
    sizes.0
}
