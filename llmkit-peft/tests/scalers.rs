//! IA3, LN tuning, VeRA, AdaLoRA and BitFit: against PEFT, by what each promises, and against files that are wrong.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Distribution, Tensor};
use common::method::{Promises, check_method};
use common::{Expected, base, fixtures, ids, largest_difference, logits, some_ids};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::{
    CausalLm, Encoder, Model, SequenceClassifier, load_causal_lm, load_encoder, load_sequence_classifier,
};
use llmkit_core::nn::Layer;
use llmkit_core::{Adapter, NoAdapter};
use llmkit_peft::data::{Batch, Example};
use llmkit_peft::reparam::Attached;
use llmkit_peft::train::{AdamW, AdamWConfig, Silent, StepOptions, TrainConfig, Trainer, loss_and_gradients};
use llmkit_peft::{
    AdaLora, AdaLoraConfig, AdaLoraLayer, AdapterFolder, Bias, BitFit, BitFitConfig, Error, Ia3, Ia3Config,
    LnTuning, LnTuningConfig, Method, PeftModule, Progress, Result, Scope, Targets, Vera, VeraConfig,
    VeraLayer, WeightSpace, load_adapter, merge,
};
use serde_json::{Value, json};

// ---- against PEFT --------------------------------------------------------------------------------------------------

/// The kinds of base models that the fixtures have.
enum Base {
    Causal(Arc<dyn CausalLm>),
    Encoder(Arc<dyn Encoder>),
    Classifier(Arc<SequenceClassifier>),
}

impl Base {
    fn open(name: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures/llama").join(name);
        let (checkpoint, device) = (Checkpoint::open(folder).unwrap(), common::device());
        match checkpoint.config()["architectures"][0].as_str().unwrap() {
            "BertModel" => Self::Encoder(load_encoder(&checkpoint, &device).unwrap()),
            "BertForSequenceClassification" => {
                Self::Classifier(Arc::new(load_sequence_classifier(&checkpoint, &device).unwrap()))
            }
            _ => Self::Causal(load_causal_lm(&checkpoint, &device).unwrap()),
        }
    }

    fn model(&self) -> &dyn Model {
        match self {
            Self::Causal(model) => model.as_ref(),
            Self::Encoder(model) => model.as_ref(),
            Self::Classifier(model) => model.as_ref(),
        }
    }

    fn merged(&self, method: &dyn Method) -> Result<Self> {
        Ok(match self {
            Self::Causal(model) => Self::Causal(merge(model.as_ref(), method)?),
            Self::Encoder(model) => Self::Encoder(merge(model.as_ref(), method)?),
            Self::Classifier(model) => Self::Classifier(merge(model.as_ref(), method)?),
        })
    }

    /// What the fixture calls `logits`.
    fn output(&self, expected: &Expected, adapter: &dyn Adapter) -> Vec<f32> {
        let (values, shape) = expected.ints("input_ids");
        let input = ids(&values, shape);
        let encoded = || {
            let lengths: Vec<usize> =
                expected.ints("lengths").0.into_iter().map(|len| len as usize).collect();
            let (types, shape) = expected.ints("token_type_ids");
            (lengths, Some(ids(&types, shape)))
        };
        match self {
            Self::Causal(model) => logits(model.as_ref(), input, adapter),
            Self::Encoder(model) => {
                let (lengths, types) = encoded();
                let hidden = model.forward(input, &lengths, types, adapter);
                let [_, seq, width] = hidden.dims();
                let mut values = common::values(hidden);
                for (row, length) in lengths.iter().enumerate() {
                    values[(row * seq + length) * width..(row + 1) * seq * width].fill(0.0);
                }
                values
            }
            Self::Classifier(model) => {
                let (lengths, types) = encoded();
                common::values(model.forward(input, &lengths, types, adapter))
            }
        }
    }
}

fn folder(variant: &str) -> std::path::PathBuf {
    fixtures().join("scalers").join(variant)
}

fn base_of(variant: &str) -> Base {
    Base::open(std::fs::read_to_string(folder(variant).join("base.txt")).unwrap().trim())
}

