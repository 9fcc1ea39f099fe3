//! The fused operations against compositions of burn's own, against finite differences, and against themselves.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used)]

use std::cell::Cell;

use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use llmkit_core::kernels::{
    AttentionOptions, LoraFactors, Row, attention, cross_entropy, gelu, layer_norm, lora_linear, rms_norm,
    rope, swiglu,
};

const EPS: f64 = 1e-3;

fn cpu() -> Device {
    Device::flex()
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(1) };
}

/// Values of mean 0 and variance 1, different at each call and the same in each run of a test.
fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let uniform = || {
        SEED.set(SEED.get().wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
        (SEED.get() >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| (uniform() + uniform() + uniform() + uniform()) * 3.0f32.sqrt())
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &cpu())
}

fn tracked<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.clone()).require_grad()
}

fn values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data().convert::<f32>().try_to_vec().unwrap()
}

fn bits<const D: usize>(x: &Tensor<D>) -> Vec<u32> {
    values(x).iter().map(|value| value.to_bits()).collect()
}

/// A constant on the device of `x`.
fn beside<const D: usize, const E: usize>(constant: &Tensor<D>, x: &Tensor<E>) -> Tensor<D> {
    if x.device() == cpu() { constant.clone() } else { Tensor::from_inner(constant.clone()) }
}

/// A constant of the type of `x`, but on the plain device, wherever `x` is.
fn like<const D: usize, const E: usize>(constant: &Tensor<D>, x: &Tensor<E>) -> Tensor<D> {
    constant.clone().cast(x.dtype())
}

/// The absolute error may be `tolerance` times the largest expected value, or `tolerance` if all are below 1.
#[track_caller]
fn assert_close<const D: usize>(found: &Tensor<D>, expected: &Tensor<D>, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(difference <= tolerance * largest, "element {index}: found {found}, expected {expected}");
    }
}

/// The output of `operation`, and the gradients of `sum(output * weights)` with respect to the inputs.
fn run<const D: usize, const N: usize, const E: usize>(
    inputs: &[Tensor<D>; N],
    weights: &Tensor<E>,
    operation: impl Fn(&[Tensor<D>; N]) -> Tensor<E>,
) -> (Tensor<E>, [Tensor<D>; N]) {
    let leaves = inputs.each_ref().map(tracked);
    let output = operation(&leaves);
    let grads = (output.clone() * Tensor::from_inner(weights.clone())).sum().backward();
    (output.inner(), leaves.each_ref().map(|leaf| leaf.grad(&grads).expect("every leaf has a gradient")))
}

/// Compares values and gradients of two operations on the same inputs, and those of `fused` with themselves.
#[track_caller]
fn assert_same<const D: usize, const N: usize, const E: usize>(
    inputs: [Tensor<D>; N],
    fused: impl Fn(&[Tensor<D>; N]) -> Tensor<E>,
    reference: impl Fn(&[Tensor<D>; N]) -> Tensor<E>,
) {
    let weights = random(reference(&inputs).dims());
    let (found, found_grads) = run(&inputs, &weights, &fused);
    let (expected, expected_grads) = run(&inputs, &weights, &reference);
    assert_close(&found, &expected, 2e-5);
    for (found, expected) in found_grads.iter().zip(&expected_grads) {
        assert_close(found, expected, 5e-5);
    }
    assert_close(&fused(&inputs), &expected, 2e-5);
    // Types other than f32 take the composed body.
    for (dtype, tolerance) in [(DType::F64, 5e-5), (DType::F16, 3e-2)] {
        let inputs = inputs.each_ref().map(|input| input.clone().cast(dtype));
        let (found, found_grads) = run(&inputs, &weights, |inputs| fused(inputs).cast(DType::F32));
        assert_close(&found, &expected, tolerance);
        for (found, expected) in found_grads.iter().zip(&expected_grads) {
            assert_eq!(found.dtype(), dtype);
            assert_close(found, expected, tolerance);
        }
    }
    let again = run(&inputs, &weights, &fused);
    assert_eq!(bits(&found), bits(&again.0), "values differ from run to run");
    for (first, second) in found_grads.iter().zip(&again.1) {
        assert_eq!(bits(first), bits(second), "gradients differ from run to run");
    }
}

