//! Parameter-efficient fine-tuning of language models on [burn](https://burn.dev): LoRA, PEFT's files both ways, and a trainer.
//!
//! ```
//! use llmkit_core::checkpoint::Checkpoint;
//! use llmkit_core::models::load_causal_lm;
//! use llmkit_core::Device;
//! use llmkit_peft::data::Example;
//! use llmkit_peft::train::{Silent, TrainConfig, Trainer};
//! use llmkit_peft::{Lora, LoraConfig, Method, Targets, trainable_parameters};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../llmkit-core/tests/fixtures/llama/gqa-tied");
//! # let out = tempfile::tempdir()?;
//! # let out = out.path();
//! // The base: loaded once, never changed, never tracked.
//! let model = load_causal_lm(&Checkpoint::open(folder)?, &Device::Auto.resolve()?)?;
//!
//! // What trains: a module of its own.
//! let lora = Lora::new(model.as_ref(), LoraConfig::new(Targets::AllLinear).with_rank(4), 0)?;
//! println!("{}", trainable_parameters(model.as_ref(), &lora));
//!
//! // Token ids, of which the first two are the prompt. `data` makes them from files and the model's chat template.
//! let examples = [Example { ids: vec![5, 9, 30, 31, 32], prompt_len: 2 }];
//! let config = TrainConfig { epochs: 20, learning_rate: 1e-2, ..TrainConfig::default() };
//! let mut trainer = Trainer::new(model.clone(), lora, config)?;
//! let before = trainer.evaluate(&examples)?.loss;
//! let report = trainer.fit(&examples, &examples, &mut Silent)?;
//! assert!(report.heldout_loss < Some(before / 2.0));
//!
//! // A folder that Python's PEFT loads, and we do.
//! trainer.into_adapter().save(out)?;
//! let lora = Lora::load(model.as_ref(), out)?;
//! let merged = llmkit_peft::merge(model.as_ref(), &lora)?;
//! # assert_eq!(merged.num_blocks(), model.num_blocks());
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! - [`Lora`], [`LoraConfig`], [`Targets`]: the method, its shape, and which layers it acts on;
//! - [`eva_lora`] and [`loftq`]: LoRAs that start from data, and from what rounding the base to four bits takes away;
//! - [`Method`] and [`PeftModule`]: what a method is; [`TunedLayer`] is less work for one of your own that acts layer by layer;
//! - [`FullFineTune`]: the whole model, or some of its layers, through the same trainer;
//! - [`Loha`], [`Lokr`]: updates made of element-wise and Kronecker products; [`Oft`], [`Boft`]: rotations of what a layer reads;
//! - [`load_adapter`]: whatever method a folder holds;
//! - [`reparam`]: the methods that change weights, on any burn module;
//! - [`merge`]: a model with the adapter worked in;
//! - [`data`]: Alpaca files to examples, examples to batches;
//! - [`train`]: losses and gradients, the optimizer, the trainer with its checkpoints.
//!
//! # Features
//!
//! `cpu` (the default), `wgpu` and `cuda` build a backend in; they add up, and [`llmkit_core::Device`] chooses when the program runs.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adalora;
mod bitfit;
mod boft;
mod bottleneck;
pub mod data;
mod dropout;
mod error;
mod full;
mod ia3;
mod init_weights;
mod layers;
mod linalg;
mod ln_tuning;
mod load;
mod loha;
mod lokr;
mod lora;
mod merge;
mod method;
mod oft;
mod parameters;
mod random;
mod rank_patterns;
pub mod reparam;
mod rotation;
mod summary;
mod torch_random;
pub mod train;
mod vera;

pub use adalora::{AdaLora, AdaLoraConfig, AdaLoraLayer};
pub use bitfit::{BitFit, BitFitConfig, BitFitLayer, NormWeights};
pub use bottleneck::{
    AdapterResidual, Bottleneck, BottleneckConfig, InitBottleneck, InitPhm, NonLinearity, PhmConfig,
    ReductionFactor, Scaling,
};
pub use dropout::Dropout;
pub use error::{Error, Result};
pub use full::FullFineTune;
pub use ia3::{Feedforward, Ia3, Ia3Config, Ia3Layer};
mod weight_space;

pub use boft::{Boft, BoftConfig, BoftLayer};
pub use init_weights::InitWeights;
pub use layers::{
    AdapterFolder, Attach, Bias, LayerMethod, MethodConfig, Named, ParamRef, SavedLayer, SavedLayers, Scope,
    TargetModules, Targets, TokenIndices, TokenRows, TunedLayer,
};
pub use ln_tuning::{LnTuning, LnTuningConfig, LnTuningLayer};
pub use load::load_adapter;
pub use loha::{Loha, LohaConfig, LohaLayer};
pub use lokr::{InitLokr, Lokr, LokrConfig, LokrLayer};
pub use lora::{
    Eva, EvaConfig, InitLora, Lora, LoraConfig, LoraLayer, LoraPlus, LoraShared, Sizes, eva_lora, loftq,
};
pub use merge::merge;
pub use method::{Method, PeftModule, Progress};
pub use oft::{Oft, OftConfig, OftLayer, Transform};
pub use rank_patterns::RankPatterns;
pub use summary::{ParameterSummary, trainable_parameters};
pub use vera::{Projections, Vera, VeraConfig, VeraLayer};
pub use weight_space::WeightSpace;
