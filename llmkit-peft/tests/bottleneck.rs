//! AdapterHub's folders, both ways, and what bottleneck adapters promise.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Tensor;
use common::method::{Promises, check_method};
use common::{Expected, base, device, fixtures, ids, largest_difference, some_ids, values};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::{
    CausalLm, Encoder, Model, SequenceClassifier, load_causal_lm, load_encoder, load_sequence_classifier,
};
use llmkit_core::{Adapter, NoAdapter};
use llmkit_peft::data::{Label, Labelled};
use llmkit_peft::train::{Silent, TrainConfig, Trainer};
use llmkit_peft::{
    AdapterResidual, Bottleneck, BottleneckConfig, Error, InitBottleneck, Method, NonLinearity, PhmConfig,
    ReductionFactor, Scaling, load_adapter, merge,
};
use serde_json::{Value, json};

/// The tiny models, as far as they have the same head or none.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Base {
    Causal(Arc<dyn CausalLm>),
    Encoder(Arc<dyn Encoder>),
    Classifier(SequenceClassifier),
}

impl Base {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures").join(name);
        let checkpoint = Checkpoint::open(folder).unwrap();
        if !name.starts_with("encoders/") {
            Self::Causal(load_causal_lm(&checkpoint, &device()).unwrap())
        } else if name.ends_with("-sequence") {
            Self::Classifier(load_sequence_classifier(&checkpoint, &device()).unwrap())
        } else {
            Self::Encoder(load_encoder(&checkpoint, &device()).unwrap())
        }
    }

    fn model(&self) -> &dyn Model {
        match self {
            Self::Causal(model) => model.as_ref(),
            Self::Encoder(model) => model.as_ref(),
            Self::Classifier(model) => model,
        }
    }

    /// The fixture's result, with zeros behind each row's length.
    fn run(&self, expected: &Expected, adapter: &dyn Adapter) -> Vec<f32> {
        let (input, shape) = expected.ints("input_ids");
        let input = ids(&input, shape);
        let types = expected.names().contains(&"token_type_ids").then(|| {
            let (types, shape) = expected.ints("token_type_ids");
            ids(&types, shape)
        });
        match self {
            Self::Causal(model) => values(model.forward(input, adapter)),
            Self::Encoder(model) => {
                let lengths = expected.lengths();
                let mut hidden = values(model.forward(input, &lengths, types, adapter));
                let width = hidden.len() / (shape[0] * shape[1]);
                for (row, length) in lengths.iter().enumerate() {
                    hidden[(row * shape[1] + length) * width..(row + 1) * shape[1] * width].fill(0.0);
                }
                hidden
            }
            Self::Classifier(model) => values(model.forward(input, &expected.lengths(), types, adapter)),
        }
    }
}

trait Lengths {
    fn lengths(&self) -> Vec<usize>;
}

impl Lengths for Expected {
    fn lengths(&self) -> Vec<usize> {
        self.all_ints("lengths").into_iter().map(|length| length as usize).collect()
    }
}

fn folder_of(variant: &str) -> PathBuf {
    fixtures().join("bottleneck").join(variant)
}

/// The fixture's base; where only the fixture has a head, with a fresh one in its place.
fn base_of(variant: &str) -> Base {
    let folder = folder_of(variant);
    let base = Base::open(std::fs::read_to_string(folder.join("base.txt")).unwrap().trim());
    match base {
        Base::Encoder(encoder) if folder.join("head_config.json").exists() => {
            let labels = Bottleneck::head_labels(folder).unwrap();
            Base::Classifier(SequenceClassifier::fresh(encoder, &labels, 1).unwrap())
        }
        base => base,
    }
}

