use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::Tensor;
use llmkit_core::kernels::{AdamwState, AdamwStep, adamw};
use serde::{Deserialize, Serialize};

use super::Gradients;

/// The settings of [`AdamW`]; the defaults are torch's, but for the weight decay, which is transformers'.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// How much of the mean gradient stays from step to step; default 0.9.
    pub beta1: f64,
    /// How much of the mean squared gradient stays; default 0.999.
    pub beta2: f64,
    /// Added to the root of the mean square; default 1e-8.
    pub eps: f64,
    /// The share of a parameter that decays at each step, times the learning rate; default 0.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019), in torch's order of operations.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    steps: usize,
    moments: BTreeMap<ParamId, Moments>,
}

/// The running means of one parameter's gradient and its square, flattened.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    pub(crate) mean: Tensor<1>,
    pub(crate) mean_square: Tensor<1>,
}

impl AdamW {
    /// An optimizer that has made no step.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, steps: 0, moments: BTreeMap::new() }
    }

    /// Steps made.
    pub fn steps(&self) -> usize {
        self.steps
    }

    pub(crate) fn moments(&self) -> &BTreeMap<ParamId, Moments> {
        &self.moments
    }

    pub(crate) fn restore(config: AdamWConfig, steps: usize, moments: BTreeMap<ParamId, Moments>) -> Self {
        Self { config, steps, moments }
    }

    /// Counts a step in which nothing moves.
    pub fn skip(&mut self) {
        self.steps += 1;
    }

    /// Moves the parameters of `module` against their gradients. A parameter without a gradient stays as it is.
    pub fn step<M: Module>(&mut self, module: M, gradients: &Gradients, learning_rate: f64) -> M {
        self.step_at(module, gradients, learning_rate, &BTreeMap::new())
    }

    /// The same, where a parameter that `factors` names moves at so many times the learning rate.
    pub fn step_at<M: Module>(
        &mut self,
        module: M,
        gradients: &Gradients,
        learning_rate: f64,
        factors: &BTreeMap<ParamId, f64>,
    ) -> M {
        self.steps += 1;
        module.map(&mut Step { optimizer: self, gradients, learning_rate, factors })
    }

    fn update(
        &mut self,
        id: ParamId,
        value: Tensor<1>,
        gradient: Tensor<1>,
        learning_rate: f64,
    ) -> Tensor<1> {
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let Moments { mean, mean_square } = self.moments.remove(&id).unwrap_or_else(|| {
            let zeros = Tensor::zeros_like(&gradient);
            Moments { mean: zeros.clone(), mean_square: zeros }
        });
        let step = AdamwStep {
            beta1,
            beta2,
            eps,
            rate: learning_rate / (1.0 - beta1.powi(self.steps as i32)),
            correction: (1.0 - beta2.powi(self.steps as i32)).sqrt(),
            decay: 1.0 - learning_rate * weight_decay,
        };
        let AdamwState { value, mean, mean_square } =
            adamw(AdamwState { value, mean, mean_square }, gradient, step);
        self.moments.insert(id, Moments { mean, mean_square });
        value
    }
}

struct Step<'a> {
    optimizer: &'a mut AdamW,
    gradients: &'a Gradients,
    learning_rate: f64,
    factors: &'a BTreeMap<ParamId, f64>,
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.get(param.id).cloned() else { return param };
        let id = param.id;
        let learning_rate = self.learning_rate * self.factors.get(&id).copied().unwrap_or(1.0);
        param.map(|old| {
            let shape = old.shape();
            let (autodiff, require_grad) = (old.is_autodiff(), old.is_require_grad());
            let flat = old.without_autodiff().reshape([shape.num_elements()]);
            let new: Tensor<D> = self.optimizer.update(id, flat, gradient, learning_rate).reshape(shape);
            if autodiff { Tensor::from_inner(new).set_require_grad(require_grad) } else { new }
        })
    }
}
