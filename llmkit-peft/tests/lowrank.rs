//! LoRA's options: what PEFT computes with each, its folders both ways, and what every method promises.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Int, Tensor};
use common::method::{Promises, check_method};
use common::{Expected, fixtures, ids, largest_difference, values};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::{CausalLm, Encoder, Model, load_causal_lm, load_encoder};
use llmkit_core::{Adapter, NoAdapter};
use llmkit_peft::data::{Batch, Example};
use llmkit_peft::{
    Error, Eva, EvaConfig, InitLora, Lora, LoraConfig, LoraPlus, Method, PeftModule, Scope, Targets,
    TokenIndices, eva_lora, loftq, merge,
};
use serde_json::Value;

enum Base {
    Causal(Arc<dyn CausalLm>),
    Encoder(Arc<dyn Encoder>),
}

impl Base {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures").join(name);
        let checkpoint = Checkpoint::open(folder).unwrap();
        match name.starts_with("encoders/") {
            true => Self::Encoder(load_encoder(&checkpoint, &common::device()).unwrap()),
            false => Self::Causal(load_causal_lm(&checkpoint, &common::device()).unwrap()),
        }
    }

    fn of(fixture: &str) -> Self {
        Self::open(std::fs::read_to_string(folder(fixture).join("base.txt")).unwrap().trim())
    }

    fn model(&self) -> &dyn Model {
        match self {
            Self::Causal(model) => model.as_ref(),
            Self::Encoder(model) => model.as_ref(),
        }
    }

    fn run(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        match self {
            Self::Causal(model) => model.forward(ids, adapter),
            Self::Encoder(model) => model.forward(ids, &vec![seq; batch], None, adapter),
        }
    }

    fn output(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Vec<f32> {
        values(self.run(ids, adapter))
    }

    fn merged(&self, adapter: &dyn Method) -> Self {
        match self {
            Self::Causal(model) => Self::Causal(merge(model.as_ref(), adapter).unwrap()),
            Self::Encoder(model) => Self::Encoder(merge(model.as_ref(), adapter).unwrap()),
        }
    }
}

fn folder(fixture: &str) -> PathBuf {
    fixtures().join("lowrank").join(fixture)
}

fn written(lora: &Lora) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    lora.save(out.path()).unwrap();
    out
}

/// Our output is PEFT's, merged or not.
fn check_output(fixture: &str) -> (Base, Lora, Expected) {
    let base = Base::of(fixture);
    let lora = Lora::load(base.model(), folder(fixture)).unwrap();
    let expected = Expected::open(folder(fixture).join("expected.safetensors"));
    let (values, shape) = expected.ints("input_ids");
    let input = ids(&values, shape);
    let adapted = base.output(input.clone(), &lora);
    let difference = largest_difference(&adapted, &expected.floats("output"));
    assert!(difference < 1e-4, "{fixture}: the output differs by {difference}");
    let effect = largest_difference(&adapted, &base.output(input.clone(), &NoAdapter));
    assert!(effect > 0.1, "{fixture}: the fixture's adapter does nothing");

    let merged = base.merged(&lora).output(input, &NoAdapter);
    let difference = largest_difference(&merged, &adapted);
    assert!(difference < 1e-4, "{fixture}: merged and unmerged differ by {difference}");
    if expected.names().contains(&"merged") {
        let difference = largest_difference(&merged, &expected.floats("merged"));
        assert!(difference < 1e-4, "{fixture}: merged differs from PEFT's by {difference}");
    }
    (base, lora, expected)
}

/// And what we write back is what PEFT wrote.
fn check(fixture: &str) {
    let (_, lora, _) = check_output(fixture);
    let out = written(&lora);
    let open = |folder: &Path| Safetensors::open(folder.join("adapter_model.safetensors")).unwrap();
    let (theirs, ours) = (open(&folder(fixture)), open(out.path()));
    assert_eq!(theirs.names(), ours.names(), "{fixture}");
    for name in theirs.names() {
        assert_eq!(theirs.info(&name), ours.info(&name), "{fixture}: {name}");
        assert_eq!(theirs.read_f32(&name).unwrap(), ours.read_f32(&name).unwrap(), "{fixture}: {name}");
    }
    assert_eq!(config(&folder(fixture)), config(out.path()), "{fixture}");
}

