use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients as Tape, Tensor};

/// The gradients of a module's parameters, each flattened, by parameter.
#[derive(Debug, Clone, Default)]
pub struct Gradients {
    by_id: BTreeMap<ParamId, Tensor<1>>,
}

impl Gradients {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what one backward pass found for the parameters of `module`.
    pub fn accumulate<M: Module>(&mut self, module: &M, mut tape: Tape) {
        module.visit(&mut Collect { into: self, tape: &mut tape });
    }

    /// Adds `gradient` to that of the parameter `id`.
    pub fn add(&mut self, id: ParamId, gradient: Tensor<1>) {
        let sum = match self.by_id.remove(&id) {
            Some(before) => before + gradient,
            None => gradient,
        };
        self.by_id.insert(id, sum);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        for (id, gradient) in other.by_id {
            self.add(id, gradient);
        }
    }

    /// The gradient of the parameter `id`, flattened.
    pub fn get(&self, id: ParamId) -> Option<&Tensor<1>> {
        self.by_id.get(&id)
    }

    /// Multiplies every gradient.
    pub fn scale(&mut self, factor: f64) {
        for gradient in self.by_id.values_mut() {
            gradient.inplace(|gradient| gradient * factor);
        }
    }

    /// The Euclidean length of all gradients taken as one vector.
    pub fn global_norm(&self) -> f64 {
        let squares: Vec<Tensor<1>> =
            self.by_id.values().map(|gradient| gradient.clone().square().sum()).collect();
        if squares.is_empty() {
            return 0.0;
        }
        // Summed on the host in double precision: one transfer, and the same order everywhere.
        let squares = Tensor::cat(squares, 0).into_data_as::<f32>();
        squares.iter::<f32>().map(f64::from).sum::<f64>().sqrt()
    }

    /// Shortens the gradients, all by one factor, so that their global norm is at most `max_norm`, as torch's `clip_grad_norm_` does.
    /// Gives the norm from before.
    pub fn clip_global_norm(&mut self, max_norm: f64) -> f64 {
        let norm = self.global_norm();
        // torch adds the same epsilon.
        let factor = max_norm / (norm + 1e-6);
        if factor < 1.0 {
            self.scale(factor);
        }
        norm
    }
}

struct Collect<'a> {
    into: &'a mut Gradients,
    tape: &'a mut Tape,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(self.tape) {
            let len = gradient.shape().num_elements();
            self.into.add(param.id, gradient.reshape([len]));
        }
    }
}