/// Compares gradients with central differences at every element.
#[track_caller]
fn assert_differences<const D: usize, const N: usize, const E: usize>(
    inputs: [Tensor<D>; N],
    operation: impl Fn(&[Tensor<D>; N]) -> Tensor<E>,
) {
    const STEP: f32 = 1e-2;
    let weights = random(operation(&inputs).dims());
    let (_, grads) = run(&inputs, &weights, &operation);
    let loss = |inputs: &[Tensor<D>; N]| -> f64 {
        let output = values(&operation(inputs));
        output.iter().zip(values(&weights)).map(|(&a, b)| f64::from(a) * f64::from(b)).sum()
    };
    for (which, grad) in grads.iter().enumerate() {
        for (index, &grad) in values(grad).iter().enumerate() {
            let moved = |step: f32| {
                let mut inputs = inputs.clone();
                let mut elements = values(&inputs[which]);
                elements[index] += step;
                inputs[which] = Tensor::from_data(TensorData::new(elements, inputs[which].dims()), &cpu());
                loss(&inputs)
            };
            let slope = ((moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP)) as f32;
            assert!(
                (grad - slope).abs() < 5e-3 * slope.abs().max(1.0),
                "input {which}, element {index}: gradient {grad}, difference quotient {slope}"
            );
        }
    }
}

fn plain_rms_norm(x: Tensor<3>, weight: Tensor<1>) -> Tensor<3> {
    let scale = (x.clone().powf_scalar(2.0).mean_dim(2) + EPS).sqrt();
    x / scale * weight.unsqueeze::<3>()
}

fn plain_layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().powf_scalar(2.0).mean_dim(2);
    centred / (variance + EPS).sqrt() * weight.unsqueeze::<3>() + bias.unsqueeze::<3>()
}

fn plain_rope(x: Tensor<4>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
    let [_, seq, _, dim] = x.dims();
    let wide = |table: Tensor<3>| Tensor::cat(vec![table.clone(), table], 2).reshape([1, seq, 1, dim]);
    let (low, high) = (x.clone().narrow(3, 0, dim / 2), x.clone().narrow(3, dim / 2, dim / 2));
    x * wide(cos) + Tensor::cat(vec![-high, low], 3) * wide(sin)
}

fn plain_swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    gate.clone() * sigmoid(gate) * up
}

/// Repeats keys and values for each query head, unlike the implementation.
fn plain_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    let ([batch, t, heads, dim], [_, s, kv_heads, _]) = (q.dims(), k.dims());
    let repeat = |x: Tensor<4>| {
        let shape = [batch, s, kv_heads, heads / kv_heads, dim];
        x.unsqueeze_dim::<5>(3).expand(shape).reshape([batch, s, heads, dim]).swap_dims(1, 2)
    };
    let mut scores = q.swap_dims(1, 2).matmul(repeat(k).swap_dims(2, 3)) * options.scale;
    let hidden = |at: usize| {
        let (b, i, j) = (at / (t * s), at / s % t, at % s);
        let row = options.rows.as_ref().map_or(Row { offset: s.saturating_sub(t), keys: s }, |rows| rows[b]);
        let (position, j) = ((row.offset + i) as i64, j as i64);
        let reach = options.window.map_or(1 << 40, |window| window as i64);
        let (before, after) = if options.causal { (reach - 1, 0) } else { (reach, reach) };
        let seen = position - j <= before && j - position <= after;
        // A query beyond all that it could see gets the last key.
        let beyond = position - before >= row.keys as i64;
        let seen = j < row.keys as i64 && (seen || (beyond && j + 1 == row.keys as i64));
        if seen { 0.0 } else { f32::NEG_INFINITY }
    };
    let mask = TensorData::new((0..batch * t * s).map(hidden).collect::<Vec<_>>(), [batch, 1, t, s]);
    let mask = Tensor::from_data(mask, &scores.device());
    scores = scores + mask;
    softmax(scores, 3).matmul(repeat(v)).swap_dims(1, 2)
}

