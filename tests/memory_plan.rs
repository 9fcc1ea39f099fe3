//! What a memory plan promises is what the allocator sees.
#![cfg(feature = "peft")]
#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use llmkit::checkpoint::{Checkpoint, TensorData, save_safetensors};
use llmkit::generate::NextTokens;
use llmkit::models::{CachedModel, CausalLm, MemoryPlan, load_causal_lm};
use llmkit::peft::advise::{Choice, LayerShapes};
use llmkit::peft::data::{Batch, Example};
use llmkit::peft::train::{
    AdamW, AdamWConfig, Recompute, StepOptions, TrainConfig, loss_and_gradients, memory_plan,
    method_memory_plan,
};
use llmkit::peft::{FullFineTune, Ia3, Ia3Config, Lora, LoraConfig, PeftModule, Targets};
use llmkit::{Device, NoAdapter};
use serde_json::json;

/// Counts what is allocated, and the most that ever was.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time.
static MEASURING: Mutex<()> = Mutex::new(());

/// The most that `work` had allocated at once, beyond what was allocated before.
fn most_allocated(work: impl FnOnce()) -> u64 {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    work();
    (MOST.load(Ordering::Relaxed) - before) as u64
}

fn assert_near(what: &str, planned: u64, measured: u64) {
    let ratio = planned as f64 / measured as f64;
    assert!(
        (0.85..1.15).contains(&ratio),
        "{what}: planned {planned} bytes, measured {measured}: {ratio:.2}"
    );
}

/// A Llama of four million numbers.
fn write_model(folder: &Path) {
    let (hidden, intermediate, layers, queries, keys, vocab) = (192, 512, 6, 192, 64, 4096);
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": intermediate,
        "num_hidden_layers": layers, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": vocab,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        let len = shape.iter().product();
        let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 1000) as f32 * 2e-4 - 0.1;
        let values: Vec<f32> = (0..len).map(value).collect();
        tensors.push((name, TensorData::f32(shape.to_vec(), values)));
    };
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        add(name.into(), &[vocab, hidden]);
    }
    add("model.norm.weight".into(), &[hidden]);
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![queries, hidden]),
            ("self_attn.k_proj", vec![keys, hidden]),
            ("self_attn.v_proj", vec![keys, hidden]),
            ("self_attn.o_proj", vec![hidden, queries]),
            ("mlp.gate_proj", vec![intermediate, hidden]),
            ("mlp.up_proj", vec![intermediate, hidden]),
            ("mlp.down_proj", vec![hidden, intermediate]),
        ] {
            add(format!("model.layers.{layer}.{name}.weight"), &shape);
        }
    }
    save_safetensors(folder.join("model.safetensors"), tensors, None).unwrap();
}

fn generate(model: &dyn CausalLm, rows: usize, tokens: usize) {
    let mut next = CachedModel::new(model, &NoAdapter).with_rows(rows);
    let mut logits = vec![Vec::new(); rows];
    let prompt: Vec<u32> = (0..tokens as u32 - 8).collect();
    for chunk in prompt.chunks(512) {
        next.feed_rows(&vec![chunk; rows], &mut logits).unwrap();
    }
    for id in 0..8 {
        next.feed_rows(&vec![&[id][..]; rows], &mut logits).unwrap();
    }
}

#[test]
fn generation_takes_what_was_planned() {
    let _alone = MEASURING.lock();
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let device = Device::Cpu.resolve().unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let warm = load_causal_lm(&checkpoint, &device).unwrap();
    for (rows, tokens) in [(1, 300), (1, 1500), (4, 900)] {
        generate(warm.as_ref(), rows, tokens);
        let plan = MemoryPlan::generation(&checkpoint, rows, tokens).unwrap();
        let measured = most_allocated(|| {
            let model = load_causal_lm(&checkpoint, &device).unwrap();
            generate(model.as_ref(), rows, tokens);
        });
        assert_near(&format!("{rows} x {tokens}"), plan.peak(), measured);
    }
}

