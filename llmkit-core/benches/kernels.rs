//! Times the fused operations and compositions of burn's own operations, forward and backward, at the shapes of SmolLM2-135M with
//! 4 sequences of 256 tokens. Run it with `cargo bench -p llmkit-core --bench kernels`; an argument picks rows by name.

use std::time::{Duration, Instant};

use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use llmkit_core::kernels::{
    AttentionOptions, LoraFactors, attention, cross_entropy, lora_linear, rms_norm, rope, swiglu,
};

const BATCH: usize = 4;
const SEQ: usize = 256;
const HIDDEN: usize = 576;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const INTERMEDIATE: usize = 1536;
const VOCAB: usize = 49152;
const RANK: usize = 8;

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let chosen = |name: &str| wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()));
    println!("{:<28}{:>12}{:>12}{:>8}{:>12}", "", "composed ms", "fused ms", "ratio", "copies ms");

    let hidden = random([BATCH, SEQ, HIDDEN]);
    let weight = random([HIDDEN]);
    if chosen("rms_norm") {
        compare(
            "rms_norm",
            [hidden.clone()],
            |[x]| {
                let scale = (x.clone().powf_scalar(2.0).mean_dim(2) + 1e-5).sqrt();
                x / scale * lift(&weight).unsqueeze::<3>()
            },
            |[x]| rms_norm(x, weight.clone(), 1e-5),
        );
    }

    let angles = random([1, SEQ, HEAD_DIM / 2]);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    if chosen("rope") {
        compare(
            "rope (q)",
            [random([BATCH, SEQ, HEADS, HEAD_DIM])],
            |[x]| composed_rope(x, &cos, &sin),
            |[x]| rope(x, cos.clone(), sin.clone()),
        );
    }

    let wide = || random([BATCH, SEQ, INTERMEDIATE]);
    if chosen("swiglu") {
        compare("swiglu", [wide(), wide()], |[gate, up]| silu(gate) * up, |[gate, up]| swiglu(gate, up));
    }

    let options = AttentionOptions::causal(0.125);
    if chosen("attention") {
        let q = random([BATCH, SEQ, HEADS, HEAD_DIM]);
        let keys = || random([BATCH, SEQ, HEADS, HEAD_DIM]);
        // One shape for all leaves: grouping is then a view of a third of the heads.
        let group = |x: Tensor<4>| x.narrow(2, 0, KV_HEADS);
        compare(
            "attention, 4 x 256",
            [q, keys(), keys()],
            |[q, k, v]| composed_attention(q, group(k), group(v), options.clone()),
            |[q, k, v]| attention(q, group(k), group(v), options.clone()),
        );
        let long = || random([1, 2048, HEADS, HEAD_DIM]);
        compare(
            "attention, 1 x 2048",
            [long(), long(), long()],
            |[q, k, v]| composed_attention(q, group(k), group(v), options.clone()),
            |[q, k, v]| attention(q, group(k), group(v), options.clone()),
        );
    }

    if chosen("cross_entropy") {
        let rows = BATCH * SEQ;
        let targets: Vec<i64> = (0..rows).map(|row| (row * 7919 % VOCAB) as i64).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &cpu());
        compare(
            "cross_entropy, 1024 rows",
            [random([rows, VOCAB])],
            |[logits]| {
                let targets = Tensor::<1, Int>::from_inner(targets.clone()).unsqueeze_dim(1);
                -log_softmax(logits, 1).gather(1, targets)
            },
            |[logits]| cross_entropy(logits, targets.clone()).unsqueeze_dim(1),
        );
    }

    if chosen("lora") {
        for (name, input, output) in [
            ("lora_linear q 576 -> 576", HIDDEN, HIDDEN),
            ("lora_linear up 576 -> 1536", HIDDEN, INTERMEDIATE),
            ("lora_linear down 1536 -> 576", INTERMEDIATE, HIDDEN),
        ] {
            let weight = random([output, input]);
            let a = Tensor::from_inner(random([RANK, input])).require_grad();
            let b = Tensor::from_inner(random([output, RANK])).require_grad();
            compare(
                name,
                [random([BATCH, SEQ, input])],
                |[x]| {
                    let [_, _, d] = x.dims();
                    let rows = x.reshape([BATCH * SEQ, d]);
                    let inner = rows.clone().matmul(a.clone().transpose());
                    let update = inner.matmul(b.clone().transpose()) * 2.0;
                    (rows.matmul(lift(&weight).transpose()) + update).reshape([BATCH, SEQ, output])
                },
                |[x]| lora_linear(x, weight.clone(), LoraFactors { a: a.clone(), b: b.clone(), scale: 2.0 }),
            );
        }
    }

    if chosen("decode") {
        println!("\n{:<28}{:>12}{:>12}{:>8}", "one token, no gradient", "composed us", "fused us", "ratio");
        for s in [64, 256, 2048] {
            let cache = || random([1, s, KV_HEADS, HEAD_DIM]);
            let (q, k, v) = (random([1, 1, HEADS, HEAD_DIM]), cache(), cache());
            let composed =
                microseconds(|| drop(composed_attention(q.clone(), k.clone(), v.clone(), options.clone())));
            let fused = microseconds(|| drop(attention(q.clone(), k.clone(), v.clone(), options.clone())));
            row(&format!("decode attention, {s} keys"), composed, fused);
        }
        let x = random([1, 1, HIDDEN]);
        let composed = microseconds(|| {
            let scale = (x.clone().powf_scalar(2.0).mean_dim(2) + 1e-5).sqrt();
            drop(x.clone() / scale * weight.clone().unsqueeze::<3>());
        });
        row("decode rms_norm", composed, microseconds(|| drop(rms_norm(x.clone(), weight.clone(), 1e-5))));
        let (cos, sin) = (cos.clone().narrow(1, 9, 1), sin.clone().narrow(1, 9, 1));
        let q = random([1, 1, HEADS, HEAD_DIM]);
        let composed = microseconds(|| drop(composed_rope(q.clone(), &cos, &sin)));
        row("decode rope", composed, microseconds(|| drop(rope(q.clone(), cos.clone(), sin.clone()))));
        let (gate, up) = (random([1, 1, INTERMEDIATE]), random([1, 1, INTERMEDIATE]));
        let composed = microseconds(|| drop(silu(gate.clone()) * up.clone()));
        row("decode swiglu", composed, microseconds(|| drop(swiglu(gate.clone(), up.clone()))));
    }
}