/// The configuration, with numbers by value and sets in order.
fn config(folder: &Path) -> Value {
    fn by_value(value: &mut Value) {
        match value {
            Value::Number(number) => *value = Value::from(number.as_f64().unwrap()),
            Value::Array(items) => items.iter_mut().for_each(by_value),
            Value::Object(fields) => fields.values_mut().for_each(by_value),
            _ => {}
        }
    }
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    by_value(&mut config);
    if let Some(names) = config["target_modules"].as_array_mut() {
        names.sort_by_key(Value::to_string);
    }
    config
}

macro_rules! fixtures {
    ($check:ident { $($test:ident: $folder:literal),+ $(,)? }) => {
        $(
            #[test]
            fn $test() {
                $check($folder);
            }
        )+
    };
}

fixtures! { check {
    dora_on_llama: "dora-llama",
    dora_on_qwen_with_biases_and_rslora: "dora-qwen",
    dora_on_bert: "dora-bert",
    dora_on_an_embedding: "dora-embedding",
    dora_on_berts_embedding: "dora-embedding-bert",
    a_bias_on_lora_b_of_qwen: "bias-qwen",
    a_bias_on_lora_b_beside_all_biases_of_bert: "bias-bert",
    an_embedding_whose_tied_head_stays: "embedding-llama",
    an_embedding_and_a_head: "embedding-untied",
    an_embedding_whose_tied_head_follows: "embedding-qwen-tied",
    a_tied_head_that_follows_where_targets_are_a_regex: "embedding-qwen-tied-regex",
    an_embedding_saved_whole_whose_tied_head_follows: "saved-qwen-tied",
    embeddings_of_bert: "embedding-bert",
    a_tied_head_alone: "head-tied",
    tokens_with_a_tied_head: "tokens-llama",
    tokens_of_a_tied_embedding_and_head_apart: "tokens-qwen",
    tokens_named_for_both_that_are_tied: "tokens-tied-dict",
    tokens_of_bert: "tokens-bert",
    orthogonal_factors: "orthogonal-llama",
    a_converted_pissa: "pissa-converted",
    a_converted_olora: "olora-converted",
} }

/// A folder whose base PEFT changed: written back as an ordinary LoRA of twice the rank that computes the same.
fn check_unconverted(fixture: &str) {
    let (base, lora, expected) = check_output(fixture);
    let out = written(&lora);
    let (before, after) = (config(&folder(fixture)), config(out.path()));
    assert_eq!(after["init_lora_weights"], Value::Bool(true));
    assert_eq!(after["r"].as_f64().unwrap(), 2.0 * before["r"].as_f64().unwrap());
    let again = Lora::load(base.model(), out.path()).unwrap();
    for ((path, sizes), (_, doubled)) in lora.targets().zip(again.targets()) {
        assert_eq!(2 * sizes.rank, doubled.rank, "{path}");
        assert!((sizes.scale - doubled.scale).abs() < 1e-12, "{path}");
    }
    let (values, shape) = expected.ints("input_ids");
    let difference =
        largest_difference(&base.output(ids(&values, shape), &again), &expected.floats("output"));
    assert!(difference < 1e-4, "{fixture}: converted, the output differs by {difference}");
}

fixtures! { check_unconverted {
    pissa_on_llama: "pissa-llama",
    pissa_on_qwen_with_rslora: "pissa-qwen",
    pissa_on_bert_with_a_rank_pattern: "pissa-bert",
    pissa_with_dora: "pissa-dora",
    olora_on_llama: "olora-llama",
    olora_on_qwen: "olora-qwen",
    olora_on_bert: "olora-bert",
} }

/// Every parameter's gradient of `loss`.
fn gradients(lora: &Lora, loss: Tensor<1>) -> BTreeMap<String, Vec<f32>> {
    struct Visitor<'a> {
        tape: burn::tensor::Gradients,
        names: &'a BTreeMap<ParamId, String>,
        found: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad_remove(&mut self.tape).unwrap();
            self.found.insert(self.names[&param.id].clone(), values(gradient));
        }
    }
    let names = lora.parameter_names().into_iter().collect();
    let mut visitor = Visitor { tape: loss.backward(), names: &names, found: BTreeMap::new() };
    lora.visit(&mut visitor);
    visitor.found
}