fn check(variant: &str) {
    let folder = folder(variant);
    let base = base_of(variant);
    let method = load_adapter(base.model(), &folder).unwrap();
    let expected = Expected::open(folder.join("expected.safetensors"));

    let adapted = base.output(&expected, method.as_ref());
    let difference = largest_difference(&adapted, &expected.floats("logits"));
    assert!(difference < 1e-4, "{variant}: outputs differ by {difference}");
    let plain = base.output(&expected, &NoAdapter);
    assert!(largest_difference(&plain, &adapted) > 0.1, "{variant}: the fixture's adapter does nothing");

    if variant == "beft-llama" {
        let error = base.merged(method.as_ref()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::NotMergeable { .. }), "{error}");
        assert!(error.to_string().contains("v_proj has no bias"), "{error}");
    } else {
        let merged = base.merged(method.as_ref()).unwrap().output(&expected, &NoAdapter);
        let difference = largest_difference(&merged, &expected.floats("merged_logits"));
        assert!(difference < 1e-4, "{variant}: merged outputs differ by {difference}");
    }

    let out = tempfile::tempdir().unwrap();
    method.save(out.path()).unwrap();
    assert_same_folder(&folder, out.path(), variant);
}

fn assert_same_folder(theirs: &Path, ours: &Path, variant: &str) {
    let (a, b) = (tensors(theirs), tensors(ours));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{variant}");
    assert_eq!(a, b, "{variant}");
    assert_eq!(config(theirs), config(ours), "{variant}");
}

/// Each tensor's shape and bits.
fn tensors(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let file = Safetensors::open(folder.join("adapter_model.safetensors")).unwrap();
    let read = |name: String| {
        let shape = file.info(&name).unwrap().shape;
        let bits = file.read_f32(&name).unwrap().into_iter().map(f32::to_bits).collect();
        (name, (shape, bits))
    };
    file.names().into_iter().map(read).collect()
}

fn config(folder: &Path) -> Value {
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    // PEFT writes sets in no particular order.
    for field in ["target_modules", "modules_to_save", "exclude_modules", "feedforward_modules"] {
        if let Some(names) = config[field].as_array_mut() {
            names.sort_by_key(Value::to_string);
        }
    }
    config
}

macro_rules! peft_fixtures {
    ($($test:ident: $folder:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                check($folder);
            }
        )+

        #[test]
        fn every_fixture_has_its_test() {
            let tested = std::collections::BTreeSet::from([$($folder),+]);
            for entry in std::fs::read_dir(fixtures().join("scalers")).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let is_other = ["adalora-run", "torch_uniform.json"].contains(&name.as_str());
                assert!(is_other || tested.contains(name.as_str()), "{name}");
            }
        }
    };
}

peft_fixtures! {
    ia3_of_llama: "ia3-llama",
    ia3_with_biases: "ia3-llama-biases",
    ia3_without_feed_forward_layers: "ia3-no-feedforward",
    ia3_by_regular_expressions: "ia3-regex",
    ia3_of_qwen2: "ia3-qwen2",
    ia3_of_bert: "ia3-bert",
    ia3_of_a_classifier: "ia3-bert-sequence",
    ln_of_llama: "ln-llama",
    ln_of_qwen3: "ln-qwen3",
    ln_of_gemma3: "ln-gemma3",
    ln_of_bert: "ln-bert",
    ln_of_a_classifier: "ln-bert-sequence",
    ln_of_other_layers: "ln-other-layers",
    vera_of_llama: "vera-llama",
    vera_drawn_again_for_layers_of_all_sizes: "vera-all-linear",
    vera_with_all_biases: "vera-bias-all",
    vera_with_the_targets_biases: "vera-bias-vera-only",
    vera_of_one_block_of_qwen3: "vera-qwen3",
    vera_of_bert: "vera-bert",
    adalora_of_llama: "adalora-llama",
    adalora_of_many_ranks: "adalora-ranks",
    adalora_with_all_biases: "adalora-bias-all",
    adalora_with_the_targets_biases: "adalora-bias-lora-only",
    adalora_of_qwen2: "adalora-qwen2-ranks",
    adalora_of_bert: "adalora-bert-ranks",
    beft_where_there_is_no_bias: "beft-llama",
    beft_of_llama: "beft-llama-biases",
    beft_of_qwen2: "beft-qwen2",
    beft_of_bert: "beft-bert",
    beft_with_whole_norms: "bitfit-bert",
}

