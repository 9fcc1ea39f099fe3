//! LoHa, LoKr, OFT and BOFT beside PEFT: the same outputs and gradients from its folders, its folders back, and what every method
//! must keep.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Int, Tensor, TensorData};
use common::method::{Promises, check_method};
use common::{Expected, base, device, fixtures, ids, largest_difference, logits, some_ids, values};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::{
    CausalLm, Encoder, Model, SequenceClassifier, load_causal_lm, load_encoder, load_sequence_classifier,
};
use llmkit_core::{Adapter, NoAdapter};
use llmkit_peft::{
    Bias, Boft, BoftConfig, BoftLayer, Error, InitLokr, InitWeights, LayerMethod, Loha, LohaConfig,
    LohaLayer, Lokr, LokrConfig, LokrLayer, Method, Oft, OftConfig, OftLayer, PeftModule, Scope, Targets,
    Transform, TunedLayer, load_adapter, merge,
};
use serde_json::{Value, json};

/// The models that the fixtures adapt.
enum Base {
    Causal(Arc<dyn CausalLm>),
    Encoder(Arc<dyn Encoder>),
    Classes(Arc<SequenceClassifier>),
}

impl Base {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures").join(name);
        let checkpoint = Checkpoint::open(folder).unwrap();
        match name {
            "encoders/bert" => Self::Encoder(load_encoder(&checkpoint, &device()).unwrap()),
            "encoders/bert-sequence" => {
                Self::Classes(Arc::new(load_sequence_classifier(&checkpoint, &device()).unwrap()))
            }
            _ => Self::Causal(load_causal_lm(&checkpoint, &device()).unwrap()),
        }
    }

    fn model(&self) -> &dyn Model {
        match self {
            Self::Causal(model) => model.as_ref(),
            Self::Encoder(model) => model.as_ref(),
            Self::Classes(model) => model.as_ref(),
        }
    }

    fn merged(&self, method: &dyn Method) -> Self {
        match self {
            Self::Causal(model) => Self::Causal(merge(model.as_ref(), method).unwrap()),
            Self::Encoder(model) => Self::Encoder(merge(model.as_ref(), method).unwrap()),
            Self::Classes(model) => Self::Classes(merge(model.as_ref(), method).unwrap()),
        }
    }

    /// Flattened: logits, or an encoder's vectors with zeros behind each row's length.
    fn output(&self, input: &Input, adapter: &dyn Adapter) -> Tensor<1> {
        let ids = input.ids.clone();
        match self {
            Self::Causal(model) => model.forward(ids, adapter).flatten(0, 2),
            Self::Classes(model) => model.forward(ids, &input.lengths, None, adapter).flatten(0, 1),
            Self::Encoder(model) => {
                let hidden = model.forward(ids, &input.lengths, None, adapter);
                let [batch, seq, width] = hidden.dims();
                let real = input.lengths.iter().flat_map(|&length| (0..seq).map(move |place| place < length));
                let mask: Vec<f32> = real.map(|real| if real { 1.0 } else { 0.0 }).collect();
                let mask = Tensor::<3>::from_data(TensorData::new(mask, [batch, seq, 1]), &device());
                (hidden * mask.expand([batch, seq, width])).flatten(0, 2)
            }
        }
    }
}

struct Input {
    ids: Tensor<2, Int>,
    lengths: Vec<usize>,
}

impl Input {
    fn read(expected: &Expected) -> Self {
        let (values, shape) = expected.ints("input_ids");
        let lengths = if expected.names().contains(&"attention_mask") {
            let (mask, [_, seq]) = expected.ints("attention_mask");
            mask.chunks(seq).map(|row| row.iter().sum::<i32>() as usize).collect()
        } else {
            Vec::new()
        };
        Self { ids: ids(&values, shape), lengths }
    }
}

fn folder(variant: &str) -> PathBuf {
    fixtures().join("lycoris").join(variant)
}

