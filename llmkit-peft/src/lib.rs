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
//! - [`Bottleneck`] and [`BottleneckConfig`]: the adapters of Houlsby, Pfeiffer and He, and Compacter, in AdapterHub's files;
//! - [`Method`] and [`PeftModule`]: what a method is; [`TunedLayer`] is less work for one of your own that acts layer by layer;
//! - [`PromptTuning`], [`PTuning`], [`PrefixTuning`], [`MultitaskPromptTuning`]: learned positions before the sequence;
//! - [`FullFineTune`]: the whole model, or some of its layers, through the same trainer;
//! - [`Loha`], [`Lokr`]: updates made of element-wise and Kronecker products; [`Oft`], [`Boft`]: rotations of what a layer reads;
//! - [`AdaLora`]: LoRA whose ranks compete for a budget; [`Vera`]: vectors between random matrices that all layers share;
//! - [`Ia3`]: one factor for each number that a layer writes or reads; [`LnTuning`]: the normalisations; [`BitFit`]: the biases;
//! - [`load_adapter`]: whatever method a folder holds;
//! - [`AdapterSet`]: several adapters by name, to switch between; [`StackedAdapters`] together, [`RowAdapters`] one for each row;
//! - [`merge`]: a model with the adapter worked in, [`verify_merge`] and [`rounding_report`] to see that it is right and stays so;
//! - [`combine`]: several LoRAs made into one; [`extract`]: a LoRA out of a model that was fine-tuned whole; [`Spectrum`]: what ranks are used;
//! - [`reparam`]: the methods that change weights, on any burn module;
//! - [`data`]: Alpaca files to examples, examples to batches;
//! - [`advise`]: which method to take;
//! - [`train`]: losses and gradients, the optimizer, the trainer with its checkpoints.
//!
//! # Features
//!
//! `cpu` (the default), `wgpu` and `cuda` build a backend in; they add up, and [`llmkit_core::Device`] chooses when the program runs.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adalora;
pub mod advise;
mod bitfit;
mod boft;
mod bottleneck;
mod combine;
pub mod data;
mod dropout;
mod error;
mod extract;
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
mod prompts;
mod random;
mod rank_patterns;
pub mod reparam;
mod rotation;
mod rounding;
mod several;
mod spectrum;
mod summary;
mod torch_random;
pub mod train;
mod vera;
mod verify;
mod weight_space;
mod weights;

pub use adalora::{AdaLora, AdaLoraConfig, AdaLoraLayer};
pub use bitfit::{BitFit, BitFitConfig, BitFitLayer, NormWeights};
pub use boft::{Boft, BoftConfig, BoftLayer};
pub use bottleneck::{
    AdapterResidual, Bottleneck, BottleneckConfig, InitBottleneck, InitPhm, NonLinearity, PhmConfig,
    ReductionFactor, Scaling,
};
pub use combine::{Combination, MajoritySign, Rule, combine};
pub use dropout::Dropout;
pub use error::{Error, Result};
pub use extract::{ExtractConfig, ExtractRank, ExtractReport, ExtractedLayer, extract};
pub use full::FullFineTune;
pub use ia3::{Feedforward, Ia3, Ia3Config, Ia3Layer};
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
pub use prompts::{
    Learned, LearnedTensor, MultitaskPrompt, MultitaskPromptTuning, MultitaskPromptTuningConfig,
    MultitaskPromptTuningInit, PTuning, PTuningConfig, ParamSource, Prefix, PrefixInit, PrefixTuning,
    PrefixTuningConfig, Prompt, PromptConfig, PromptEncoder, PromptEncoderKind, PromptMethod, PromptScope,
    PromptSizes, PromptTuning, PromptTuningConfig, PromptTuningInit, Start,
};
pub use rank_patterns::RankPatterns;
pub use rounding::{LayerRounding, RoundingReport, rounding_report, save_merged_gguf};
pub use several::{AdapterSet, Effect, Place, RowAdapters, StackedAdapters};
pub use spectrum::{LayerSpectrum, Spectrum};
pub use summary::{ParameterSummary, trainable_parameters};
pub use vera::{Projections, Vera, VeraConfig, VeraLayer};
pub use verify::{Difference, MergeReport, Scored, verify_merge};
pub use weight_space::WeightSpace;