/// The losses, gradients and ranks of PEFT's own training, step by step, and its file at the end.
#[test]
fn adalora_trains_as_in_peft() {
    let folder = folder("adalora-run");
    let facts: Value = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    let expected = Expected::open(folder.join("expected.safetensors"));
    let (values, [rows, seq]) = expected.ints("input_ids");
    let (labels, _) = expected.ints("labels");
    assert!(labels.chunks(seq).all(|row| row[..3] == [-100; 3] && row[3..].iter().all(|label| *label >= 0)));
    let examples: Vec<Example> = values
        .chunks(seq)
        .map(|row| Example { ids: row.iter().map(|id| *id as u32).collect(), prompt_len: 3 })
        .collect();
    let model = base("gqa-tied");
    let mut adapter = AdaLora::load(model.as_ref(), folder.join("start")).unwrap().train();
    let mut optimizer =
        AdamW::new(AdamWConfig { eps: facts["eps"].as_f64().unwrap(), ..AdamWConfig::default() });
    let total_steps = rows / 2;
    for (index, step_examples) in examples.chunks(2).enumerate() {
        let number = |name: &str| facts[name][index].as_f64().unwrap();
        let batch = Batch::new(&step_examples.iter().collect::<Vec<_>>(), &common::device());
        let output = loss_and_gradients(model.as_ref(), &adapter, &batch, StepOptions::default());
        let mut gradients = output.gradients;
        gradients.scale(1.0 / output.targets as f64);
        let penalty = adapter.penalty().expect("the run has a penalty");
        let added = f64::from(penalty.clone().into_scalar::<f32>());
        gradients.accumulate(&adapter, penalty.backward());
        let loss = output.loss_sum / output.targets as f64 + added;
        assert!(
            (loss - number("losses")).abs() < 1e-4,
            "step {}: loss {loss}, not {}",
            index + 1,
            number("losses")
        );
        let norm = gradients.clip_global_norm(1.0);
        assert!((norm / number("grad_norms") - 1.0).abs() < 1e-4, "step {}: norm {norm}", index + 1);
        adapter = optimizer.step(adapter, &gradients, facts["learning_rate"].as_f64().unwrap());
        adapter = adapter.after_step(&Progress { step: index + 1, total_steps, gradients: &gradients });
        let ranks: Vec<usize> = adapter.valid().layers().iter().map(|layer| layer.nonzero_rank()).collect();
        assert_eq!(json!(ranks), facts["ranks"][index], "after step {}", index + 1);
    }
    let adapter = adapter.valid();
    let input = ids(&values[..2 * seq], [2, seq]);
    let difference = largest_difference(&logits(model.as_ref(), input, &adapter), &expected.floats("logits"));
    assert!(difference < 1e-3, "logits after the run differ by {difference}");

    let out = tempfile::tempdir().unwrap();
    adapter.save(out.path()).unwrap();
    assert_eq!(config(out.path()), config(&folder.join("end")));
    let (ours, theirs) = (tensors(out.path()), tensors(&folder.join("end")));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, (shape, bits)) in &theirs {
        assert_eq!(&ours[name].0, shape, "{name}");
        let floats = |bits: &[u32]| bits.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>();
        let difference = largest_difference(&floats(&ours[name].1), &floats(bits));
        assert!(difference < 1e-4, "{name} differs by {difference}");
    }
}

// ---- what every method promises ------------------------------------------------------------------------------------

