use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};

use crate::dropout::derive;

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

/// Equal for parameters of equal names and values, in this order, and otherwise almost never.
pub(crate) fn fingerprint<M: Module>(module: &M, names: Vec<(ParamId, String)>) -> u64 {
    struct Hashes(BTreeMap<ParamId, u64>);
    impl ModuleVisitor for Hashes {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values =
                param.val().without_autodiff().try_into_vec_as::<f32>().expect("parameters are numbers");
            let hash = values
                .iter()
                .fold(values.len() as u64, |hash, value| derive(hash, u64::from(value.to_bits())));
            self.0.insert(param.id, hash);
        }
    }
    let mut hashes = Hashes(BTreeMap::new());
    module.visit(&mut hashes);
    names.iter().fold(names.len() as u64, |hash, (id, name)| {
        let hash = name.bytes().fold(hash, |hash, byte| derive(hash, u64::from(byte)));
        derive(hash, hashes.0.get(id).copied().unwrap_or_default())
    })
}