fn base_of(variant: &str) -> Base {
    Base::open(std::fs::read_to_string(folder(variant).join("base.txt")).unwrap().trim())
}

fn check<L: TunedLayer>(variant: &str) {
    let (folder, base) = (folder(variant), base_of(variant));
    let method = LayerMethod::<L>::load(base.model(), &folder).unwrap();
    let expected = Expected::open(folder.join("expected.safetensors"));
    let input = Input::read(&expected);

    let plain = values(base.output(&input, &NoAdapter));
    let adapted = values(base.output(&input, &method));
    let difference = largest_difference(&adapted, &expected.floats("output"));
    assert!(difference < 1e-4, "{variant}: outputs differ by {difference}");
    assert!(largest_difference(&plain, &adapted) > 0.1, "{variant}: the fixture's adapter does nothing");

    let merged = base.merged(&method);
    let difference = largest_difference(&values(merged.output(&input, &NoAdapter)), &adapted);
    assert!(difference < 1e-4, "{variant}: merged and unmerged differ by {difference}");

    if expected.names().contains(&"weights") {
        check_gradients(variant, &base, &input, method.clone().train(), &expected);
    }

    let found = load_adapter(base.model(), &folder).unwrap();
    assert_eq!(found.kind(), method.kind());
    assert_eq!(values(base.output(&input, found.as_ref())), adapted, "{variant}: loaded by its type");

    let out = tempfile::tempdir().unwrap();
    method.save(out.path()).unwrap();
    assert_same_folder(&folder, out.path(), variant);
}

/// The gradient of every tensor of the file, against torch's.
fn check_gradients<A: PeftModule>(variant: &str, base: &Base, input: &Input, method: A, expected: &Expected) {
    let weights = expected.floats("weights");
    let len = weights.len();
    let weights = Tensor::<1>::from_data(TensorData::new(weights, [len]), &device());
    let gradients = (base.output(input, &method) * weights).sum().backward();
    let found = gradients_of(&method, &gradients);
    let names: BTreeMap<ParamId, String> = method.parameter_names().into_iter().collect();
    assert_eq!(names.len(), found.len());
    let wanted = expected.names().into_iter().filter(|name| name.starts_with("grad:")).count();
    assert_eq!(wanted, names.len(), "{variant}");
    for (id, name) in names {
        let theirs = expected.floats(&format!("grad:{name}"));
        let size = theirs.iter().fold(0.0_f32, |size, value| size.max(value.abs()));
        let difference = largest_difference(&found[&id], &theirs);
        assert!(
            difference < 1e-4 * size.max(1.0),
            "{variant}: {name}: gradients differ by {difference} of {size}"
        );
        assert!(size > 1e-3, "{variant}: {name}: the fixture's gradient is {size}");
    }
}

fn gradients_of<A: Module>(module: &A, gradients: &Gradients) -> BTreeMap<ParamId, Vec<f32>> {
    struct Read<'a>(&'a Gradients, BTreeMap<ParamId, Vec<f32>>);
    impl ModuleVisitor for Read<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.0) {
                self.1.insert(param.id, values(gradient));
            }
        }
    }
    let mut read = Read(gradients, BTreeMap::new());
    module.visit(&mut read);
    read.1
}

fn read_config(folder: &Path) -> Value {
    let text = std::fs::read(folder.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    // PEFT writes sets in no particular order.
    for field in ["target_modules", "modules_to_save", "exclude_modules"] {
        if let Some(names) = config[field].as_array_mut() {
            names.sort_by_key(Value::to_string);
        }
    }
    config
}

fn assert_same_folder(theirs: &Path, ours: &Path, variant: &str) {
    let open = |folder: &Path| Safetensors::open(folder.join("adapter_model.safetensors")).unwrap();
    let (a, b) = (open(theirs), open(ours));
    assert_eq!(a.names(), b.names(), "{variant}");
    for name in a.names() {
        assert_eq!(a.info(&name), b.info(&name), "{variant}: {name}");
        assert_eq!(a.read_f32(&name).unwrap(), b.read_f32(&name).unwrap(), "{variant}: {name}");
    }
    assert_eq!(read_config(theirs), read_config(ours), "{variant}");
}

macro_rules! peft_fixtures {
    ($layer:ty: $($test:ident: $folder:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                check::<$layer>($folder);
            }
        )+
    };
}