fn cpu() -> Device {
    Device::flex()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &cpu())
}

fn lift<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.clone())
}

fn on_device_of<const D: usize, const E: usize>(table: &Tensor<D>, x: &Tensor<E>) -> Tensor<D> {
    if x.device() == cpu() { table.clone() } else { lift(table) }
}

fn composed_rope(x: Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Tensor<4> {
    let [_, seq, _, dim] = x.dims();
    let table = |table| on_device_of(table, &x).reshape([1, seq, 1, dim / 2]);
    let (cos, sin) = (table(cos), table(sin));
    let (low, high) = (x.clone().narrow(3, 0, dim / 2), x.narrow(3, dim / 2, dim / 2));
    let new_low = low.clone() * cos.clone() - high.clone() * sin.clone();
    Tensor::cat(vec![new_low, high * cos + low * sin], 3)
}

fn composed_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    let ([batch, t, heads, dim], [_, s, kv_heads, _]) = (q.dims(), k.dims());
    let rows = heads / kv_heads * t;
    let q = q.swap_dims(1, 2).reshape([batch, kv_heads, rows, dim]);
    let mut scores = q.matmul(k.swap_dims(1, 2).swap_dims(2, 3)) * options.scale;
    if t > 1 {
        let hidden = |at: usize| if at % s > s - t + at / s { f32::NEG_INFINITY } else { 0.0 };
        let mask = TensorData::new((0..t * s).map(hidden).collect::<Vec<_>>(), [1, 1, t, s]);
        let mask = Tensor::<4>::from_data(mask, &scores.device());
        scores = (scores.reshape([batch, heads, t, s]) + mask).reshape([batch, kv_heads, rows, s]);
    }
    softmax(scores, 3).matmul(v.swap_dims(1, 2)).reshape([batch, heads, t, dim]).swap_dims(1, 2)
}

/// Prints the times of both. Each call works on copies of the inputs, since in a model, too, an operation's inputs belong to it
/// alone; the times include these copies, whose own time forward and backward is the last column.
fn compare<const D: usize, const E: usize, const N: usize>(
    name: &str,
    inputs: [Tensor<D>; N],
    composed: impl Fn([Tensor<D>; N]) -> Tensor<E>,
    fused: impl Fn([Tensor<D>; N]) -> Tensor<E>,
) {
    let leaves = inputs.map(|input| Tensor::from_inner(input).require_grad());
    let own = || leaves.each_ref().map(|leaf| leaf.clone().mul_scalar(1.0));
    let time = |operation: &dyn Fn()| fastest(7, operation).as_secs_f64() * 1e3;
    let copies = time(&|| own().into_iter().for_each(|copy| drop(copy.backward())));
    let composed = time(&|| drop(composed(own()).backward()));
    let fused = time(&|| drop(fused(own()).backward()));
    println!("{name:<28}{composed:>12.2}{fused:>12.2}{:>8.2}{copies:>12.2}", composed / fused);
}

fn row(name: &str, composed: f64, fused: f64) {
    println!("{name:<28}{composed:>12.2}{fused:>12.2}{:>8.2}", composed / fused);
}

/// The time of one call among many, in microseconds.
fn microseconds(operation: impl Fn()) -> f64 {
    const CALLS: u32 = 100;
    fastest(20, || (0..CALLS).for_each(|_| operation())).as_secs_f64() * 1e6 / f64::from(CALLS)
}

/// The shortest of several runs, which is the one that other programs disturbed least; or, with `LLMKIT_BENCH_CPU_TIME` set, the mean
/// time that threads spend computing, which says something on a busy machine too (on Linux, best with `RAYON_NUM_THREADS=1`).
fn fastest(runs: usize, mut operation: impl FnMut()) -> Duration {
    operation();
    if std::env::var_os("LLMKIT_BENCH_CPU_TIME").is_some() {
        // The kernel's count goes up every few milliseconds only.
        let (start, mut count) = (cpu_time(), 0);
        while cpu_time() - start < Duration::from_millis(500) {
            operation();
            count += 1;
        }
        return (cpu_time() - start) / count;
    }
    let run = |_| {
        let start = Instant::now();
        operation();
        start.elapsed()
    };
    (0..runs).map(run).min().unwrap_or_default()
}

fn cpu_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let line = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}