fn plain_cross_entropy(logits: Tensor<2>, targets: &Tensor<1, Int>) -> Tensor<1> {
    let targets = Tensor::<1, Int>::from_data(targets.to_data(), &logits.device());
    -log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1)
}

fn plain_lora_linear(x: Tensor<3>, weight: Tensor<2>, factors: LoraFactors) -> Tensor<3> {
    let LoraFactors { a, b, scale } = factors;
    let merged = weight + b.matmul(a) * scale;
    x.matmul(merged.transpose().unsqueeze())
}

fn targets(rows: usize, vocab: usize) -> Tensor<1, Int> {
    let values: Vec<i64> = (0..rows).map(|row| ((row * 7919 + 3) % vocab) as i64).collect();
    Tensor::from_data(TensorData::new(values, [rows]), &cpu())
}

/// Cosines and sines of random angles.
fn tables(seq: usize, half: usize) -> (Tensor<3>, Tensor<3>) {
    let angles = random([1, seq, half]) * 3.0;
    (angles.clone().cos(), angles.sin())
}

#[test]
fn rms_norm_is_the_composition() {
    for shape in [[1, 1, 8], [2, 3, 17], [3, 17, 64], [2, 129, 576], [1, 1, 1]] {
        let (x, weight) = (random(shape), random([shape[2]]));
        assert_same(
            [x.clone()],
            |[x]| rms_norm(x.clone(), weight.clone(), EPS),
            |[x]| plain_rms_norm(x.clone(), beside(&weight, x)),
        );
        assert_same(
            [weight],
            |[w]| rms_norm(like(&x, w), w.clone(), EPS),
            |[w]| plain_rms_norm(beside(&x, w), w.clone()),
        );
    }
}

#[test]
fn rms_norm_gradients_are_difference_quotients() {
    let (x, weight) = (random([2, 2, 5]), random([5]));
    assert_differences([x.clone()], |[x]| rms_norm(x.clone(), weight.clone(), EPS));
    assert_differences([weight], |[w]| rms_norm(x.clone(), w.clone(), EPS));
}

#[test]
fn layer_norm_is_the_composition() {
    for shape in [[1, 1, 8], [2, 3, 17], [3, 17, 64], [2, 129, 384]] {
        let (x, weight, bias) = (random(shape) + 0.5, random([shape[2]]), random([shape[2]]));
        assert_same(
            [x.clone()],
            |[x]| layer_norm(x.clone(), weight.clone(), bias.clone(), EPS),
            |[x]| plain_layer_norm(x.clone(), beside(&weight, x), beside(&bias, x)),
        );
        assert_same(
            [weight, bias],
            |[w, b]| layer_norm(like(&x, w), w.clone(), b.clone(), EPS),
            |[w, b]| plain_layer_norm(beside(&x, w), w.clone(), b.clone()),
        );
    }
}

#[test]
fn layer_norm_gradients_are_difference_quotients() {
    let (x, weight, bias) = (random([2, 2, 5]), random([5]), random([5]));
    let norm = |x: &Tensor<3>, w: &Tensor<1>, b: &Tensor<1>| layer_norm(x.clone(), w.clone(), b.clone(), EPS);
    assert_differences([x.clone()], |[x]| norm(x, &weight, &bias));
    assert_differences([weight, bias], |[w, b]| norm(&x, w, b));
}

#[test]
fn gelu_is_the_composition() {
    for shape in [[1, 1, 1], [2, 3, 17], [2, 65, 1536]] {
        assert_same(
            [random(shape) * 3.0],
            |[x]| gelu(x.clone()),
            |[x]| burn::tensor::activation::gelu(x.clone()),
        );
    }
}

#[test]
fn gelu_gradients_are_difference_quotients() {
    assert_differences([random([1, 3, 7])], |[x]| gelu(x.clone()));
}