fn json_of(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn check(variant: &str) {
    let folder = folder_of(variant);
    let base = base_of(variant);
    let adapter = Bottleneck::load(base.model(), &folder).unwrap();
    let expected = Expected::open(folder.join("expected.safetensors"));
    let adapted = base.run(&expected, &adapter);
    let name = if expected.names().contains(&"logits") { "logits" } else { "hidden" };
    let difference = largest_difference(&adapted, &expected.floats(name));
    assert!(difference < 1e-4, "{variant}: {name} differ by {difference}");
    let plain = base.run(&expected, &NoAdapter);
    assert!(largest_difference(&plain, &adapted) > 1e-1, "{variant}: the fixture's adapter does nothing");

    let out = tempfile::tempdir().unwrap();
    adapter.save(out.path()).unwrap();
    assert_same_folder(&folder, out.path(), variant);
}

fn assert_same_folder(theirs: &Path, ours: &Path, variant: &str) {
    let mut seen = 0;
    for entry in std::fs::read_dir(theirs).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if file == "base.txt" || file == "expected.safetensors" {
            continue;
        }
        seen += 1;
        if file.ends_with(".json") {
            assert_eq!(json_of(theirs.join(&file)), json_of(ours.join(&file)), "{variant}: {file}");
        } else {
            let (a, b) = (
                Safetensors::open(theirs.join(&file)).unwrap(),
                Safetensors::open(ours.join(&file)).unwrap(),
            );
            assert_eq!(a.names(), b.names(), "{variant}: {file}");
            for name in a.names() {
                assert_eq!(a.info(&name), b.info(&name), "{variant}: {name}");
                assert_eq!(a.read_f32(&name).unwrap(), b.read_f32(&name).unwrap(), "{variant}: {name}");
            }
        }
    }
    assert_eq!(std::fs::read_dir(ours).unwrap().count(), seen, "{variant}: other files");
}

macro_rules! adapterhub_fixtures {
    ($($test:ident: $folder:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                check($folder);
            }
        )+

        #[test]
        fn every_fixture_is_checked() {
            let mut named = vec![$($folder),+];
            named.sort_unstable();
            let entries = std::fs::read_dir(fixtures().join("bottleneck")).unwrap().map(|entry| entry.unwrap());
            let mut there: Vec<_> = entries
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect();
            there.sort_unstable();
            assert_eq!(named, there);
        }
    };
}

adapterhub_fixtures! {
    adapter_plus: "bert-adapter-plus",
    bert_houlsby_with_its_head: "bert-houlsby-head",
    bert_pfeiffer_with_a_flexible_head: "bert-pfeiffer-flex",
    bert_parallel: "bert-parallel",
    bert_parallel_beside_both_with_channel_scaling_and_a_norm: "bert-parallel-attention",
    a_residual_after_the_norm_and_widths_by_block: "bert-residual-after-ln",
    a_residual_after_the_sum_with_blocks_left_out: "bert-post-add",
    a_norm_after_and_learned_scaling: "bert-ln-after",
    a_norm_after_the_residual_of_a_wider_bottleneck: "bert-ln-after-residual",
    a_norm_before: "bert-ln-before",
    the_models_norm_twice: "bert-both-ln",
    gating: "gating",
    roberta_houlsby: "roberta-houlsby",
    roberta_pfeiffer: "roberta-pfeiffer",
    roberta_parallel: "roberta-parallel",
    roberta_with_a_flexible_head_of_two_layers: "roberta-flex",
    xlm_roberta_with_its_head: "xlm-roberta-head",
    distilbert_houlsby_with_its_head: "distilbert-houlsby-head",
    distilbert_pfeiffer: "distilbert-pfeiffer",
    llama_houlsby: "llama-houlsby",
    llama_pfeiffer: "llama-pfeiffer",
    llama_parallel: "llama-parallel",
    mistral_parallel: "mistral-parallel",
    qwen3_houlsby_through_an_interface: "qwen3-houlsby",
    compacter_with_shared_rules: "bert-compacter",
    compacter_whole_without_biases: "bert-compacter-plain",
    compacter_with_everything_shared_and_factorised: "bert-compacter-factorized",
    compacter_on_llama: "llama-compacter",
}

#[test]
fn every_non_linearity_is_transformers() {
    let expected = Expected::open(fixtures().join("bottleneck/activations.safetensors"));
    let x = expected.floats("x");
    let mut checked = 0;
    for name in expected.names().into_iter().filter(|name| *name != "x") {
        let x = Tensor::<1>::from_data(burn::tensor::TensorData::new(x.clone(), [x.len()]), &device());
        let function = NonLinearity::from_name(name).unwrap_or_else(|| panic!("{name} is not known"));
        let difference = largest_difference(&values(function.apply(x)), &expected.floats(name));
        assert!(difference < 1e-5, "{name} differs by {difference}");
        assert_eq!(NonLinearity::from_name(&name.to_uppercase()), Some(function));
        checked += 1;
    }
    assert_eq!(checked, 21);
    assert_eq!(NonLinearity::from_name("prelu"), None);
}