/// Among others: DoRA's lengths are constants, and a tied head's gradients reach the embedding's factors.
#[test]
fn gradients_are_torchs() {
    for fixture in ["dora-llama", "dora-embedding", "tokens-llama", "pissa-llama"] {
        let base = Base::of(fixture);
        let lora = Lora::load(base.model(), folder(fixture)).unwrap().train();
        let expected = Expected::open(folder(fixture).join("expected.safetensors"));
        let (values, shape) = expected.ints("input_ids");
        let loss = base.run(ids(&values, shape), &lora).square().sum() / 2.0;
        let found = gradients(&lora, loss);
        let names = expected.names();
        let wanted: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("grad.")).collect();
        assert_eq!(wanted.len(), found.len(), "{fixture}");
        for name in wanted {
            let wanted = expected.floats(&format!("grad.{name}"));
            let size = wanted.iter().fold(0.0f32, |size, g| size.max(g.abs()));
            let difference = largest_difference(&wanted, &found[name]);
            assert!(difference < 1e-4 * size.max(1.0), "{fixture}: {name} differs by {difference} of {size}");
        }
    }
}

/// torch computes the gradients of a tied head's factors apart from the embedding's (and steps both); ours is their sum.
#[test]
fn a_tied_head_gives_its_gradient_to_the_embedding() {
    let base = Base::of("embedding-qwen-tied");
    let lora = Lora::load(base.model(), folder("embedding-qwen-tied")).unwrap();
    let expected = Expected::open(folder("embedding-qwen-tied").join("expected.safetensors"));
    let (values, shape) = expected.ints("input_ids");
    let input = ids(&values, shape);
    let trained = lora.train();
    let loss = |lora: &Lora| base.run(input.clone(), lora).square().sum() / 2.0;
    let found = gradients(&trained, loss(&trained));
    let prefix = "base_model.model.model.embed_tokens.lora_embedding_A";
    let of_embedding = expected.floats(&format!("grad.{prefix}"));
    let of_head = expected.floats("grad_head.lora_B.transposed");
    let sum: Vec<f32> = of_embedding.iter().zip(&of_head).map(|(a, b)| a + b).collect();
    let size = sum.iter().fold(0.0f32, |size, g| size.max(g.abs()));
    let difference = largest_difference(&sum, &found[prefix]);
    assert!(difference < 1e-4 * size, "differs by {difference} of {size}");
}

fn llama() -> Arc<dyn CausalLm> {
    common::base("gqa-tied")
}

fn check_promises(config: LoraConfig) {
    let model = llama();
    check_method(
        &model,
        Promises::default(),
        || Lora::new(model.as_ref(), config.clone(), 5).unwrap(),
        |folder| Lora::load(model.as_ref(), folder).unwrap(),
    );
}

fn some_layers() -> LoraConfig {
    LoraConfig::new(Targets::names(["q_proj", "v_proj", "down_proj"])).with_rank(4).with_alpha(6.0)
}

#[test]
fn dora_keeps_what_methods_promise() {
    check_promises(some_layers().with_dora(true).with_dropout(0.1));
}

#[test]
fn pissa_keeps_what_methods_promise() {
    check_promises(some_layers().with_init(InitLora::Pissa).with_rslora(true).with_rank_for("v_proj", 3));
}

#[test]
fn a_randomised_pissa_keeps_what_methods_promise() {
    check_promises(some_layers().with_init(InitLora::PissaFast(8)));
}

#[test]
fn olora_keeps_what_methods_promise() {
    check_promises(some_layers().with_init(InitLora::Olora).with_dropout(0.1));
}

#[test]
fn orthogonal_factors_keep_what_methods_promise() {
    check_promises(some_layers().with_init(InitLora::Orthogonal));
}

#[test]
fn pissa_with_dora_keeps_what_methods_promise() {
    check_promises(some_layers().with_init(InitLora::Pissa).with_dora(true));
}