peft_fixtures! {
    LohaLayer:
    loha_by_default: "loha-defaults",
    loha_with_patterns: "loha-patterns",
    loha_on_qwen3: "loha-qwen3",
    loha_on_a_bert_classifier: "loha-bert",
}

peft_fixtures! {
    LokrLayer:
    lokr_by_default: "lokr-defaults",
    lokr_of_low_rank: "lokr-low-rank",
    lokr_of_low_rank_on_both_sides: "lokr-decompose-both",
    lokr_by_a_factor: "lokr-factor",
    lokr_with_patterns: "lokr-patterns",
    lokr_on_bert: "lokr-bert",
}

peft_fixtures! {
    OftLayer:
    oft_by_default: "oft-defaults",
    oft_by_the_exact_transform: "oft-exact",
    oft_with_more_terms: "oft-terms",
    oft_with_one_block_for_all: "oft-share",
    oft_constrained: "oft-constrained",
    oft_with_biases: "oft-biases",
    oft_on_an_embedding: "oft-embedding",
    oft_on_a_bert_classifier: "oft-bert",
}

peft_fixtures! {
    BoftLayer:
    boft_by_default: "boft-defaults",
    boft_by_a_number_of_blocks: "boft-blocks",
    boft_of_three_factors: "boft-butterfly",
    boft_of_two_factors: "boft-butterfly-down",
    boft_with_all_biases: "boft-biases",
    boft_on_bert: "boft-bert",
}

fn check_all<L: TunedLayer>(config: L::Config, promises: Promises) {
    let model = base("gqa-tied");
    check_method(
        &model,
        promises,
        || LayerMethod::<L>::new(model.as_ref(), config.clone(), 5).unwrap(),
        |folder| LayerMethod::<L>::load(model.as_ref(), folder).unwrap(),
    );
}

fn projections() -> Scope {
    Scope::new(Targets::names(["q_proj", "v_proj", "down_proj"]))
}

#[test]
fn loha_keeps_what_a_method_must() {
    check_all::<LohaLayer>(LohaConfig::new(projections()).with_rank(3).with_alpha(6.0), Promises::default());
    // Dropout is on, and resuming draws the same.
    let config = LohaConfig::new(Targets::ModelDefault).with_rank_dropout(0.2).with_module_dropout(0.2);
    check_all::<LohaLayer>(config, Promises { learning_rate: 3e-2, ..Promises::default() });
}

#[test]
fn lokr_keeps_what_a_method_must() {
    check_all::<LokrLayer>(LokrConfig::new(projections()).with_rank(2).with_alpha(8.0), Promises::default());
    let config = LokrConfig::new(projections())
        .with_rank(2)
        .with_decompose_both(true)
        .with_init(InitLokr::Lycoris)
        .with_rank_dropout(0.1)
        .with_rank_dropout_scale(true);
    check_all::<LokrLayer>(config, Promises { learning_rate: 3e-2, ..Promises::default() });
}

#[test]
fn oft_keeps_what_a_method_must() {
    check_all::<OftLayer>(OftConfig::new(projections()).with_block_size(8), Promises::default());
    let config = OftConfig::new(projections())
        .with_block_size(8)
        .with_transform(Transform::Cayley)
        .with_module_dropout(0.3)
        .with_constraint(3.0)
        .with_bias(Bias::Targets);
    check_all::<OftLayer>(config, Promises { learning_rate: 3e-2, ..Promises::default() });
}