#[test]
fn named_configurations_are_adapterhubs() {
    let expected = json_of(fixtures().join("bottleneck/configs.json"));
    let named = [
        ("houlsby", BottleneckConfig::houlsby()),
        ("pfeiffer", BottleneckConfig::pfeiffer()),
        ("parallel", BottleneckConfig::parallel()),
        ("adapter_plus", BottleneckConfig::adapter_plus()),
        ("compacter", BottleneckConfig::compacter()),
        ("compacter_plus_plus", BottleneckConfig::compacter_plus_plus()),
    ];
    assert_eq!(expected.as_object().unwrap().len(), named.len());
    for (name, config) in named {
        assert_eq!(Value::Object(config.to_json()), expected[name], "{name}");
        let parsed = BottleneckConfig::parse(expected[name].as_object().unwrap(), Path::new("file")).unwrap();
        assert_eq!(parsed, config, "{name}");
    }
}

// ---- what is made here ---------------------------------------------------------------------------------------------

fn promises(config: BottleneckConfig, identity: bool, learning_rate: f64) {
    let model = base("gqa-tied");
    check_method(
        &model,
        Promises { identity, merges: false, learning_rate },
        || Bottleneck::new(model.as_ref(), config.clone(), 5).unwrap(),
        |folder| Bottleneck::load(model.as_ref(), folder).unwrap(),
    );
}

#[test]
fn houlsby_keeps_what_methods_promise() {
    promises(BottleneckConfig::houlsby().with_reduction_factor(4.0).with_dropout(0.1), false, 1e-2);
    let exact = BottleneckConfig::houlsby().with_init(InitBottleneck::MamAdapter);
    promises(exact.with_reduction_factor(6.0), true, 1e-2);
}

#[test]
fn pfeiffer_keeps_what_methods_promise() {
    let config = BottleneckConfig { stochastic_depth: 0.2, ..BottleneckConfig::pfeiffer() };
    promises(config.with_reduction_factor(4.0).with_init(InitBottleneck::Houlsby), false, 1e-2);
    let exact = BottleneckConfig::pfeiffer().with_init(InitBottleneck::MamAdapter);
    promises(exact.with_reduction_factor(4.0).with_leave_out([1]), true, 1e-2);
}

#[test]
fn parallel_keeps_what_methods_promise() {
    promises(BottleneckConfig::parallel().with_dropout(0.1), true, 5e-3);
}

#[test]
fn every_option_keeps_what_methods_promise() {
    let config = BottleneckConfig {
        ln_before: true,
        ln_after: true,
        use_gating: true,
        adapter_residual_before_ln: true,
        residual_before_ln: AdapterResidual::Sum,
        original_ln_before: true,
        ..BottleneckConfig::houlsby()
    };
    promises(config.with_reduction_factor(8.0).with_scaling(Scaling::Channel), false, 1e-2);
}

#[test]
fn compacter_keeps_what_methods_promise() {
    promises(BottleneckConfig::compacter().with_reduction_factor(6.0), false, 2e-2);
}

