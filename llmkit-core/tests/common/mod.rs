//! What the tests of models share: fixtures, and comparison with what transformers computed.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::generate::NextToken;
use llmkit_core::models::{CachedModel, CausalLm, load_causal_lm};
use llmkit_core::{Device, NoAdapter};

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub(crate) fn device() -> burn::tensor::Device {
    Device::from_env().unwrap().resolve().unwrap()
}

pub(crate) fn ids(values: &[i32], shape: [usize; 2]) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
}

/// What transformers computed, as the generator scripts write it.
pub(crate) struct Expected(safetensors::SafeTensors<'static>);

impl Expected {
    pub(crate) fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap().leak();
        Self(safetensors::SafeTensors::deserialize(bytes).unwrap())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.tensor(name).is_ok()
    }

    pub(crate) fn ints(&self, name: &str) -> (Vec<i32>, [usize; 2]) {
        let view = self.0.tensor(name).unwrap();
        let values = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32);
        (values.collect(), view.shape().try_into().unwrap())
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let view = self.0.tensor(name).unwrap();
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The model in `model_file`, whose logits and greedy continuations must be those in `folder`.
pub(crate) fn equals_transformers(folder: &Path, model_file: &Path) {
    let name = folder.display();
    let model = load_causal_lm(&Checkpoint::open(model_file).unwrap(), &device()).unwrap();
    let expected = Expected::read(folder);
    let (values, shape) = expected.ints("input_ids");
    let logits =
        model.forward(ids(&values, shape), &NoAdapter).into_data_as::<f32>().try_to_vec::<f32>().unwrap();
    let reference = expected.floats("logits");
    let spread = reference.iter().copied().fold(0.0, f32::max);
    assert!(spread > 0.5, "{name}: the fixture's logits are too flat to tell anything");
    let difference = largest_difference(&logits, &reference);
    assert!(difference < 1e-4, "{name}: logits differ by {difference}");

    let (prompt, _) = expected.ints("prompt_ids");
    let (greedy, _) = expected.ints("greedy_ids");
    assert_eq!(greedy.len(), 64);
    let cached = if expected.has("cached_ids") { expected.ints("cached_ids").0 } else { greedy.clone() };
    assert_eq!(greedy_cached(model.as_ref(), &prompt, 64), cached, "{name}: with cache");
    assert_eq!(greedy_uncached(model.as_ref(), &prompt, 64), greedy, "{name}: without cache");
}

pub(crate) fn greedy_cached(model: &dyn CausalLm, prompt: &[i32], new: usize) -> Vec<i32> {
    let mut cached = CachedModel::new(model, &NoAdapter);
    let mut next: Vec<u32> = prompt.iter().map(|id| *id as u32).collect();
    let mut logits = Vec::new();
    let mut out = Vec::new();
    for _ in 0..new {
        cached.feed(&next, &mut logits).unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        next = vec![best as u32];
        out.push(best as i32);
    }
    assert_eq!(cached.position(), prompt.len() + new - 1);
    out
}

pub(crate) fn greedy_uncached(model: &dyn CausalLm, prompt: &[i32], new: usize) -> Vec<i32> {
    let mut all = prompt.to_vec();
    for _ in 0..new {
        let logits = model.forward(ids(&all, [1, all.len()]), &NoAdapter);
        let [_, seq, vocab] = logits.dims();
        let last = logits.slice([0..1, seq - 1..seq, 0..vocab]);
        all.push(last.argmax(2).into_scalar::<i32>());
    }
    all.split_off(prompt.len())
}

/// The names of all tensors that the model shows.
pub(crate) fn shown_tensors(model: &dyn CausalLm) -> Vec<String> {
    use llmkit_core::nn::Layer;
    let mut shown = Vec::new();
    model.visit(&mut |layer| {
        let path = layer.path();
        let bias = match layer {
            Layer::Linear(_) if model.is_tied() && path == "lm_head" => return,
            Layer::Linear(linear) => linear.bias.is_some(),
            Layer::Norm(norm) => norm.bias.is_some(),
            Layer::Embedding(_) => false,
        };
        shown.push(format!("{path}.weight"));
        shown.extend(bias.then(|| format!("{path}.bias")));
    });
    shown.sort();
    shown
}