#[test]
fn boft_keeps_what_a_method_must() {
    check_all::<BoftLayer>(BoftConfig::new(projections()), Promises::default());
    let config = BoftConfig::new(Targets::ModelDefault).with_butterfly_factors(3).with_dropout(0.3);
    check_all::<BoftLayer>(config, Promises { learning_rate: 3e-2, ..Promises::default() });
}

/// PEFT's step projects the weights before it uses them, so that they never leave the ball for longer than a step.
#[test]
fn training_keeps_constrained_rotations_near_the_identity() {
    use llmkit_peft::train::{Silent, TrainConfig, Trainer};
    let model = base("gqa-tied");
    let eps = 0.05;
    let config = OftConfig::new(Targets::ModelDefault).with_block_size(8).with_constraint(eps);
    let oft = Oft::new(model.as_ref(), config, 1).unwrap();
    let config = TrainConfig { epochs: 2, learning_rate: 0.1, ..TrainConfig::default() };
    let mut trainer = Trainer::new(model.clone(), oft, config).unwrap();
    trainer.fit(&common::examples(8, model.vocab_size() as u32), &[], &mut Silent).unwrap();
    let out = tempfile::tempdir().unwrap();
    trainer.into_adapter().save(out.path()).unwrap();
    let file = Safetensors::open(out.path().join("adapter_model.safetensors")).unwrap();
    let limit = eps / f64::sqrt(6.0);
    let mut at_the_limit = 0;
    for name in file.names() {
        for block in file.read_f32(&name).unwrap().chunks(28) {
            let norm = block.iter().map(|value| 2.0 * f64::from(*value).powi(2)).sum::<f64>().sqrt();
            assert!(norm < limit * 1.0001, "{name}: {norm}");
            at_the_limit += usize::from(norm > limit * 0.999);
        }
    }
    assert!(at_the_limit > 0, "the constraint was never felt");
}