#[test]
fn a_fresh_head_is_saved_as_a_prediction_head() {
    let Base::Classifier(model) = Base::open("encoders/bert-sequence") else { panic!() };
    let config = BottleneckConfig::pfeiffer().with_reduction_factor(6.0).with_head(true);
    let adapter = Bottleneck::new(&model, config, 1).unwrap().with_name("my-task").unwrap();
    let adapter = adapter.with_model_name("encoders/bert-sequence");
    let out = tempfile::tempdir().unwrap();
    adapter.save(out.path()).unwrap();
    let theirs = folder_of("bert-houlsby-head");
    for file in ["adapter_config.json", "head_config.json"] {
        let (mut a, mut b) = (json_of(theirs.join(file)), json_of(out.path().join(file)));
        // Ours is Pfeiffer's.
        for config in [&mut a, &mut b] {
            if file == "adapter_config.json" {
                for field in ["mh_adapter", "original_ln_before", "non_linearity", "reduction_factor"] {
                    assert!(config["config"].as_object_mut().unwrap().shift_remove(field).is_some());
                }
            }
        }
        assert_eq!(a, b, "{file}");
    }
    let names = |folder: &Path| Safetensors::open(folder.join("model_head.safetensors")).unwrap().names();
    assert_eq!(names(&theirs), names(out.path()));

    assert_eq!(Bottleneck::head_labels(out.path()).unwrap(), ["cold", "warm", "hot"]);
    assert_eq!(Bottleneck::head_labels(folder_of("bert-pfeiffer-flex")).unwrap(), ["cold", "warm", "hot"]);
    let loaded = load_adapter(&model, out.path()).unwrap();
    let expected = Expected::open(theirs.join("expected.safetensors"));
    let base = Base::Classifier(model);
    assert_eq!(base.run(&expected, loaded.as_ref()), base.run(&expected, &adapter));

    // Without the head there is only the adapter, and what the other left is gone.
    let alone = Bottleneck::load_without_head(base.model(), out.path()).unwrap();
    alone.save(out.path()).unwrap();
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 2);
}

#[test]
fn a_classifier_learns_with_its_head() {
    let Base::Classifier(model) = Base::open("encoders/bert-sequence") else { panic!() };
    let model = Arc::new(model);
    let fresh = || {
        let config = BottleneckConfig::parallel().with_reduction_factor(4.0).with_dropout(0.1);
        Bottleneck::new(model.as_ref(), config.with_head(true), 3).unwrap()
    };
    // The class is that of the first token.
    let data: Vec<_> = (0..18u32)
        .map(|i| Labelled {
            ids: (0..5 + i % 4)
                .map(|place| if place == 0 { 3 + i % 3 } else { 10 + (i * place) % 40 })
                .collect(),
            type_ids: vec![0; (5 + i % 4) as usize],
            label: Label::Class((i % 3) as usize),
        })
        .collect();
    let config = TrainConfig { epochs: 10, batch_size: 6, learning_rate: 1e-2, ..TrainConfig::default() };
    let mut whole = Trainer::new(model.clone(), fresh(), config).unwrap();
    let names: Vec<_> = whole.adapter().parameter_names().into_iter().map(|(_, name)| name).collect();
    assert!(names.contains(&"classifier.weight".to_owned()), "{names:?}");
    let before = whole.evaluate(&data).unwrap().loss;
    whole.fit(&data, &[], &mut Silent).unwrap();
    let after = whole.evaluate(&data).unwrap();
    assert!(after.loss < 0.5 * before && after.accuracy > Some(0.8), "{before} to {after:?}");

    let folder = tempfile::tempdir().unwrap();
    let stopping = TrainConfig { checkpoint_every: 12, ..config };
    let mut first = Trainer::new(model.clone(), fresh(), stopping).unwrap().with_checkpoints(folder.path());
    first.fit(&data, &[], &mut Silent).unwrap();
    let checkpoint = folder.path().join("checkpoint-12");
    let loaded = Bottleneck::load(model.as_ref(), &checkpoint).unwrap();
    let mut second = Trainer::new(model.clone(), loaded, config).unwrap().resume(&checkpoint).unwrap();
    second.fit(&data, &[], &mut Silent).unwrap();
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    whole.into_adapter().save(a.path()).unwrap();
    second.into_adapter().save(b.path()).unwrap();
    assert_same_folder(a.path(), b.path(), "resumed");
}

#[test]
fn an_interface_is_written_where_adapterhub_needs_one() {
    let base = base_of("qwen3-houlsby");
    let out = tempfile::tempdir().unwrap();
    Bottleneck::new(base.model(), BottleneckConfig::houlsby(), 0).unwrap().save(out.path()).unwrap();
    let file = "adapter_interface.json";
    assert_eq!(json_of(out.path().join(file)), json_of(folder_of("qwen3-houlsby").join(file)));
    let base = base_of("llama-houlsby");
    Bottleneck::new(base.model(), BottleneckConfig::houlsby(), 0).unwrap().save(out.path()).unwrap();
    assert!(!out.path().join(file).exists());
}