#[test]
fn gelu_at_the_edges() {
    let x = Tensor::<3>::from_data([[[-1e30, -40.0, 0.0, 40.0, 1e30f32]]], &cpu());
    let ones = Tensor::<3>::ones([1, 1, 5], &cpu());
    let (output, [grad]) = run(&[x], &ones, |[x]| gelu(x.clone()));
    assert_eq!(values(&output), [0.0, 0.0, 0.0, 40.0, 1e30]);
    assert_eq!(values(&grad), [0.0, 0.0, 0.5, 1.0, 1.0]);
}

#[test]
fn rope_is_the_composition() {
    for shape in [[1, 1, 1, 2], [2, 3, 3, 8], [2, 17, 9, 64], [3, 129, 3, 64]] {
        let (cos, sin) = tables(shape[1], shape[3] / 2);
        assert_same(
            [random(shape)],
            |[x]| rope(x.clone(), cos.clone(), sin.clone()),
            |[x]| plain_rope(x.clone(), beside(&cos, x), beside(&sin, x)),
        );
    }
}

#[test]
fn rope_turns_back_to_the_input() {
    let (cos, sin) = tables(17, 32);
    let x = random([2, 17, 3, 64]);
    let turned = rope(x.clone(), cos.clone(), sin.clone());
    assert_close(&rope(turned, cos, -sin), &x, 1e-6);
}

#[test]
fn rope_gradients_are_difference_quotients() {
    let (cos, sin) = tables(3, 2);
    assert_differences([random([1, 3, 2, 4])], |[x]| rope(x.clone(), cos.clone(), sin.clone()));
}

#[test]
fn swiglu_is_the_composition() {
    for shape in [[1, 1, 1], [2, 3, 17], [2, 65, 1536]] {
        assert_same(
            [random(shape) * 4.0, random(shape)],
            |[gate, up]| swiglu(gate.clone(), up.clone()),
            |[gate, up]| plain_swiglu(gate.clone(), up.clone()),
        );
    }
}

#[test]
fn swiglu_gradients_are_difference_quotients() {
    assert_differences([random([1, 3, 7]), random([1, 3, 7])], |[gate, up]| swiglu(gate.clone(), up.clone()));
}