#[test]
fn ia3_keeps_what_methods_promise() {
    let model = base("head-dim-bias");
    let config = || {
        let targets = Targets::names(["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]);
        Ia3Config::new(targets).with_feedforward_modules(Targets::names(["down_proj"]))
    };
    check_method(
        &model,
        Promises { learning_rate: 3e-2, ..Promises::default() },
        || Ia3::new(model.as_ref(), config(), 1).unwrap(),
        |folder| Ia3::load(model.as_ref(), folder).unwrap(),
    );
}

#[test]
fn ln_tuning_keeps_what_methods_promise() {
    let model = base("gqa-tied");
    check_method(
        &model,
        Promises { learning_rate: 3e-2, ..Promises::default() },
        || LnTuning::new(model.as_ref(), LnTuningConfig::new(Targets::ModelDefault), 1).unwrap(),
        |folder| LnTuning::load(model.as_ref(), folder).unwrap(),
    );
}

#[test]
fn vera_keeps_what_methods_promise() {
    let model = base("head-dim-bias");
    for save_projection in [true, false] {
        let config = || {
            VeraConfig::new(Targets::AllLinear)
                .with_rank(16)
                .with_projection_key(3)
                .with_save_projection(save_projection)
                .with_dropout(0.1)
                .with_bias(Bias::Targets)
        };
        check_method(
            &model,
            Promises { learning_rate: 3e-2, ..Promises::default() },
            || Vera::new(model.as_ref(), config(), 1).unwrap(),
            |folder| Vera::load(model.as_ref(), folder).unwrap(),
        );
    }
}

#[test]
fn bitfit_keeps_what_methods_promise() {
    let model = base("head-dim-bias");
    check_method(
        &model,
        Promises { learning_rate: 3e-2, ..Promises::default() },
        || BitFit::new(model.as_ref(), BitFitConfig::every_bias(model.as_ref()).unwrap(), 1).unwrap(),
        |folder| BitFit::load(model.as_ref(), folder).unwrap(),
    );
}

/// 16 steps, as [`check_method`] makes them; it stops between two allocations, so that masked values have grown back.
fn adalora_config() -> AdaLoraConfig {
    AdaLoraConfig::new(Targets::AllLinear, 16).with_ranks(4, 2).with_warmup(2, 3).with_interval(4)
}

#[test]
fn adalora_keeps_what_methods_promise() {
    let model = base("head-dim-bias");
    for config in [
        adalora_config().with_dropout(0.1).with_bias(Bias::All),
        // The scale that depends on what is left.
        adalora_config().with_alpha(0.0).with_orth_reg_weight(0.0),
    ] {
        check_method(
            &model,
            Promises { learning_rate: 3e-2, ..Promises::default() },
            || AdaLora::new(model.as_ref(), config.clone(), 1).unwrap(),
            |folder| AdaLora::load(model.as_ref(), folder).unwrap(),
        );
    }
}

// ---- AdaLoRA -------------------------------------------------------------------------------------------------------

fn trained_adalora(model: &Arc<dyn CausalLm>, steps: usize) -> AdaLora {
    let adapter = AdaLora::new(model.as_ref(), adalora_config(), 1).unwrap();
    train(model, adapter, steps)
}

fn train<A: PeftModule>(model: &Arc<dyn CausalLm>, adapter: A, steps: usize) -> A {
    let config = TrainConfig {
        epochs: 100,
        max_steps: Some(steps),
        batch_size: 4,
        learning_rate: 2e-2,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(model.clone(), adapter, config).unwrap();
    trainer.fit(&common::examples(13, model.vocab_size() as u32), &[], &mut Silent).unwrap();
    trainer.into_adapter()
}

#[test]
fn adalora_ends_with_its_budget_and_a_file_without_the_rest() {
    let model = base("gqa-tied");
    let adapter = trained_adalora(&model, 16);
    let layers = adapter.layers();
    let ranks: Vec<usize> = layers.iter().map(|layer| layer.kept_rank()).collect();
    assert_eq!(ranks.iter().sum::<usize>(), 2 * layers.len());
    assert!(ranks.iter().any(|rank| *rank != 2), "every layer kept the same: {ranks:?}");
    assert!(layers.iter().all(|layer| layer.nonzero_rank() <= layer.kept_rank()));

    let folder = tempfile::tempdir().unwrap();
    adapter.save(folder.path()).unwrap();
    let loaded = AdaLora::load(model.as_ref(), folder.path()).unwrap();
    assert_eq!(loaded.layers().iter().map(|layer| layer.rank()).collect::<Vec<_>>(), ranks);
    let of = |adapter: &AdaLora| logits(model.as_ref(), some_ids(model.vocab_size()), adapter);
    let difference = largest_difference(&of(&loaded), &of(&adapter));
    assert!(difference < 2e-5, "the file computes something else, by {difference}");
}

#[test]
fn what_grew_back_since_the_last_allocation_is_in_the_file() {
    let model = base("gqa-tied");
    // The last allocation was after step 4 or 8; it masked what has trained on since.
    for steps in [6, 11] {
        let adapter = trained_adalora(&model, steps);
        let grown = |layer: &llmkit_peft::AdaLoraLayer| layer.nonzero_rank() > layer.kept_rank();
        assert!(adapter.layers().iter().any(grown), "after {steps} steps nothing has grown back");
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path()).unwrap();
        let loaded = AdaLora::load(model.as_ref(), folder.path()).unwrap();
        let of = |adapter: &AdaLora| logits(model.as_ref(), some_ids(model.vocab_size()), adapter);
        let difference = largest_difference(&of(&loaded), &of(&adapter));
        assert!(difference < 2e-5, "after {steps} steps the file computes something else, by {difference}");
    }
}

#[test]
fn an_adapter_with_layers_of_rank_zero_trains_on() {
    let variant = "adalora-ranks";
    let Base::Causal(model) = base_of(variant) else { panic!("a causal model") };
    let adapter = AdaLora::load(model.as_ref(), folder(variant)).unwrap();
    let before: Vec<usize> = adapter.layers().iter().map(|layer| layer.rank()).collect();
    assert!(before.contains(&0));
    let trained = train(&model, adapter, 20);
    let theirs = folder(variant);
    let folder = tempfile::tempdir().unwrap();
    trained.save(folder.path()).unwrap();
    let loaded = AdaLora::load(model.as_ref(), folder.path()).unwrap();
    let of = |adapter: &AdaLora| logits(model.as_ref(), some_ids(model.vocab_size()), adapter);
    let difference = largest_difference(&of(&loaded), &of(&trained));
    assert!(difference < 2e-5, "the file computes something else, by {difference}");
    // The pattern still counts from the first training.
    let pattern = config(folder.path())["rank_pattern"].as_object().unwrap().clone();
    let original = config(&theirs)["rank_pattern"].as_object().unwrap().clone();
    for (key, places) in &pattern {
        let (now, then) = (places.as_array().unwrap(), original[key].as_array().unwrap());
        assert_eq!(now.len(), 4);
        assert!(
            now.iter().zip(then).all(|(now, then)| *then == json!(true) || *now == json!(false)),
            "{key}"
        );
    }
    // 50 of 84 are there, and the target is 42.
    assert_eq!(loaded.layers().iter().map(|layer| layer.rank()).sum::<usize>(), 42.min(before.iter().sum()));
}

#[test]
fn an_impossible_rank_pattern_is_refused() {
    let variant = "adalora-ranks";
    let base = base_of(variant);
    for change in [
        |pattern: &mut Value| pattern["model.layers.0.self_attn.q_proj.lora_E"] = json!([true]),
        |pattern: &mut Value| {
            pattern["model.layers.9.self_attn.q_proj.lora_E"] = json!([true, true, true, true])
        },
        |pattern: &mut Value| *pattern = json!({"model.layers.0.self_attn.q_proj.lora_E": "all"}),
    ] {
        let copy = copy(variant);
        edit(copy.path(), |config| change(&mut config["rank_pattern"]));
        let error = load_adapter(base.model(), copy.path()).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error}");
    }
    // Possible, but not what the tensors are.
    let copy = copy(variant);
    edit(copy.path(), |config| config["rank_pattern"] = Value::Null);
    assert!(matches!(load_adapter(base.model(), copy.path()), Err(Error::Adapter { .. })));
}

// ---- VeRA ----------------------------------------------------------------------------------------------------------

#[test]
fn projections_drawn_again_are_those_that_were_saved() {
    // PEFT saved these from key 0.
    let theirs = tensors(&folder("vera-llama"));
    let model = base("gqa-tied");
    let config = VeraConfig::new(Targets::ModelDefault).with_rank(4);
    let out = tempfile::tempdir().unwrap();
    Vera::new(model.as_ref(), config, 0).unwrap().save(out.path()).unwrap();
    let ours = tensors(out.path());
    for key in ["base_model.vera_A", "base_model.vera_B"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
}

#[test]
fn missing_projections_are_named() {
    let base = base_of("vera-qwen3");
    let copy = copy("vera-qwen3");
    edit(copy.path(), |config| config["save_projection"] = json!(true));
    let Err(Error::Adapter { missing, .. }) = load_adapter(base.model(), copy.path()) else {
        panic!("loaded without its projections")
    };
    assert_eq!(missing, ["base_model.vera_A", "base_model.vera_B"]);

    let base = base_of("vera-llama");
    let copy = self::copy("vera-llama");
    edit(copy.path(), |config| config["r"] = json!(5));
    let Err(Error::Adapter { mismatched, .. }) = load_adapter(base.model(), copy.path()) else {
        panic!("loaded with projections of another rank")
    };
    assert_eq!(mismatched.len(), 2, "{mismatched:?}");
}

// ---- LN tuning -----------------------------------------------------------------------------------------------------

/// Moves every parameter at random.
struct Shake;

impl ModuleMapper for Shake {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|old| {
            let noise = Tensor::random(old.shape(), Distribution::Uniform(-0.2, 0.2), &old.device());
            old + noise
        })
    }
}