#[test]
fn it_attaches_to_every_architecture() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures");
    let mut seen = 0;
    for family in ["llama", "decoders", "encoders"] {
        for entry in std::fs::read_dir(fixtures.join(family)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if !path.join("config.json").exists() || name.contains('-') && family == "encoders" {
                continue;
            }
            let base = Base::open(&format!("{family}/{name}"));
            let config = BottleneckConfig { mh_adapter: true, ..BottleneckConfig::pfeiffer() };
            let fresh = |config: BottleneckConfig| Bottleneck::new(base.model(), config, 2).unwrap();
            let identity = fresh(config.clone().with_init(InitBottleneck::MamAdapter));
            let far = fresh(config.with_scaling(Scaling::Fixed(50.0)));
            let run = |adapter: &dyn Adapter| match &base {
                Base::Causal(model) => values(model.forward(some_ids(model.vocab_size()), adapter)),
                Base::Encoder(model) => {
                    values(model.forward(some_ids(model.vocab_size()), &[11, 11], None, adapter))
                }
                Base::Classifier(_) => unreachable!("filtered by name"),
            };
            let plain = run(&NoAdapter);
            let difference = largest_difference(&run(&identity), &plain);
            // In models that normalise after the sum, Pfeiffer's adapter normalises what it adds to the output.
            assert!(difference < 1e-4, "{name}: a fresh adapter changes the result by {difference}");
            assert!(largest_difference(&run(&far), &plain) > 1e-2, "{name}: no bottleneck acts");
            assert_eq!(far.sites().count(), 2 * base.model().num_blocks(), "{name}");
            let out = tempfile::tempdir().unwrap();
            far.save(out.path()).unwrap();
            assert_eq!(run(&Bottleneck::load(base.model(), out.path()).unwrap()), run(&far), "{name}");
            seen += 1;
        }
    }
    assert!(seen > 12, "{seen} models");
}

