//! What the tests share: fixtures, and the tiny models that they are for.
#![allow(dead_code, unreachable_pub)]

pub mod method;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::{CausalLm, load_causal_lm};
use llmkit_core::{Adapter, Device};
use llmkit_peft::data::Example;
use llmkit_peft::{InitLora, Lora, LoraConfig, Targets};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub fn device() -> burn::tensor::Device {
    Device::from_env().unwrap().resolve().unwrap()
}

pub fn base(name: &str) -> Arc<dyn CausalLm> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures/llama").join(name);
    load_causal_lm(&Checkpoint::open(folder).unwrap(), &device()).unwrap()
}

/// A LoRA that is far from the identity, on every linear layer.
pub fn random_lora(model: &dyn CausalLm, config: LoraConfig) -> Lora {
    Lora::new(model, config.with_init(InitLora::Random), 3).unwrap()
}

pub fn all_linear() -> LoraConfig {
    LoraConfig::new(Targets::AllLinear).with_rank(4).with_alpha(6.0)
}

pub fn ids(values: &[i32], shape: [usize; 2]) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
}

pub fn some_ids(vocab: usize) -> Tensor<2, Int> {
    let values: Vec<i32> = (0..22).map(|i| (i * i * 7 + 3 * i + 1) % vocab as i32).collect();
    ids(&values, [2, 11])
}

pub fn logits(model: &dyn CausalLm, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Vec<f32> {
    values(model.forward(ids, adapter))
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Every tensor of an adapter's file, read back from what `save` writes.
pub fn tensors(lora: &Lora) -> BTreeMap<String, Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    llmkit_peft::Method::save(&lora.valid(), folder.path()).unwrap();
    let file = Safetensors::open(folder.path().join("adapter_model.safetensors")).unwrap();
    file.names().into_iter().map(|name| (name.clone(), file.read_f32(&name).unwrap())).collect()
}

/// Examples of various lengths over a small vocabulary.
pub fn examples(count: usize, vocab: u32) -> Vec<Example> {
    (0..count as u32)
        .map(|i| {
            let len = 6 + (i * 5) % 9;
            // Learnable: the answer repeats the prompt's tokens in order.
            let ids = (0..len).map(|j| (i * 3 + j % 3) % vocab).collect();
            Example { ids, prompt_len: 3 + (i % 2) as usize }
        })
        .collect()
}

/// A file of integers and floats made by a generator script.
pub struct Expected(safetensors::SafeTensors<'static>);

impl Expected {
    pub fn open(path: impl AsRef<Path>) -> Self {
        Self(safetensors::SafeTensors::deserialize(std::fs::read(path).unwrap().leak()).unwrap())
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.names()
    }

    pub fn ints(&self, name: &str) -> (Vec<i32>, [usize; 2]) {
        let shape = self.0.tensor(name).unwrap().shape().try_into().unwrap();
        (self.all_ints(name), shape)
    }

    /// The integers of a tensor of any shape.
    pub fn all_ints(&self, name: &str) -> Vec<i32> {
        let view = self.0.tensor(name).unwrap();
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32).collect()
    }

    pub fn int_vector(&self, name: &str) -> Vec<i64> {
        let view = self.0.tensor(name).unwrap();
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        let view = self.0.tensor(name).unwrap();
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}