#[test]
fn ln_tuning_works_on_every_norm_of_every_architecture() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures");
    let mut seen = 0;
    for name in [
        "llama/gqa-tied",
        "llama/mistral",
        "decoders/gemma3",
        "decoders/mixtral",
        "decoders/phi3",
        "decoders/qwen2-window",
        "decoders/qwen3",
        "decoders/qwen3-moe",
    ] {
        let checkpoint = Checkpoint::open(core.join(name)).unwrap();
        let model = load_causal_lm(&checkpoint, &common::device()).unwrap();
        let run = |model: &dyn CausalLm, adapter: &dyn Adapter| {
            logits(model, some_ids(model.vocab_size()), adapter)
        };
        seen += check_norms(name, Base::Causal(model), &|base, adapter| match base {
            Base::Causal(model) => run(model.as_ref(), adapter),
            _ => unreachable!(),
        });
    }
    for name in ["bert", "roberta", "distilbert", "modernbert"] {
        let checkpoint = Checkpoint::open(core.join("encoders").join(name)).unwrap();
        let model = load_encoder(&checkpoint, &common::device()).unwrap();
        seen += check_norms(name, Base::Encoder(model), &|base, adapter| match base {
            Base::Encoder(model) => {
                let ids = some_ids(model.vocab_size());
                common::values(model.forward(ids, &[11, 7], None, adapter))[..11 * model.hidden_size()]
                    .to_vec()
            }
            _ => unreachable!(),
        });
    }
    assert!(seen > 60, "{seen} normalisations");
}

