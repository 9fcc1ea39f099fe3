//! Llama against transformers: the same ids, the same logits, the same greedy continuation.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::{CausalLm, load_causal_lm};
use llmkit_core::nn::KvCache;
use llmkit_core::{Device, NoAdapter};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama").join(name)
}

fn device() -> burn::tensor::Device {
    Device::from_env().unwrap().resolve().unwrap()
}

fn ids(values: &[i32], shape: [usize; 2]) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
}

fn expected(folder: &Path) -> safetensors::SafeTensors<'static> {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap().leak();
    safetensors::SafeTensors::deserialize(bytes).unwrap()
}

fn ints(file: &safetensors::SafeTensors<'_>, name: &str) -> (Vec<i32>, [usize; 2]) {
    let view = file.tensor(name).unwrap();
    let values =
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32).collect();
    (values, view.shape().try_into().unwrap())
}

fn floats(file: &safetensors::SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = file.tensor(name).unwrap();
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn logits_equal(name: &str, model_file: &Path) {
    let folder = fixture(name);
    let model = load_causal_lm(&Checkpoint::open(model_file).unwrap(), &device()).unwrap();
    let expected = expected(&folder);
    let (values, shape) = ints(&expected, "input_ids");
    let logits =
        model.forward(ids(&values, shape), &NoAdapter).into_data_as::<f32>().try_to_vec::<f32>().unwrap();
    let reference = floats(&expected, "logits");
    let spread = reference.iter().copied().fold(0.0, f32::max);
    assert!(spread > 0.5, "{name}: the fixture's logits are too flat to tell anything");
    let difference = largest_difference(&logits, &reference);
    assert!(difference < 1e-4, "{name}: logits differ by {difference}");

    let (prompt, _) = ints(&expected, "prompt_ids");
    let (greedy, _) = ints(&expected, "greedy_ids");
    assert_eq!(greedy.len(), 64);
    assert_eq!(greedy_cached(model.as_ref(), &prompt, 64), greedy, "{name}: with cache");
    assert_eq!(greedy_uncached(model.as_ref(), &prompt, 64), greedy, "{name}: without cache");
}

fn greedy_cached(model: &dyn CausalLm, prompt: &[i32], new: usize) -> Vec<i32> {
    let mut cache = KvCache::new(model.num_blocks());
    let mut next = prompt.to_vec();
    let mut out = Vec::new();
    for _ in 0..new {
        let logits = model.forward_cached(ids(&next, [1, next.len()]), &mut cache, &NoAdapter);
        next = vec![argmax(logits)];
        out.extend(&next);
    }
    assert_eq!(cache.len(), prompt.len() + new - 1);
    out
}

fn greedy_uncached(model: &dyn CausalLm, prompt: &[i32], new: usize) -> Vec<i32> {
    let mut all = prompt.to_vec();
    for _ in 0..new {
        let logits = model.forward(ids(&all, [1, all.len()]), &NoAdapter);
        let [_, seq, vocab] = logits.dims();
        all.push(argmax(logits.slice([0..1, seq - 1..seq, 0..vocab])));
    }
    all.split_off(prompt.len())
}

fn argmax(logits: Tensor<3>) -> i32 {
    logits.argmax(2).into_scalar::<i32>()
}

macro_rules! llama_fixtures {
    ($($test:ident: $folder:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                logits_equal($folder, &fixture($folder));
            }
        )+
    };
}

llama_fixtures! {
    grouped_queries_and_a_tied_head: "gqa-tied",
    llama3_rope_and_an_untied_head: "untied-llama3",
    linear_rope: "linear-rope",
    a_head_dim_of_its_own_and_biases: "head-dim-bias",
    bf16_in_shards: "sharded-bf16",
    f16: "f16",
    mistral: "mistral",
}

#[test]
fn gguf() {
    logits_equal("gguf", &fixture("gguf/model.gguf"));
}

#[test]
fn a_model_shows_every_tensor_of_its_checkpoint() {
    let folder = fixture("head-dim-bias");
    let model = load_causal_lm(&Checkpoint::open(&folder).unwrap(), &device()).unwrap();
    let mut shown = Vec::new();
    model.visit(&mut |layer| {
        shown.push(format!("{}.weight", layer.path()));
        if let llmkit_core::nn::Layer::Linear(linear) = layer {
            shown.extend(linear.bias.as_ref().map(|_| format!("{}.bias", layer.path())));
        }
    });
    shown.sort();
    assert_eq!(shown, Safetensors::open(&folder).unwrap().names());
}