#[test]
fn embeddings_keep_what_methods_promise() {
    let targets = || Targets::names(["embed_tokens", "q_proj"]);
    check_promises(LoraConfig::new(targets()).with_rank(4));
    check_promises(LoraConfig::new(targets()).with_rank(4).with_weight_tying(true));
    check_promises(LoraConfig::new(targets()).with_rank(4).with_dora(true));
    check_promises(LoraConfig::new(targets()).with_rank(4).with_init(InitLora::Olora));
}

#[test]
fn an_embedding_saved_whole_keeps_what_methods_promise_with_its_head() {
    let scope = Scope::new(Targets::names(["q_proj"])).with_modules_to_save(["embed_tokens"]);
    check_promises(LoraConfig::new(scope.clone()).with_weight_tying(true));
    check_promises(LoraConfig::new(scope));
    let head = Scope::new(Targets::names(["q_proj"])).with_modules_to_save(["lm_head"]);
    let error = Lora::new(llama().as_ref(), LoraConfig::new(head).with_weight_tying(true), 0).unwrap_err();
    assert!(error.to_string().contains("embed_tokens"), "{error}");
}

#[test]
fn single_tokens_keep_what_methods_promise() {
    check_promises(some_layers().with_trainable_tokens([3, 4, 5, 20]));
}

#[test]
fn lora_plus_keeps_what_methods_promise() {
    let config = LoraConfig::new(Targets::names(["embed_tokens", "q_proj"])).with_rank(2).with_dora(true);
    check_promises(config.with_lora_plus(LoraPlus::new(4.3).with_embedding_rate(0.3, 0.7)));
}