#[test]
fn cached_is_uncached() {
    let model = base("gqa-tied");
    let adapter = Bottleneck::load(model.as_ref(), folder_of("llama-houlsby")).unwrap();
    let ids = some_ids(model.vocab_size());
    let whole = model.forward(ids.clone(), &adapter);
    let mut cache = llmkit_core::nn::KvCache::new(model.num_blocks());
    model.forward_cached(ids.clone().narrow(1, 0, 6), &mut cache, &adapter);
    let last = model.forward_cached(ids.narrow(1, 6, 5), &mut cache, &adapter);
    let difference = largest_difference(&values(whole.narrow(1, 10, 1)), &values(last));
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn one_seed_for_all_makes_them_alike() {
    let model = base("gqa-tied");
    let of = |config: BottleneckConfig, seed| {
        let out = tempfile::tempdir().unwrap();
        Bottleneck::new(model.as_ref(), config, seed).unwrap().save(out.path()).unwrap();
        let file = Safetensors::open(out.path().join("adapter.safetensors")).unwrap();
        let at =
            |block: usize| format!("model.layers.{block}.output_adapters.adapters.default.adapter_up.weight");
        [0, 1].map(|block| file.read_f32(&at(block)).unwrap())
    };
    let own = of(BottleneckConfig::pfeiffer(), 1);
    assert_ne!(own[0], own[1]);
    assert_eq!(own, of(BottleneckConfig::pfeiffer(), 1));
    assert_ne!(own, of(BottleneckConfig::pfeiffer(), 2));
    let config = BottleneckConfig { init_weights_seed: Some(9), ..BottleneckConfig::pfeiffer() };
    let alike = of(config, 1);
    assert_eq!(alike[0], alike[1]);
}

#[test]
fn it_is_not_merged() {
    let model = base("gqa-tied");
    let adapter = Bottleneck::new(model.as_ref(), BottleneckConfig::houlsby(), 0).unwrap();
    assert!(matches!(merge(model.as_ref(), &adapter), Err(Error::NotMergeable { .. })));
}

#[test]
fn frozen_rules_do_not_train() {
    let model = base("gqa-tied");
    let config = BottleneckConfig::compacter().with_reduction_factor(6.0);
    let frozen = BottleneckConfig { phm: PhmConfig { learn_phm: false, ..config.phm.clone() }, ..config };
    let adapter = Bottleneck::new(model.as_ref(), frozen, 0).unwrap();
    assert!(adapter.parameter_names().iter().all(|(_, name)| !name.contains("phm_rule")));
    let saved = |adapter: &Bottleneck| {
        let out = tempfile::tempdir().unwrap();
        adapter.save(out.path()).unwrap();
        let file = Safetensors::open(out.path().join("adapter.safetensors")).unwrap();
        let names = file.names().into_iter();
        names.map(|name| (name.contains("phm_rule"), file.read_f32(&name).unwrap())).collect::<Vec<_>>()
    };
    let before = saved(&adapter);
    let config = TrainConfig { epochs: 1, ..TrainConfig::default() };
    let mut trainer = Trainer::new(model.clone(), adapter, config).unwrap();
    trainer.fit(&common::examples(8, 101), &[], &mut Silent).unwrap();
    for ((is_rule, before), (_, after)) in before.iter().zip(saved(&trainer.into_adapter())) {
        assert_eq!(*before == after, *is_rule);
    }
}

// ---- files that don't fit ------------------------------------------------------------------------------------------

fn copy(variant: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder_of(variant)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let mut config = json_of(folder.join(file));
    change(&mut config);
    std::fs::write(folder.join(file), config.to_string()).unwrap();
}

fn error_of(base: &Base, folder: &Path) -> String {
    Bottleneck::load(base.model(), folder).unwrap_err().to_string()
}

#[test]
fn fields_that_mean_another_computation_are_refused() {
    let base = base_of("bert-houlsby-head");
    for (field, value) in [
        ("architecture", json!("lora")),
        ("inv_adapter", json!("nice")),
        ("cross_adapter", json!(true)),
        ("non_linearity", json!("prelu")),
        ("scaling", json!("adaptive")),
        ("residual_before_ln", json!("post_add")),
        ("init_weights", json!("zeros")),
        ("reduction_factor", json!(0)),
        ("reduction_factor", json!({"0": 2})),
        ("reduction_factor", json!(1e-9)),
        ("reduction_factor", json!("16")),
        ("dropout", json!(1.0)),
        ("stochastic_depth", json!(-0.1)),
        ("mh_adapter", json!("yes")),
        ("leave_out", json!([0, 1])),
        ("leave_out", json!([-1])),
    ] {
        let folder = copy("bert-houlsby-head");
        edit(folder.path(), "adapter_config.json", |config| config["config"][field] = value.clone());
        let error = error_of(&base, folder.path());
        assert!(error.contains(field), "{field}: {error}");
    }
    for field in ["mh_adapter", "output_adapter", "reduction_factor", "non_linearity"] {
        let folder = copy("bert-houlsby-head");
        edit(folder.path(), "adapter_config.json", |config| {
            config["config"].as_object_mut().unwrap().shift_remove(field);
        });
        let error = error_of(&base, folder.path());
        assert!(error.contains(field), "{field}: {error}");
    }
    for (field, value) in [
        ("phm_dim", json!(0)),
        ("phm_dim", json!(5)),
        ("phm_rank", json!(100000)),
        ("init_weights", json!("mam_adapter")),
        ("factorized_phm_W", json!(null)),
    ] {
        let folder = copy("bert-compacter");
        edit(folder.path(), "adapter_config.json", |config| config["config"][field] = value.clone());
        let error = error_of(&base, folder.path());
        assert!(error.contains(field), "{field}: {error}");
    }
    for (field, value) in [
        ("hidden_size", json!(48)),
        ("model_type", json!("roberta")),
        ("name", json!("a.b")),
        ("config", json!(null)),
    ] {
        let folder = copy("bert-houlsby-head");
        edit(folder.path(), "adapter_config.json", |config| config[field] = value.clone());
        let error = error_of(&base, folder.path());
        assert!(error.contains(field), "{field}: {error}");
    }
}

#[test]
fn heads_of_another_kind_are_refused() {
    let base = base_of("bert-pfeiffer-flex");
    for (field, value) in [
        ("head_type", json!("multilabel_classification")),
        ("layers", json!(2)),
        ("use_pooler", json!(false)),
        ("bias", json!(false)),
    ] {
        let folder = copy("bert-pfeiffer-flex");
        edit(folder.path(), "head_config.json", |config| config["config"][field] = value.clone());
        let error = error_of(&base, folder.path());
        assert!(error.contains(&format!("config.{field}")), "{field}: {error}");
    }
    let folder = copy("bert-houlsby-head");
    edit(folder.path(), "head_config.json", |config| {
        config["model_class"] = json!("BertForTokenClassification")
    });
    let error = error_of(&base, folder.path());
    assert!(error.contains("model_class"), "{error}");
    let folder = copy("bert-houlsby-head");
    edit(folder.path(), "head_config.json", |config| {
        config["label2id"] = json!({"cold": 1, "warm": 0, "hot": 2})
    });
    let error = error_of(&base, folder.path());
    assert!(error.contains("label2id") && error.contains("cold, warm, hot"), "{error}");

    // An encoder has no place for a head, but its own part is usable.
    let encoder = Base::open("encoders/bert");
    let error = error_of(&encoder, &folder_of("bert-houlsby-head"));
    assert!(error.contains("load_without_head"), "{error}");
    Bottleneck::load_without_head(encoder.model(), folder_of("bert-houlsby-head")).unwrap();
}

#[test]
fn a_tied_head_does_not_train() {
    let base = base_of("llama-pfeiffer");
    let error = Bottleneck::new(base.model(), BottleneckConfig::houlsby().with_head(true), 0).unwrap_err();
    assert!(error.to_string().contains("train_head"), "{error}");
    // Python writes such a head along unless told otherwise; unchanged, it is no matter.
    let folder = copy("llama-pfeiffer");
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../llmkit-core/tests/fixtures/llama/gqa-tied/model.safetensors");
    let file = Safetensors::open(checkpoint).unwrap();
    let mut embedding = file.read_f32("model.embed_tokens.weight").unwrap();
    let shape = file.info("model.embed_tokens.weight").unwrap().shape;
    let write = |values: Vec<f32>| {
        let tensor = llmkit_core::checkpoint::TensorData::f32(shape.clone(), values);
        let path = folder.path().join("model_head.safetensors");
        llmkit_core::checkpoint::save_safetensors(path, [("lm_head.weight".to_owned(), tensor)], None)
            .unwrap();
    };
    let head = json!({"config": null, "model_class": "LlamaForCausalLM", "name": null});
    std::fs::write(folder.path().join("head_config.json"), head.to_string()).unwrap();
    write(embedding.clone());
    Bottleneck::load(base.model(), folder.path()).unwrap();
    embedding[7] += 1.0;
    write(embedding);
    let error = error_of(&base, folder.path());
    assert!(error.contains("load_without_head"), "{error}");
}

#[test]
fn a_wrong_adapter_names_all_its_keys() {
    let base = base_of("bert-houlsby-head");
    let folder = copy("bert-houlsby-head");
    edit(folder.path(), "adapter_config.json", |config| {
        config["config"]["mh_adapter"] = json!(false);
        config["config"]["reduction_factor"] = json!({"0": 8, "default": 4});
        config["config"]["scaling"] = json!("learned");
    });
    let Err(Error::Adapter { missing, unexpected, mismatched, .. }) =
        Bottleneck::load(base.model(), folder.path())
    else {
        panic!("loaded a wrong adapter");
    };
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(missing.iter().all(|key| key.ends_with("scaling")), "{missing:?}");
    assert_eq!(unexpected.len(), 8, "{unexpected:?}");
    assert!(unexpected.iter().all(|key| key.contains("attention.output.adapters.my-task")), "{unexpected:?}");
    assert_eq!(mismatched.len(), 3, "{mismatched:?}");
    assert!(mismatched[0].contains("[3, 24]") && mismatched[0].contains("[6, 24]"), "{mismatched:?}");
}

#[test]
fn unknown_fields_are_kept() {
    let base = base_of("bert-pfeiffer-flex");
    let folder = copy("bert-pfeiffer-flex");
    let future = json!({"depth": [1, 2]});
    edit(folder.path(), "adapter_config.json", |config| {
        config["config"]["from_the_future"] = future.clone();
        config["beside"] = future.clone();
    });
    edit(folder.path(), "head_config.json", |config| config["config"]["from_the_future"] = future.clone());
    let out = tempfile::tempdir().unwrap();
    Bottleneck::load(base.model(), folder.path()).unwrap().save(out.path()).unwrap();
    assert_same_folder(folder.path(), out.path(), "unknown fields");
}

#[test]
fn a_pickle_is_not_opened() {
    let base = base_of("bert-parallel");
    let folder = copy("bert-parallel");
    std::fs::rename(folder.path().join("adapter.safetensors"), folder.path().join("pytorch_adapter.bin"))
        .unwrap();
    let error = error_of(&base, folder.path());
    assert!(error.contains("pytorch_adapter.bin") && error.contains("use_safetensors"), "{error}");
}

#[test]
fn a_norm_with_two_names_has_one_value() {
    let base = base_of("bert-ln-before");
    let folder = copy("bert-ln-before");
    let path = folder.path().join("adapter.safetensors");
    let file = Safetensors::open(&path).unwrap();
    let tensors: Vec<_> = file
        .names()
        .into_iter()
        .map(|name| {
            let mut values = file.read_f32(&name).unwrap();
            if name.ends_with("layer.1.output.adapters.my-task.adapter_down.0.bias") {
                values[3] += 1.0;
            }
            let shape = file.info(&name).unwrap().shape;
            (name, llmkit_core::checkpoint::TensorData::f32(shape, values))
        })
        .collect();
    drop(file);
    llmkit_core::checkpoint::save_safetensors(&path, tensors, None).unwrap();
    let error = error_of(&base, folder.path());
    assert!(error.contains("adapter_norm_before.bias") && error.contains("equal"), "{error}");
}

#[test]
fn a_file_without_a_version_means_the_old_gelu() {
    let base = base_of("bert-ln-after");
    let folder = copy("bert-ln-after");
    edit(folder.path(), "adapter_config.json", |config| {
        config.as_object_mut().unwrap().shift_remove("version");
    });
    let adapter = Bottleneck::load(base.model(), folder.path()).unwrap();
    assert_eq!(adapter.config().non_linearity, NonLinearity::GeluTanh);
    // Written again, the file has today's names, and means the same when it is read again.
    for (spelling, meant) in [("gelu", NonLinearity::GeluTanh), ("gelu_orig", NonLinearity::Gelu)] {
        edit(folder.path(), "adapter_config.json", |config| {
            config["config"]["non_linearity"] = spelling.into();
        });
        let out = tempfile::tempdir().unwrap();
        Bottleneck::load(base.model(), folder.path()).unwrap().save(out.path()).unwrap();
        let again = Bottleneck::load(base.model(), out.path()).unwrap();
        assert_eq!(again.config().non_linearity, meant, "{spelling}");
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let model = base("gqa-tied");
    let houlsby = BottleneckConfig::houlsby;
    for (config, field) in [
        (houlsby().with_reduction_factor(f64::NAN), "reduction_factor"),
        (houlsby().with_dropout(1.0), "dropout"),
        (houlsby().with_scaling(Scaling::Fixed(f64::INFINITY)), "scaling"),
        (BottleneckConfig { mh_adapter: false, output_adapter: false, ..houlsby() }, "mh_adapter"),
        (BottleneckConfig::compacter().with_reduction_factor(7.0), "reduction_factor"),
        (
            BottleneckConfig {
                reduction_factor: ReductionFactor::PerBlock { blocks: [(0, 6.0)].into(), default: Some(3.0) },
                phm: PhmConfig { shared_w_phm: true, ..BottleneckConfig::compacter().phm },
                ..houlsby()
            },
            "reduction_factor",
        ),
    ] {
        let error = Bottleneck::new(model.as_ref(), config, 0).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
    let adapter = Bottleneck::new(model.as_ref(), houlsby(), 0).unwrap();
    assert!(adapter.with_name("a.b").is_err());
}