fn check_norms(name: &str, base: Base, output: &dyn Fn(&Base, &dyn Adapter) -> Vec<f32>) -> usize {
    let mut norms = Vec::new();
    base.model().visit(&mut |layer| {
        if let Layer::Norm(norm) = layer {
            norms.push(norm.path().to_owned());
        }
    });
    let config = LnTuningConfig::new(Targets::names(norms.clone()));
    let fresh = LnTuning::new(base.model(), config, 0).unwrap();
    assert_eq!(fresh.layers().len(), norms.len(), "{name}");
    let plain = output(&base, &NoAdapter);
    assert_eq!(largest_difference(&output(&base, &fresh), &plain), 0.0, "{name}: not the identity");
    let tuned = fresh.map(&mut Shake);
    let adapted = output(&base, &tuned);
    assert!(largest_difference(&adapted, &plain) > 1e-2, "{name}: the norms do nothing");
    let merged = output(&base.merged(&tuned).unwrap(), &NoAdapter);
    let difference = largest_difference(&merged, &adapted);
    assert!(difference < 1e-4, "{name}: merged and unmerged differ by {difference}");
    norms.len()
}

// ---- BitFit --------------------------------------------------------------------------------------------------------

#[test]
fn bitfit_trains_every_bias_of_bert_and_writes_what_peft_reads() {
    let base = base_of("bitfit-bert");
    let (mut biases, mut weights) = (Vec::new(), Vec::new());
    base.model().visit(&mut |layer| {
        let path = layer.path().to_owned();
        match layer {
            Layer::Linear(linear) if linear.bias.is_some() => biases.push(format!("{path}.beft_bias")),
            Layer::Norm(norm) if norm.bias.is_some() => {
                biases.push(format!("{path}.bias"));
                weights.push(format!("{path}.weight"));
            }
            _ => {}
        }
    });
    let fresh = BitFit::new(base.model(), BitFitConfig::every_bias(base.model()).unwrap(), 0).unwrap();
    let keyed = |names: &[String]| -> Vec<String> {
        let mut keys: Vec<_> = names.iter().map(|name| format!("{}{name}", AdapterFolder::PREFIX)).collect();
        keys.sort();
        keys
    };
    let mut trained: Vec<String> = fresh.parameter_names().into_iter().map(|(_, name)| name).collect();
    trained.sort();
    assert_eq!(trained, keyed(&biases));

    let tuned = fresh.map(&mut Shake);
    let out = tempfile::tempdir().unwrap();
    tuned.save(out.path()).unwrap();
    // The fields and keys of PEFT's own folder for this, and the weights of the norms as they were.
    let (ours, theirs) = (config(out.path()), config(&folder("bitfit-bert")));
    for field in ["peft_type", "target_modules", "modules_to_save", "init_weights"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    let (ours, theirs) = (tensors(out.path()), tensors(&folder("bitfit-bert")));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for key in keyed(&weights) {
        assert_eq!(ours[&key], theirs[&key], "{key}");
    }

    let loaded = BitFit::load(base.model(), out.path()).unwrap();
    let expected = Expected::open(folder("bitfit-bert").join("expected.safetensors"));
    let adapted = base.output(&expected, &tuned);
    assert!(largest_difference(&base.output(&expected, &NoAdapter), &adapted) > 0.1);
    assert_eq!(base.output(&expected, &loaded), adapted);
    assert_eq!(loaded.parameter_names().len(), biases.len(), "a loaded BitFit trains something else");
    let merged = base.merged(&tuned).unwrap().output(&expected, &NoAdapter);
    assert!(largest_difference(&merged, &adapted) < 1e-4);
    let again = tempfile::tempdir().unwrap();
    loaded.save(again.path()).unwrap();
    assert_same_folder(out.path(), again.path(), "bitfit");
    // Read without the field, the norms are whole layers: what PEFT makes of it.
    edit(out.path(), |config| {
        config.as_object_mut().unwrap().remove("bitfit_norms").unwrap();
    });
    let whole = BitFit::load(base.model(), out.path()).unwrap();
    assert!(largest_difference(&base.output(&expected, &whole), &adapted) < 1e-6);
    assert_eq!(whole.parameter_names().len(), biases.len() + weights.len());
}

#[test]
fn bitfit_needs_biases_and_leaves_a_classifier_alone() {
    let model = base("gqa-tied");
    let error = BitFitConfig::every_bias(model.as_ref()).unwrap_err();
    assert!(matches!(&error, Error::NoBias { model_type } if model_type == "llama"), "{error}");
    assert!(error.to_string().contains("has no biases"), "{error}");

    let base = base_of("ia3-bert-sequence");
    let config = BitFitConfig::every_bias(base.model()).unwrap().with_modules_to_save(["classifier"]);
    let bitfit = BitFit::new(base.model(), config, 0).unwrap();
    let names: Vec<String> = bitfit.parameter_names().into_iter().map(|(_, name)| name).collect();
    let classifier: Vec<_> = names.iter().filter(|name| name.contains("classifier")).collect();
    assert_eq!(classifier, ["base_model.model.classifier.weight", "base_model.model.classifier.bias"]);

    // A norm is no target by its name alone.
    let error = BitFit::new(base.model(), BitFitConfig::new(Targets::names(["LayerNorm"])), 0).unwrap_err();
    assert!(error.to_string().contains("every_bias"), "{error}");
}

// ---- any burn module -----------------------------------------------------------------------------------------------

#[derive(Module, Debug)]
struct Net {
    inner: burn::nn::Linear,
    outer: burn::nn::Linear,
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.outer.forward(self.inner.forward(x).tanh())
    }
}

