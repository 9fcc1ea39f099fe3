//! The fused operations against torch and transformers; `scripts/make_kernel_fixtures.py` made the values.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Int, Tensor, TensorData};
use llmkit_core::kernels::{
    AttentionOptions, LoraFactors, attention, cross_entropy, lora_linear, rms_norm, rope, swiglu,
};
use safetensors::SafeTensors;

const FIXTURE: &[u8] = include_bytes!("fixtures/kernels.safetensors");

fn stored<const D: usize>(operation: &str, name: &str) -> Tensor<D> {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    let view = file.tensor(&format!("{operation}.{name}")).unwrap();
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
    Tensor::from_data(TensorData::new(values, view.shape().to_vec()), &Device::flex())
}

fn leaf<const D: usize>(operation: &str, name: &str) -> Tensor<D> {
    Tensor::from_inner(stored(operation, name)).require_grad()
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

#[track_caller]
fn assert_close<const D: usize>(what: &str, found: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    for (index, (found, expected)) in values(found).into_iter().zip(values(expected)).enumerate() {
        let allowed = 1e-5 * expected.abs().max(1.0);
        assert!((found - expected).abs() <= allowed, "{what}, element {index}: {found}, expected {expected}");
    }
}

/// Compares the output and the gradients of the leaves.
#[track_caller]
fn check<const D: usize, const E: usize>(operation: &str, output: Tensor<E>, leaves: &[(&str, &Tensor<D>)]) {
    assert_close(operation, output.clone().inner(), stored(operation, "output"));
    let weights = Tensor::from_inner(stored(operation, "out_grad"));
    let grads = (output * weights).sum().backward();
    for (name, leaf) in leaves {
        let name = format!("grad.{name}");
        assert_close(&name, leaf.grad(&grads).unwrap(), stored(operation, &name));
    }
}

#[test]
fn rms_norm_is_that_of_llama() {
    let (x, weight) = (leaf("rms_norm", "x"), leaf("rms_norm", "weight"));
    check("rms_norm", rms_norm(x.clone(), weight.clone(), 1e-5), &[("x", &x)]);
    check("rms_norm", rms_norm(x, weight.clone(), 1e-5), &[("weight", &weight)]);
}

#[test]
fn rope_is_that_of_llama() {
    let x = leaf("rope", "x");
    check(
        "rope",
        rope(x.clone(), stored::<2>("rope", "cos").unsqueeze(), stored::<2>("rope", "sin").unsqueeze()),
        &[("x", &x)],
    );
}

#[test]
fn swiglu_is_that_of_torch() {
    let (gate, up) = (leaf("swiglu", "gate"), leaf("swiglu", "up"));
    check("swiglu", swiglu(gate.clone(), up.clone()), &[("gate", &gate), ("up", &up)]);
}

#[test]
fn attention_is_that_of_torch() {
    for (name, causal) in [("attention_causal", true), ("attention_full", false), ("attention_decode", true)]
    {
        let (q, k, v) = (leaf(name, "q"), leaf(name, "k"), leaf(name, "v"));
        let output = attention(
            q.clone(),
            k.clone(),
            v.clone(),
            if causal { AttentionOptions::causal(0.3) } else { AttentionOptions::new(0.3) },
        );
        check(name, output, &[("q", &q), ("k", &k), ("v", &v)]);
    }
}

#[test]
fn cross_entropy_is_that_of_torch() {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    let targets: Vec<i64> =
        bytemuck::pod_collect_to_vec(file.tensor("cross_entropy.targets").unwrap().data());
    let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &Device::flex());
    let logits = leaf("cross_entropy", "logits");
    check("cross_entropy", cross_entropy(logits.clone(), targets), &[("logits", &logits)]);
}

#[test]
fn lora_linear_is_that_of_torch() {
    let name = "lora_linear";
    let (x, a, b) = (leaf(name, "x"), leaf(name, "a"), leaf(name, "b"));
    let run = || {
        lora_linear(x.clone(), stored(name, "weight"), LoraFactors { a: a.clone(), b: b.clone(), scale: 1.7 })
    };
    check(name, run(), &[("x", &x)]);
    check(name, run(), &[("a", &a), ("b", &b)]);
}