#[test]
fn lora_plus_groups_as_peft_does() {
    let model = common::base("untied-llama3");
    let scope =
        Scope::new(Targets::names(["embed_tokens", "q_proj"])).with_modules_to_save(["lm_head", "norm"]);
    let plus = LoraPlus::new(16.0).with_embedding_rate(0.125, 0.5);
    let config = LoraConfig::new(scope).with_rank(2).with_dora(true).with_lora_plus(plus);
    let lora = Lora::new(model.as_ref(), config, 0).unwrap();
    let factors = lora.learning_rate_factors();
    let rates: BTreeMap<String, f64> = lora
        .parameter_names()
        .into_iter()
        .map(|(id, name)| (name, 0.5 * factors.get(&id).copied().unwrap_or(1.0)))
        .collect();
    let text = std::fs::read_to_string(folder("loraplus.json")).unwrap();
    let expected: BTreeMap<String, f64> = serde_json::from_str(&text).unwrap();
    let expected: BTreeMap<String, f64> = expected
        .into_iter()
        .map(|(name, rate)| {
            let name = name.replace(".modules_to_save", "").replace(".default", "");
            (name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector"), rate)
        })
        .collect();
    assert_eq!(rates, expected);
}

#[test]
fn tokens_and_factors_that_can_not_be_are_refused() {
    let model = llama();
    let refused = |config: LoraConfig, words: &[&str]| {
        let error = Lora::new(model.as_ref(), config, 0).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let q = || LoraConfig::new(Targets::names(["q_proj"]));
    refused(q().with_trainable_tokens([1, 101]), &["trainable_token_indices", "101"]);
    refused(q().with_trainable_tokens([7, 7]), &["trainable_token_indices", "twice"]);
    refused(q().with_trainable_tokens([]), &["trainable_token_indices"]);
    let with_embedding = LoraConfig::new(Targets::names(["embed_tokens"]));
    refused(with_embedding.clone().with_trainable_tokens([1]), &["trainable_token_indices", "embed_tokens"]);
    refused(with_embedding.clone().with_lora_bias(true), &["lora_bias", "embed_tokens"]);
    refused(with_embedding.with_weight_tying(true).with_dora(true), &["ensure_weight_tying"]);
    refused(LoraConfig::new(Targets::names(["lm_head"])).with_weight_tying(true), &["embed_tokens"]);
    let saved = Scope::new(Targets::names(["q_proj"])).with_modules_to_save(["embed_tokens"]);
    refused(LoraConfig::new(saved).with_trainable_tokens([1]), &["trainable_token_indices", "embed_tokens"]);
    let mut unknown = q();
    unknown.trainable_token_indices =
        Some(TokenIndices::Layers([("wte".to_owned(), vec![1])].into_iter().collect()));
    refused(unknown, &["trainable_token_indices", "wte"]);
    refused(q().with_init(InitLora::Pissa).with_rank(49), &["r", "49"]);
    refused(q().with_init(InitLora::Pissa).with_alpha(0.0), &["lora_alpha"]);
    refused(q().with_init(InitLora::Orthogonal).with_rank(3), &["even"]);
    refused(q().with_lora_bias(true).with_dora(true), &["lora_bias"]);
    refused(q().with_lora_bias(true).with_init(InitLora::Olora), &["lora_bias"]);
    refused(q().with_lora_plus(LoraPlus::new(f64::NAN)), &["lora_plus"]);
}

#[test]
fn copies_that_are_none_are_refused() {
    // The first tensor of each file by name is a copy: of the base's, or of the embedding's.
    for (fixture, key) in [
        ("embedding-llama", "embed_tokens.base_layer.weight"),
        ("embedding-qwen-tied", "lm_head.base_layer.weight"),
        ("saved-qwen-tied", "lm_head.weight"),
    ] {
        let copy = tempfile::tempdir().unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(folder(fixture).join(file), copy.path().join(file)).unwrap();
        }
        let path = copy.path().join("adapter_model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
        bytes[header + 3] ^= 0x80;
        std::fs::write(&path, bytes).unwrap();
        let Err(Error::Adapter { mismatched, .. }) = Lora::load(Base::of(fixture).model(), copy.path())
        else {
            panic!("loaded an adapter of another base");
        };
        assert!(mismatched[0].contains(key), "{mismatched:?}");
    }
}

#[test]
fn a_hostile_rank_takes_no_memory() {
    let copy = tempfile::tempdir().unwrap();
    let file = "adapter_model.safetensors";
    std::fs::copy(folder("dora-embedding").join(file), copy.path().join(file)).unwrap();
    let mut config = config_of("dora-embedding");
    config["r"] = Value::from(65536);
    config["lora_alpha"] = Value::from(1);
    std::fs::write(copy.path().join("adapter_config.json"), config.to_string()).unwrap();
    let Err(Error::Adapter { mismatched, .. }) = Lora::load(Base::of("dora-embedding").model(), copy.path())
    else {
        panic!("loaded an adapter of another rank");
    };
    assert_eq!(mismatched.len(), 6, "{mismatched:?}");
}

#[test]
fn a_checkpoint_of_pissa_needs_its_own_folder() {
    let model = llama();
    let lora = || Lora::new(model.as_ref(), some_layers().with_init(InitLora::Pissa), 1).unwrap();
    let state = tempfile::tempdir().unwrap();
    lora().save_training_state(state.path()).unwrap();
    let error = lora().load_training_state(state.path()).unwrap_err().to_string();
    assert!(error.contains("own folder"), "{error}");
}

/// The directions and ranks are PEFT's; both are found by random sketches.
#[test]
fn eva_finds_what_peft_finds() {
    let model = llama();
    let targets = Targets::names(["q_proj", "k_proj", "o_proj", "down_proj"]);
    let config = LoraConfig::new(targets).with_rank(3).with_alpha(6.0);
    let eva = Eva::new(model.as_ref(), config, EvaConfig::default().with_tau(0.999)).unwrap();
    let expected = Expected::open(folder("eva").join("expected.safetensors"));
    let batches = ["batch.0", "batch.1"].map(|name| {
        let (values, shape) = expected.ints(name);
        ids(&values, shape)
    });
    let mut batches = batches.iter().cycle().take(200);
    let converged = batches.any(|batch| {
        let watched = logits(model.as_ref(), batch, &eva);
        assert_eq!(watched, logits(model.as_ref(), batch, &NoAdapter));
        eva.end_batch().unwrap()
    });
    assert!(converged);
    let lora = eva.into_lora(model.as_ref(), 0).unwrap();

    let out = written(&lora);
    let (theirs, ours) = (config_of("eva"), config_value(&lora));
    for field in [
        "init_lora_weights",
        "eva_config",
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
    ] {
        assert_eq!(theirs[field], ours[field], "{field}");
    }
    let ours = Safetensors::open(out.path().join("adapter_model.safetensors")).unwrap();
    for (path, sizes) in lora.targets() {
        assert_eq!(sizes.scale, 2.0, "{path}");
        let wanted = expected.floats(&format!("components.{path}"));
        let found = ours.read_f32(&format!("base_model.model.{path}.lora_A.weight")).unwrap();
        assert_eq!(wanted.len(), found.len(), "{path}");
        let width = wanted.len() / sizes.rank;
        for (row, (wanted, found)) in wanted.chunks(width).zip(found.chunks(width)).enumerate() {
            let cosine: f32 = wanted.iter().zip(found).map(|(a, b)| a * b).sum();
            assert!(cosine > 0.97, "{path}, direction {row}: {cosine}");
        }
        let b = ours.read_f32(&format!("base_model.model.{path}.lora_B.weight")).unwrap();
        assert!(b.iter().all(|value| *value == 0.0));
    }
}

fn logits(model: &dyn CausalLm, ids: &Tensor<2, Int>, adapter: &dyn Adapter) -> Vec<f32> {
    common::logits(model, ids.clone(), adapter)
}

fn config_of(fixture: &str) -> Value {
    config(&folder(fixture))
}

#[test]
fn eva_keeps_what_methods_promise() {
    let model = llama();
    let data = common::examples(16, 101);
    let rows: Vec<&Example> = data.iter().collect();
    let batches: Vec<Batch> = rows.chunks(8).map(|rows| Batch::new(rows, &model.device())).collect();
    let make = || {
        let config = some_layers().with_rank(3).with_dropout(0.1);
        eva_lora(model.as_ref(), config, EvaConfig::default(), &batches, 1).unwrap()
    };
    let ranks: usize = make().targets().map(|(_, sizes)| sizes.rank).sum();
    assert_eq!(ranks, 9 * 3);
    check_method(&model, Promises::default(), make, |folder| Lora::load(model.as_ref(), folder).unwrap());
}

#[test]
fn eva_without_enough_positions_is_an_error() {
    let model = llama();
    let batch = Batch::new(&[&Example { ids: vec![5, 6, 7], prompt_len: 1 }], &model.device());
    let made = eva_lora(model.as_ref(), some_layers(), EvaConfig::default(), &[batch], 1);
    assert!(matches!(made, Err(Error::NoData { .. })), "{made:?}");
    let wrong = Eva::new(model.as_ref(), some_layers(), EvaConfig::default().with_rho(0.5));
    assert!(matches!(wrong, Err(Error::Setting { setting: "rho", .. })));
}

#[test]
fn loftq_stays_closer_to_the_base_than_rounding_alone() {
    let model = llama();
    let config = || LoraConfig::new(Targets::AllLinear).with_rank(8).with_alpha(4.0);
    let ids = common::some_ids(101);
    let base = logits(model.as_ref(), &ids, &NoAdapter);
    let (rounded, lora) = loftq(model.as_ref(), config(), 5, 0).unwrap();
    let distance =
        |logits: &[f32]| logits.iter().zip(&base).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    let alone = distance(&logits(rounded.as_ref(), &ids, &NoAdapter));
    let together = distance(&logits(rounded.as_ref(), &ids, &lora));
    assert!(alone > 1.0 && together < 0.7 * alone, "{together} {alone}");
    assert_eq!(logits(model.as_ref(), &ids, &NoAdapter), base, "the base was changed");
    assert_eq!(config_value(&lora)["init_lora_weights"], Value::Bool(true));

    let make = || loftq(model.as_ref(), some_layers().with_dora(true), 1, 0).unwrap().1;
    let (rounded, _) = loftq(model.as_ref(), some_layers().with_dora(true), 1, 0).unwrap();
    let promises = Promises { identity: false, ..Promises::default() };
    check_method(&rounded, promises, make, |folder| Lora::load(rounded.as_ref(), folder).unwrap());
}

fn config_value(lora: &Lora) -> Value {
    config(written(lora).path())
}