#[test]
fn swiglu_of_huge_gates_is_finite() {
    let gate = Tensor::<3>::from_data([[[-1e30, -200.0, 200.0, 1e30f32]]], &cpu());
    let ones = Tensor::<3>::ones([1, 1, 4], &cpu());
    let inputs = [gate, ones.clone()];
    let (output, [grad, _]) = run(&inputs, &ones, |[gate, up]| swiglu(gate.clone(), up.clone()));
    assert_eq!(values(&output), [0.0, 0.0, 200.0, 1e30]);
    assert_eq!(values(&grad), [0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn attention_is_the_composition() {
    for (t, s) in [(1, 1), (3, 3), (17, 17), (1, 37), (17, 40), (65, 65), (130, 150)] {
        for (heads, kv_heads) in [(1, 1), (3, 3), (6, 2), (9, 3)] {
            for (dim, causal) in [(8, true), (8, false), (64, true), (64, false)] {
                let options = if causal { AttentionOptions::causal(0.3) } else { AttentionOptions::new(0.3) };
                let q = random([2, t, heads, dim]);
                let (k, v) = (random([2, s, kv_heads, dim]), random([2, s, kv_heads, dim]));
                assert_same(
                    [q.clone()],
                    |[q]| attention(q.clone(), like(&k, q), like(&v, q), options.clone()),
                    |[q]| plain_attention(q.clone(), beside(&k, q), beside(&v, q), options.clone()),
                );
                assert_same(
                    [k, v],
                    |[k, v]| attention(like(&q, k), k.clone(), v.clone(), options.clone()),
                    |[k, v]| plain_attention(beside(&q, k), k.clone(), v.clone(), options.clone()),
                );
            }
        }
    }
}

#[test]
fn attention_gradients_are_difference_quotients() {
    let options = AttentionOptions::causal(0.5);
    let (q, k, v) = (random([1, 3, 2, 4]), random([1, 5, 1, 4]), random([1, 5, 1, 4]));
    assert_differences([q.clone()], |[q]| attention(q.clone(), k.clone(), v.clone(), options.clone()));
    assert_differences([k, v], |[k, v]| attention(q.clone(), k.clone(), v.clone(), options.clone()));
}

#[test]
fn attention_of_extreme_scores_is_finite() {
    let options = AttentionOptions::causal(1.0);
    let q = random([1, 70, 1, 8]) * 1e4;
    let inputs = [q.clone(), q, random([1, 70, 1, 8])];
    let weights = random([1, 70, 1, 8]);
    let (output, grads) =
        run(&inputs, &weights, |[q, k, v]| attention(q.clone(), k.clone(), v.clone(), options.clone()));
    assert!(values(&output).iter().all(|value| value.is_finite()));
    assert!(grads.iter().flat_map(values).all(|value| value.is_finite()));
}

#[test]
fn decoding_step_by_step_is_causal_attention() {
    let options = AttentionOptions::causal(0.125);
    let (q, k, v) = (random([2, 37, 9, 64]), random([2, 37, 3, 64]), random([2, 37, 3, 64]));
    let whole = attention(q.clone(), k.clone(), v.clone(), options.clone());
    for i in 0..37 {
        // Views into a longer cache.
        let (seen_k, seen_v) = (k.clone().narrow(1, 0, i + 1), v.clone().narrow(1, 0, i + 1));
        let step = attention(q.clone().narrow(1, i, 1), seen_k, seen_v, options.clone());
        assert_close(&step, &whole.clone().narrow(1, i, 1), 2e-6);
    }
}

#[test]
fn cross_entropy_is_the_composition() {
    for (rows, vocab) in [(1, 1), (3, 17), (17, 1000), (5, 49152)] {
        let targets = targets(rows, vocab);
        assert_same(
            [random([rows, vocab]) * 5.0],
            |[logits]| cross_entropy(logits.clone(), targets.clone()),
            |[logits]| plain_cross_entropy(logits.clone(), &targets),
        );
    }
}

#[test]
fn cross_entropy_gradients_are_difference_quotients() {
    let targets = targets(3, 7);
    assert_differences([random([3, 7])], |[logits]| cross_entropy(logits.clone(), targets.clone()));
}

#[test]
fn cross_entropy_gives_rows_of_weight_zero_no_gradient() {
    let logits = tracked(&random([2, 40]));
    let loss = cross_entropy(logits.clone(), targets(2, 40));
    let weights = Tensor::<1>::from_data([0.0, 2.0], &loss.device());
    let grad = logits.grad(&(loss * weights).sum().backward()).unwrap();
    assert!(values(&grad)[..40].iter().all(|&value| value == 0.0));
    assert!(values(&grad)[40..].iter().all(|&value| value != 0.0));
}

#[test]
#[should_panic(expected = "target -100 of row 1 is not in 0..40")]
fn cross_entropy_refuses_a_target_out_of_range() {
    cross_entropy(random([2, 40]), Tensor::from_data([3, -100], &cpu()));
}

#[test]
fn lora_linear_is_the_merged_layer() {
    for (batch, seq, input, output, rank) in [(1, 1, 8, 8, 1), (2, 3, 17, 5, 3), (3, 17, 64, 96, 8)] {
        let scale = 1.7;
        let weight = random([output, input]);
        let (x, a, b) = (random([batch, seq, input]), random([rank, input]), random([output, rank]));
        assert_same(
            [x.clone()],
            |[x]| {
                let factors = LoraFactors { a: like(&a, x), b: like(&b, x), scale };
                lora_linear(x.clone(), like(&weight, x), factors)
            },
            |[x]| {
                let factors = LoraFactors { a: beside(&a, x), b: beside(&b, x), scale };
                plain_lora_linear(x.clone(), beside(&weight, x), factors)
            },
        );
        let transposed = weight.clone().transpose().add_scalar(0.0).transpose();
        assert_same(
            [a, b.transpose()],
            |[a, b]| {
                let factors = LoraFactors { a: a.clone(), b: b.clone().transpose(), scale };
                lora_linear(like(&x, a), like(&transposed, a), factors)
            },
            |[a, b]| {
                let factors = LoraFactors { a: a.clone(), b: b.clone().transpose(), scale };
                plain_lora_linear(beside(&x, a), beside(&weight, a), factors)
            },
        );
    }
}

#[test]
fn lora_linear_gradients_are_difference_quotients() {
    let (x, weight, a, b) = (random([1, 3, 4]), random([3, 4]), random([2, 4]), random([3, 2]));
    let scale = 0.6;
    assert_differences([x.clone()], |[x]| {
        lora_linear(x.clone(), weight.clone(), LoraFactors { a: a.clone(), b: b.clone(), scale })
    });
    assert_differences([a.clone()], |[a]| {
        lora_linear(x.clone(), weight.clone(), LoraFactors { a: a.clone(), b: b.clone(), scale })
    });
    assert_differences([b.clone()], |[b]| {
        lora_linear(x.clone(), weight.clone(), LoraFactors { a: a.clone(), b: b.clone(), scale })
    });
}

#[test]
#[should_panic(expected = "must not be tracked")]
fn lora_linear_refuses_a_weight_that_wants_a_gradient() {
    let factors = LoraFactors { a: random([2, 4]), b: random([3, 2]), scale: 1.0 };
    lora_linear(random([1, 3, 4]), tracked(&random([3, 4])), factors);
}

#[test]
fn backward_passes_leave_the_inputs_alone() {
    let options = AttentionOptions::causal(0.3);
    let (q, k) = (tracked(&random([1, 9, 2, 8])), tracked(&random([1, 9, 2, 8])));
    let (x, y) = (tracked(&random([1, 9, 16])), tracked(&random([1, 9, 16])));
    let (cos, sin) = tables(9, 4);
    let before = (bits(&q), bits(&k), bits(&x), bits(&y));
    let attended =
        attention(rope(q.clone(), cos, sin), k.clone(), k.clone(), options.clone()).reshape([1, 9, 16]);
    let normed = rms_norm(swiglu(x.clone(), y.clone()) + attended + x.clone(), random([16]), EPS);
    let logits = normed.reshape([9, 16]) + x.clone().reshape([9, 16]);
    let loss = cross_entropy(logits.clone(), targets(9, 16));
    let (kept, grads) = (bits(&logits), loss.sum().backward());
    assert!([&q, &k].iter().all(|leaf| leaf.grad(&grads).is_some()));
    assert!([&x, &y].iter().all(|leaf| leaf.grad(&grads).is_some()));
    assert_eq!(before, (bits(&q), bits(&k), bits(&x), bits(&y)));
    assert_eq!(kept, bits(&logits));
}

#[test]
fn inputs_need_not_be_contiguous() {
    let x = random([17, 2, 64]).swap_dims(0, 1);
    let y = random([2, 64, 17]).swap_dims(1, 2);
    let w = random([128]).narrow(0, 13, 64);
    let norm = |[x]: &[Tensor<3>; 1]| rms_norm(x.clone(), w.clone(), EPS);
    assert_same([x.clone()], norm, |[x]| plain_rms_norm(x.clone(), beside(&w, x)));
    assert_same([x, y], |[x, y]| swiglu(x.clone(), y.clone()), |[x, y]| plain_swiglu(x.clone(), y.clone()));

    let (cos, sin) = tables(64, 32);
    let (cos, sin) = (cos.narrow(1, 5, 17), sin.narrow(1, 5, 17));
    let q = random([2, 9, 17, 64]).swap_dims(1, 2);
    let turn = |[q]: &[Tensor<4>; 1]| rope(q.clone(), cos.clone(), sin.clone());
    assert_same([q.clone()], turn, |[q]| plain_rope(q.clone(), beside(&cos, q), beside(&sin, q)));

    let options = AttentionOptions::causal(0.3);
    let k = random([2, 3, 50, 64]).swap_dims(1, 2).narrow(1, 7, 33);
    let v = random([2, 50, 64, 3]).swap_dims(2, 3).narrow(1, 2, 33);
    let attend = |[q]: &[Tensor<4>; 1]| attention(q.clone(), like(&k, q), like(&v, q), options.clone());
    let plain =
        |[q]: &[Tensor<4>; 1]| plain_attention(q.clone(), beside(&k, q), beside(&v, q), options.clone());
    assert_same([q.clone()], attend, plain);
    assert_same([q.clone().narrow(1, 4, 1)], attend, plain);
    assert_same(
        [k.clone(), v.clone()],
        |[k, v]| attention(like(&q, k), k.clone(), v.clone(), options.clone()),
        |[k, v]| plain_attention(beside(&q, k), k.clone(), v.clone(), options.clone()),
    );

    let targets = targets(6, 40);
    assert_same(
        [random([40, 6]).swap_dims(0, 1)],
        |[logits]| cross_entropy(logits.clone(), targets.clone()),
        |[logits]| plain_cross_entropy(logits.clone(), &targets),
    );
}

#[test]
fn gradients_reach_tracked_inputs_only() {
    let options = AttentionOptions::new(0.3);
    let plain = [random([1, 3, 2, 8]), random([1, 3, 2, 8]), random([1, 3, 2, 8])];
    for which in 0..3 {
        let mut inputs = plain.clone().map(Tensor::from_inner);
        inputs[which] = inputs[which].clone().require_grad();
        let [q, k, v] = inputs.clone();
        let grads = attention(q, k, v, options.clone()).sum().backward();
        for (index, input) in inputs.iter().enumerate() {
            assert_eq!(input.grad(&grads).is_some(), index == which);
        }
    }
    let [q, k, v] = plain;
    assert_eq!(attention(q, k, v, options.clone()).device(), cpu());
}

#[test]
fn attention_with_windows_and_rows_is_the_composition() {
    let rows = |rows: &[[usize; 2]]| {
        let rows = rows.iter().map(|&[offset, keys]| Row { offset, keys });
        Some(rows.collect::<std::sync::Arc<[Row]>>())
    };
    // Padding before nothing, after a few keys, and so far behind them that a window would be empty.
    let whole = rows(&[[0, 70], [0, 3], [0, 41]]);
    let continued = rows(&[[58, 59], [7, 12], [0, 5]]);
    let single = rows(&[[69, 70], [7, 8], [20, 3]]);
    for causal in [true, false] {
        for window in [None, Some(1), Some(5), Some(200)] {
            for (t, rows) in
                [(70, &None), (70, &whole), (5, &None), (5, &continued), (1, &None), (1, &single)]
            {
                let options = if causal { AttentionOptions::causal(0.3) } else { AttentionOptions::new(0.3) };
                let options = options.with_window(window).with_rows(rows.clone());
                let (q, k, v) = (random([3, t, 4, 8]), random([3, 70, 2, 8]), random([3, 70, 2, 8]));
                assert_same(
                    [q.clone()],
                    |[q]| attention(q.clone(), like(&k, q), like(&v, q), options.clone()),
                    |[q]| plain_attention(q.clone(), beside(&k, q), beside(&v, q), options.clone()),
                );
                assert_same(
                    [k, v],
                    |[k, v]| attention(like(&q, k), k.clone(), v.clone(), options.clone()),
                    |[k, v]| plain_attention(beside(&q, k), k.clone(), v.clone(), options.clone()),
                );
            }
        }
    }
}

#[test]
fn rope_turns_a_part_of_each_head_at_the_positions_of_each_row() {
    let angles = random([3, 5, 2]) * 3.0;
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let plain = |[x]: &[Tensor<4>; 1]| {
        let (cos, sin) = (beside(&cos, x).unsqueeze_dim::<4>(2), beside(&sin, x).unsqueeze_dim::<4>(2));
        let part = |start, len| x.clone().narrow(3, start, len);
        let (low, high) = (part(0, 2), part(2, 2));
        let turned = [low.clone() * cos.clone() - high.clone() * sin.clone(), high * cos + low * sin];
        Tensor::cat(turned.into_iter().chain([part(4, 3)]).collect(), 3)
    };
    assert_same([random([3, 5, 2, 7])], |[x]| rope(x.clone(), cos.clone(), sin.clone()), plain);
}