/// Attached to a module that knows nothing of llmkit: it acts, saved and loaded is the same, and so is worked into the weights.
fn check_on_a_burn_module<L: WeightSpace>(config: L::Config) {
    let device = common::device();
    device.seed(11);
    let net = Net {
        inner: burn::nn::LinearConfig::new(6, 10).init(&device),
        outer: burn::nn::LinearConfig::new(10, 3).init(&device),
    };
    let x = Tensor::<2>::random([4, 6], Distribution::Uniform(-1.0, 1.0), &device);
    let run = |net: &Net| common::values(net.forward(x.clone()));
    let (adapted, adapter) = Attached::<L>::new(net.clone(), config, 5).unwrap();
    assert_eq!(adapter.targets().collect::<Vec<_>>(), ["inner", "outer"]);
    assert!(largest_difference(&run(&adapted), &run(&net)) > 1e-2, "it does nothing");
    let folder = tempfile::tempdir().unwrap();
    adapter.save(&adapted, folder.path()).unwrap();
    let (loaded, _) = Attached::<L>::load(net.clone(), folder.path()).unwrap();
    assert_eq!(run(&loaded), run(&adapted));
    assert!(largest_difference(&run(&adapted.clone().materialize()), &run(&adapted)) < 1e-6);
}

#[test]
fn vera_and_adalora_attach_to_any_burn_module() {
    let targets = || Targets::names(["inner", "outer"]);
    check_on_a_burn_module::<VeraLayer>(VeraConfig::new(targets()).with_rank(4).with_random_init());
    check_on_a_burn_module::<AdaLoraLayer>(
        AdaLoraConfig::new(targets(), 10).with_ranks(3, 2).with_random_init(),
    );
}

// ---- wrong files ---------------------------------------------------------------------------------------------------