/// A fixture's folder, to be spoilt.
fn copy(variant: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    let from = folder(variant);
    std::fs::copy(from.join("adapter_model.safetensors"), out.path().join("adapter_model.safetensors"))
        .unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(from.join("adapter_config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(out.path().join("adapter_config.json"), config.to_string()).unwrap();
    out
}

#[test]
fn impossible_fields_are_refused_by_name() {
    for (variant, field, value) in [
        ("loha-defaults", "r", json!(0)),
        ("loha-defaults", "r", json!(1_u64 << 40)),
        ("loha-defaults", "alpha_pattern", json!({"(": 1})),
        ("loha-defaults", "rank_dropout", json!(1.0)),
        ("lokr-defaults", "module_dropout", json!(-0.1)),
        ("lokr-defaults", "init_weights", json!("svd")),
        ("oft-exact", "r", json!(4)),
        ("oft-exact", "oft_block_size", json!(0)),
        ("oft-exact", "eps", json!(0.0)),
        ("oft-exact", "num_cayley_neumann_terms", json!(1_000_000)),
        ("oft-exact", "fan_in_fan_out", json!(true)),
        ("boft-defaults", "boft_block_size", json!(5)),
        ("boft-defaults", "boft_block_num", json!(3)),
        ("boft-butterfly", "boft_n_butterfly_factor", json!(0)),
        ("boft-butterfly", "boft_n_butterfly_factor", json!(4)),
        ("boft-defaults", "fan_in_fan_out", json!(true)),
    ] {
        let out = copy(variant, |config| config[field] = value.clone());
        let error = load_adapter(base_of(variant).model(), out.path()).unwrap_err().to_string();
        assert!(error.contains(field), "{field} = {value}: {error}");
    }
    // Before PEFT 0.14 the same field meant other files.
    let out = copy("oft-exact", |config| {
        config.as_object_mut().unwrap().remove("oft_block_size");
    });
    let error = load_adapter(base_of("oft-exact").model(), out.path()).unwrap_err().to_string();
    assert!(error.contains("oft_block_size"), "{error}");
}

#[test]
fn a_field_that_the_file_does_not_fit_names_the_keys() {
    for (variant, field, value, key) in [
        ("loha-defaults", "r", json!(5), "hada_w1_a"),
        ("lokr-defaults", "decompose_both", json!(true), "lokr_w1_a"),
        ("oft-exact", "block_share", json!(true), "oft_R.weight"),
        ("boft-butterfly", "boft_n_butterfly_factor", json!(2), "boft_R"),
    ] {
        // A rank below half of the sides, so that `decompose_both` asks for other tensors.
        let out = copy(variant, |config| {
            config[field] = value.clone();
            if variant == "lokr-defaults" {
                config["r"] = json!(2);
            }
        });
        match load_adapter(base_of(variant).model(), out.path()) {
            Err(Error::Adapter { missing, mismatched, .. }) => {
                let named = missing.iter().chain(&mismatched).any(|name| name.contains(key));
                assert!(named, "{variant}: {missing:?}, {mismatched:?}");
            }
            other => panic!("{variant}: {other:?}"),
        }
    }
}

#[test]
fn unknown_fields_are_kept() {
    for variant in ["loha-defaults", "lokr-defaults", "oft-exact", "boft-defaults"] {
        let out = copy(variant, |config| config["from_the_future"] = json!({"depth": [1, 2]}));
        let back = tempfile::tempdir().unwrap();
        load_adapter(base_of(variant).model(), out.path()).unwrap().save(back.path()).unwrap();
        assert_eq!(read_config(back.path()), read_config(out.path()), "{variant}");
    }
}

/// What PEFT writes where it can't compile its kernel: several factors in the configuration, one in the file.
#[test]
fn a_file_of_one_butterfly_factor_loads_whatever_its_configuration_says() {
    let out = copy("boft-defaults", |config| config["boft_n_butterfly_factor"] = json!(3));
    let base = base_of("boft-defaults");
    let expected = Expected::open(folder("boft-defaults").join("expected.safetensors"));
    let input = Input::read(&expected);
    let boft = Boft::load(base.model(), out.path()).unwrap();
    let difference = largest_difference(&values(base.output(&input, &boft)), &expected.floats("output"));
    assert!(difference < 1e-4, "{difference}");
    let back = tempfile::tempdir().unwrap();
    boft.save(back.path()).unwrap();
    assert_same_folder(out.path(), back.path(), "boft-defaults");
}

/// A fresh random adapter acts; one seed fixes it, and another gives another.
#[test]
fn random_starts_act_and_follow_from_the_seed() {
    let model = base("gqa-tied");
    let model = model.as_ref();
    let plain = logits(model, some_ids(model.vocab_size()), &NoAdapter);
    let of = |method: &dyn Method| logits(model, some_ids(model.vocab_size()), method);
    let made = |seed: u64| -> Vec<Box<dyn Method>> {
        let targets = || Targets::ModelDefault;
        let loha = LohaConfig::new(targets()).with_rank(2).with_init(InitWeights::Random);
        let lokr = LokrConfig::new(targets()).with_init(InitLokr::Random);
        let oft = OftConfig::new(targets()).with_init(InitWeights::Random);
        let boft = BoftConfig::new(targets()).with_init(InitWeights::Random);
        vec![
            Box::new(Loha::new(model, loha, seed).unwrap()),
            Box::new(Lokr::new(model, lokr, seed).unwrap()),
            Box::new(Oft::new(model, oft, seed).unwrap()),
            Box::new(Boft::new(model, boft, seed).unwrap()),
        ]
    };
    for ((one, same), other) in made(1).into_iter().zip(made(1)).zip(made(2)) {
        let first = of(one.as_ref());
        assert_eq!(first, of(same.as_ref()), "{}", one.kind());
        assert!(largest_difference(&first, &plain) > 1e-3, "{} does nothing", one.kind());
        assert!(largest_difference(&first, &of(other.as_ref())) > 1e-3, "{} ignores the seed", one.kind());
    }
}
