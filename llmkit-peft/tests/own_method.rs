//! A method that llmkit doesn't have, written from outside: scale and shift (Lian et al. 2022, <https://arxiv.org/abs/2210.08823>).
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use common::base;
use common::method::{Promises, check_method};
use llmkit_core::checkpoint::TensorSource;
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear};
use llmkit_peft::{
    Attach, Dropout, Error, LayerMethod, MethodConfig, Named, Result, Scope, Targets, TunedLayer,
};
use serde::{Deserialize, Serialize};

/// What a linear layer gives, times `scale` and plus `shift`.
type ScaleAndShift = LayerMethod<Ssf>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SsfConfig {
    #[serde(flatten)]
    scope: Scope,
    with_shift: bool,
}

impl MethodConfig for SsfConfig {
    const PEFT_TYPE: &'static str = "SSF";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &[];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    fn validate(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

#[derive(Module, Debug)]
struct Ssf {
    /// `[out]`, both
    scale: Param<Tensor<1>>,
    shift: Option<Param<Tensor<1>>>,
    #[module(skip)]
    path: String,
}

impl TunedLayer for Ssf {
    type Config = SsfConfig;
    type Shared = ();

    fn shared(_: &dyn Model, _: &SsfConfig, _: u64, _: Option<&dyn TensorSource>) -> Result<()> {
        Ok(())
    }

    fn attach(layer: Layer<'_>, config: &SsfConfig, attach: &Attach<'_, ()>) -> Result<Self> {
        let Layer::Linear(linear) = layer else { unreachable!("only linear layers are accepted") };
        let width = [linear.d_output()];
        Ok(Self {
            scale: Param::from_tensor(Tensor::ones(width, attach.device)),
            shift: config.with_shift.then(|| Param::from_tensor(Tensor::zeros(width, attach.device))),
            path: layer.path().to_owned(),
        })
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _: &(), _: Option<Dropout>) -> Tensor<3> {
        let scaled = base.forward(input) * self.scale.val().unsqueeze();
        match &self.shift {
            Some(shift) => scaled + shift.val().unsqueeze(),
            None => scaled,
        }
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        let shift = self.shift.as_ref().map(|shift| Named::new("ssf_shift", shift));
        [Named::new("ssf_scale", &self.scale)].into_iter().chain(shift).collect()
    }

    fn merge(&self, layer: LayerMut<'_>, _: &()) -> Result<()> {
        let LayerMut::Linear(linear) = layer else { unreachable!("only linear layers are accepted") };
        let scale = self.scale.val().without_autodiff();
        linear.weight = linear.weight.clone() * scale.clone().unsqueeze_dim(1);
        let bias = linear.bias.take().map(|bias| bias * scale);
        let shift = self.shift.as_ref().map(|shift| shift.val().without_autodiff());
        linear.bias = match (bias, shift) {
            (Some(bias), Some(shift)) => Some(bias + shift),
            (bias, shift) => bias.or(shift),
        };
        Ok(())
    }
}

fn config(with_shift: bool) -> SsfConfig {
    SsfConfig { scope: Scope::new(Targets::AllLinear).with_modules_to_save(["norm"]), with_shift }
}

#[test]
fn a_method_from_outside_gets_everything_that_the_others_have() {
    // With and without biases of the model's own.
    for name in ["gqa-tied", "head-dim-bias"] {
        let model = base(name);
        for with_shift in [false, true] {
            check_method(
                &model,
                Promises::default(),
                || ScaleAndShift::new(model.as_ref(), config(with_shift), 0).unwrap(),
                |folder| ScaleAndShift::load(model.as_ref(), folder).unwrap(),
            );
        }
    }
}

#[test]
fn its_files_are_as_strict_as_the_others() {
    let model = base("gqa-tied");
    let folder = tempfile::tempdir().unwrap();
    let adapter = ScaleAndShift::new(model.as_ref(), config(true), 0).unwrap();
    llmkit_peft::Method::save(&adapter, folder.path()).unwrap();
    let path = folder.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"with_shift\": true", "\"with_shift\": false")).unwrap();
    let Err(Error::Adapter { unexpected, .. }) = ScaleAndShift::load(model.as_ref(), folder.path()) else {
        panic!("a file with tensors that have no place was read");
    };
    assert!(unexpected.iter().all(|key| key.ends_with("ssf_shift")), "{unexpected:?}");
    std::fs::write(&path, text.replace("\"SSF\"", "\"LORA\"")).unwrap();
    let error = ScaleAndShift::load(model.as_ref(), folder.path()).unwrap_err().to_string();
    assert!(error.contains("peft_type") && error.contains("SSF"), "{error}");
}