/// A copy of a fixture's adapter, to be spoilt.
fn copy(variant: &str) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(folder(variant).join(file), out.path().join(file)).unwrap();
    }
    out
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn fields_that_mean_another_computation_are_refused() {
    for (variant, field, value) in [
        ("ia3-llama", "fan_in_fan_out", json!(true)),
        ("ia3-llama", "feedforward_modules", json!(["up_proj"])),
        ("ia3-llama", "layers_to_transform", json!([1])),
        ("ia3-regex", "feedforward_modules", json!("(?=lookahead)up_proj")),
        ("ln-llama", "layers_to_transform", json!([1])),
        ("beft-llama", "exclude_modules", json!(["k_proj"])),
        ("vera-llama", "exclude_modules", json!(["k_proj"])),
        ("vera-llama", "fan_in_fan_out", json!(true)),
        ("vera-llama", "r", json!(0)),
        ("vera-llama", "r", json!(1_000_000_000)),
        ("vera-llama", "vera_dropout", json!(1.0)),
        ("adalora-llama", "use_dora", json!(true)),
        ("adalora-llama", "trainable_token_indices", json!([1])),
        ("adalora-llama", "init_r", json!(0)),
        ("adalora-llama", "deltaT", json!(0)),
        ("adalora-llama", "beta1", json!(1.0)),
        ("adalora-llama", "orth_reg_weight", json!(-0.5)),
        ("adalora-llama", "total_step", json!(0)),
        ("adalora-llama", "total_step", Value::Null),
        ("beft-bert", "bitfit_norms", json!(["LayerNorm"])),
        ("beft-bert", "peft_type", json!("BITFIT")),
    ] {
        let base = base_of(variant);
        let copy = copy(variant);
        edit(copy.path(), |config| config[field] = value.clone());
        let error = load_adapter(base.model(), copy.path()).unwrap_err().to_string();
        // serde names the value's kind, and not always the field.
        let named = error.contains(field) || (value.is_null() && error.contains("expected usize"));
        assert!(named, "{variant}: {field}: {error}");
    }
}

#[test]
fn unknown_fields_are_kept_and_the_smallest_configs_load() {
    for (variant, smallest) in [
        ("ia3-llama", json!({"peft_type": "IA3"})),
        ("ln-llama", json!({"peft_type": "LN_TUNING"})),
        ("vera-llama", json!({"peft_type": "VERA", "r": 4})),
        ("adalora-llama", json!({"peft_type": "ADALORA", "init_r": 4, "total_step": 20})),
        ("beft-llama", json!({"peft_type": "BEFT"})),
    ] {
        let base = base_of(variant);
        let copy = copy(variant);
        edit(copy.path(), |config| config["from_the_future"] = json!({"depth": [1, 2]}));
        let out = tempfile::tempdir().unwrap();
        load_adapter(base.model(), copy.path()).unwrap().save(out.path()).unwrap();
        assert_eq!(config(out.path())["from_the_future"], json!({"depth": [1, 2]}), "{variant}");

        std::fs::write(copy.path().join("adapter_config.json"), smallest.to_string()).unwrap();
        let expected = Expected::open(folder(variant).join("expected.safetensors"));
        let adapted = base.output(&expected, load_adapter(base.model(), copy.path()).unwrap().as_ref());
        let difference = largest_difference(&adapted, &expected.floats("logits"));
        assert!(
            difference < 1e-4,
            "{variant}: with the smallest configuration, outputs differ by {difference}"
        );
    }
}

#[test]
fn architectures_without_a_default_need_names() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures");
    let checkpoint = Checkpoint::open(core.join("decoders/phi3")).unwrap();
    let model = load_causal_lm(&checkpoint, &common::device()).unwrap();
    let scope = || Scope::new(Targets::ModelDefault);
    let errors = [
        Ia3::new(model.as_ref(), Ia3Config::new(scope()), 0).map(|_| ()),
        Ia3::new(model.as_ref(), Ia3Config::new(Targets::names(["qkv_proj"])), 0).map(|_| ()),
        LnTuning::new(model.as_ref(), LnTuningConfig::new(scope()), 0).map(|_| ()),
        Vera::new(model.as_ref(), VeraConfig::new(scope()), 0).map(|_| ()),
        AdaLora::new(model.as_ref(), AdaLoraConfig::new(scope(), 10), 0).map(|_| ()),
        BitFit::new(model.as_ref(), BitFitConfig::new(scope()), 0).map(|_| ()),
    ];
    for result in errors {
        assert!(matches!(result, Err(Error::Config { .. })), "{result:?}");
    }
    let named = Vera::new(model.as_ref(), VeraConfig::new(Targets::names(["no_such_layer"])), 0);
    assert!(matches!(named, Err(Error::NoTarget { .. })), "{named:?}");
}