#[test]
fn a_training_step_takes_what_was_planned() {
    let _alone = MEASURING.lock();
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let device = Device::Cpu.resolve().unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    for (batch_size, tokens, recompute) in [
        (4, 128, Recompute::Off),
        (2, 400, Recompute::Off),
        (4, 128, Recompute::Blocks),
        (8, 200, Recompute::Blocks),
    ] {
        let step = || {
            let model = load_causal_lm(&checkpoint, &device).unwrap();
            let config = LoraConfig::new(Targets::AllLinear);
            let mut lora = Lora::new(model.as_ref(), config, 0).unwrap().train();
            let ids: Vec<u32> = (0..tokens as u32).collect();
            let example = Example { ids, prompt_len: 1 };
            let batch = Batch::new(&vec![&example; batch_size], &device);
            let options = StepOptions { recompute, loss_chunk: 256 };
            let mut optimizer = AdamW::new(AdamWConfig::default());
            for _ in 0..2 {
                let output = loss_and_gradients(model.as_ref(), &lora, &batch, options);
                lora = optimizer.step(lora, &output.gradients, 1e-4);
            }
            lora.num_params() as u64
        };
        let mut parameters = step();
        let measured = most_allocated(|| parameters = step());
        let config = TrainConfig { batch_size, recompute, ..TrainConfig::default() };
        let plan = memory_plan(&checkpoint, &config, tokens, parameters).unwrap();
        assert_near(&format!("{batch_size} x {tokens}, {recompute:?}"), plan.peak(), measured);
    }
}

#[test]
fn methods_take_what_was_planned() {
    let _alone = MEASURING.lock();
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let device = Device::Cpu.resolve().unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let shapes = LayerShapes::read(&checkpoint).unwrap();
    let names = |names: &[&str]| Targets::names(names.iter().copied());
    let check = |choice: Choice, recompute: Recompute, steps: &dyn Fn(&dyn CausalLm, StepOptions)| {
        let (batch_size, tokens) = (4, 128);
        let options = StepOptions { recompute, loss_chunk: 256 };
        let work = || {
            let model = load_causal_lm(&checkpoint, &device).unwrap();
            steps(model.as_ref(), options);
        };
        work();
        let measured = most_allocated(work);
        let config = TrainConfig { batch_size, recompute, ..TrainConfig::default() };
        let plan = method_memory_plan(&checkpoint, &config, tokens, &choice.cost(&shapes)).unwrap();
        assert_near(&format!("{choice}, {recompute:?}"), plan.peak(), measured);
    };
    for recompute in [Recompute::Off, Recompute::Blocks] {
        check(Choice::Full, recompute, &|model, options| two_steps(model, FullFineTune::new(model), options));
        check(Choice::Lora { rank: 16 }, recompute, &|model, options| {
            let config = LoraConfig::new(Targets::AllLinear).with_rank(16);
            two_steps(model, Lora::new(model, config, 0).unwrap(), options);
        });
        check(Choice::Ia3, recompute, &|model, options| {
            let config = Ia3Config::new(names(&["k_proj", "v_proj", "down_proj"]));
            let config = config.with_feedforward_modules(names(&["down_proj"]));
            two_steps(model, Ia3::new(model, config, 0).unwrap(), options);
        });
    }
}

/// Two training steps as the trainer makes them.
fn two_steps<A: PeftModule>(model: &dyn CausalLm, adapter: A, options: StepOptions) {
    let example = Example { ids: (0..128).collect(), prompt_len: 1 };
    let batch = Batch::new(&[&example; 4], &model.device());
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let mut adapter = adapter.train();
    for _ in 0..2 {
        let output = loss_and_gradients(model, &adapter, &batch, options);
        adapter = optimizer.step(adapter, &output.gradients, 1e-4);
    }
}
