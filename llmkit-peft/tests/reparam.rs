//! Weight methods on burn modules that know nothing of llmkit.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData, activation::softmax};
use common::{Expected, device, fixtures, largest_difference, values};
use llmkit_core::checkpoint::{Safetensors, TensorSource};
use llmkit_peft::reparam::Attached;
use llmkit_peft::{
    Bias, BoftConfig, BoftLayer, Error, Ia3Config, Ia3Layer, InitLokr, InitWeights, LohaConfig, LohaLayer,
    LokrConfig, LokrLayer, OftConfig, OftLayer, Scope, Targets, Transform, VeraConfig, VeraLayer,
    WeightSpace,
};

#[derive(Module, Debug)]
struct Mlp {
    inner: Linear,
    middle: Linear,
    outer: Linear,
}

impl Mlp {
    /// The module of the fixtures.
    fn open() -> Self {
        let expected = Expected::open(folder("mlp.safetensors"));
        let layer = |name: &str, layout, [d_input, d_output]: [usize; 2]| {
            let mut layer = LinearConfig::new(d_input, d_output).with_layout(layout).init(&device());
            let weight = TensorData::new(expected.floats(&format!("{name}.weight")), [d_output, d_input]);
            layer.weight = layer.weight.map(|_| Tensor::<2>::from_data(weight, &device()).transpose());
            let bias = TensorData::new(expected.floats(&format!("{name}.bias")), [d_output]);
            layer.bias = Some(Param::from_data(bias, &device()));
            layer
        };
        Self {
            inner: layer("inner", LinearLayout::Row, [12, 20]),
            // The other way of storing it changes nothing.
            middle: layer("middle", LinearLayout::Col, [20, 18]),
            outer: layer("outer", LinearLayout::Row, [18, 5]),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.outer.forward(self.middle.forward(self.inner.forward(x).tanh()).tanh())
    }
}

fn folder(name: &str) -> PathBuf {
    fixtures().join("lycoris").join(name)
}

fn input() -> Tensor<2> {
    let expected = Expected::open(folder("mlp.safetensors"));
    Tensor::from_data(TensorData::new(expected.floats("x"), [7, 12]), &device())
}

/// PEFT's folder of a torch module of the same names, both ways.
fn check_fixture<L: WeightSpace>(method: &str) {
    let theirs = folder(&format!("mlp-{method}"));
    let (mlp, adapter) = Attached::<L>::load(Mlp::open(), &theirs).unwrap();
    assert_eq!(adapter.targets().collect::<Vec<_>>(), ["inner", "middle"]);
    let expected = Expected::open(folder("mlp.safetensors"));
    let found = values(mlp.forward(input()));
    let difference = largest_difference(&found, &expected.floats(method));
    assert!(difference < 1e-5, "{method}: {difference}");
    assert!(largest_difference(&found, &values(Mlp::open().forward(input()))) > 0.1, "it does nothing");

    let merged = mlp.clone().materialize();
    assert_eq!(merged.num_params(), Mlp::open().num_params());
    assert!(largest_difference(&values(merged.forward(input())), &found) < 1e-6);

    let out = tempfile::tempdir().unwrap();
    adapter.save(&mlp, out.path()).unwrap();
    let open =
        |folder: &std::path::Path| Safetensors::open(folder.join("adapter_model.safetensors")).unwrap();
    let (a, b) = (open(&theirs), open(out.path()));
    assert_eq!(a.names(), b.names());
    for name in a.names() {
        assert_eq!(a.info(&name), b.info(&name), "{name}");
        assert_eq!(a.read_f32(&name).unwrap(), b.read_f32(&name).unwrap(), "{name}");
    }
    let config = |folder: &std::path::Path| {
        let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["target_modules"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
        config
    };
    assert_eq!(config(&theirs), config(out.path()));
}

#[test]
fn peft_folders_of_plain_modules_go_both_ways() {
    check_fixture::<LohaLayer>("loha");
    check_fixture::<LokrLayer>("lokr");
    check_fixture::<OftLayer>("oft");
    check_fixture::<BoftLayer>("boft");
}

/// A transformer's block of one head, in plain burn.
#[derive(Module, Debug)]
struct Block {
    embedding: Embedding,
    norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    up: Linear,
    down: Linear,
    /// A matrix that is in no layer.
    head: Param<Tensor<2>>,
}

const VOCAB: usize = 11;
const WIDTH: usize = 12;

impl Block {
    fn new(device: &Device) -> Self {
        device.seed(7);
        let linear = |d_input, d_output| LinearConfig::new(d_input, d_output).init(device);
        Self {
            embedding: EmbeddingConfig::new(VOCAB, WIDTH).init(device),
            norm: LayerNormConfig::new(WIDTH).init(device),
            query: linear(WIDTH, WIDTH),
            key: linear(WIDTH, WIDTH),
            value: linear(WIDTH, WIDTH),
            up: linear(WIDTH, 20),
            down: linear(20, WIDTH),
            head: Param::from_tensor(Tensor::random(
                [WIDTH, VOCAB],
                burn::tensor::Distribution::Normal(0.0, 0.3),
                device,
            )),
        }
    }

    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let x = self.embedding.forward(ids);
        let read = self.norm.forward(x.clone());
        let scores = self.query.forward(read.clone()).matmul(self.key.forward(read.clone()).swap_dims(1, 2));
        let x = x + softmax(scores * (WIDTH as f64).powf(-0.5), 2).matmul(self.value.forward(read));
        let x = x.clone() + self.down.forward(self.up.forward(x).tanh());
        x.matmul(self.head.val().unsqueeze())
    }

    /// Cross-entropy of a fixed rule over the tokens.
    fn loss(&self) -> Tensor<1> {
        let device = self.head.val().device();
        let ids: Vec<i32> = (0..24).map(|i| (i * i + 3 * i) % VOCAB as i32).collect();
        let wanted: Vec<i32> = ids.iter().map(|id| (id * 4 + 1) % VOCAB as i32).collect();
        let tensor = |values| Tensor::<2, Int>::from_data(TensorData::new(values, [4, 6]), &device);
        let scores = burn::tensor::activation::log_softmax(self.forward(tensor(ids)), 2);
        scores.gather(2, tensor(wanted).unsqueeze_dim(2)).mean().neg()
    }
}

/// Gradient descent over whatever trains in a module, as burn's own optimizers walk it.
struct Descent<'a> {
    gradients: &'a Gradients,
    rate: f64,
    moved: usize,
}

impl ModuleMapper for Descent<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = param.val().grad(self.gradients) else { return param };
        self.moved += 1;
        param.map(|value| {
            let value = value.without_autodiff() - gradient * self.rate;
            Tensor::from_inner(value).require_grad()
        })
    }
}

fn check_training<L: WeightSpace>(config: L::Config, rate: f64) {
    let device = device().autodiff();
    let plain = Block::new(&device);
    let before = plain.loss().into_scalar::<f32>();
    let (mut block, adapter) = Attached::<L>::new(plain.clone(), config, 3).unwrap();
    let start = block.loss().into_scalar::<f32>();
    assert!(
        (start - before).abs() < 1e-5,
        "{}: a fresh adapter is not the identity: {before}, {start}",
        L::NAME
    );

    let trained = adapter.parameter_names().len();
    for _ in 0..60 {
        let gradients = block.loss().backward();
        let mut descent = Descent { gradients: &gradients, rate, moved: 0 };
        block = block.map(&mut descent);
        assert_eq!(descent.moved, trained, "{}: what trains is not what the adapter names", L::NAME);
    }
    let after = block.loss().into_scalar::<f32>();
    assert!(after < 0.9 * before, "{}: from {before} to {after}", L::NAME);

    // Nothing else moved.
    assert_eq!(values(block.query.weight.base()), values(plain.query.weight.base()));
    assert_eq!(values(block.head.base()), values(plain.head.base()));
    assert_eq!(values(block.embedding.weight.val()), values(plain.embedding.weight.val()));

    // Saved, read into another copy, and merged.
    let out = tempfile::tempdir().unwrap();
    adapter.save(&block.valid(), out.path()).unwrap();
    let (again, _) = Attached::<L>::load(plain.clone(), out.path()).unwrap();
    let difference = (again.loss().into_scalar::<f32>() - after).abs();
    assert!(difference < 1e-5, "{}: read back: {difference}", L::NAME);
    let merged = block.valid().materialize();
    assert_eq!(merged.num_params(), plain.num_params());
    let difference = (merged.loss().into_scalar::<f32>() - after).abs();
    assert!(difference < 1e-5, "{}: merged: {difference}", L::NAME);
}

#[test]
fn every_method_trains_a_plain_transformer_block() {
    let targets = || Targets::names(["query", "value", "up", "down", "head"]);
    check_training::<LohaLayer>(LohaConfig::new(targets()).with_rank(3).with_alpha(12.0), 0.5);
    check_training::<LokrLayer>(LokrConfig::new(targets()).with_rank(2).with_alpha(4.0), 0.1);
    let oft = OftConfig::new(targets()).with_block_size(4).with_transform(Transform::Cayley);
    check_training::<OftLayer>(oft, 0.5);
    check_training::<BoftLayer>(BoftConfig::new(targets()).with_block_size(4), 0.5);
    let vera = VeraConfig::new(targets()).with_rank(8).with_d_initial(1.0);
    check_training::<VeraLayer>(vera, 0.3);
    // Every layer scales what it reads.
    check_training::<Ia3Layer>(Ia3Config::new(targets()).with_feedforward_modules(targets()), 0.5);
}

#[test]
fn all_linear_means_linear_layers() {
    let config = LokrConfig::new(Targets::AllLinear).with_init(InitLokr::Random);
    let (_, adapter) = Attached::<LokrLayer>::new(Block::new(&device()), config, 0).unwrap();
    assert_eq!(adapter.targets().collect::<Vec<_>>(), ["query", "key", "value", "up", "down"]);
    let config = LokrConfig::new(Targets::Regex("q.*|head|embedding".into()));
    let (_, adapter) = Attached::<LokrLayer>::new(Block::new(&device()), config, 0).unwrap();
    assert_eq!(adapter.targets().collect::<Vec<_>>(), ["embedding", "query", "head"]);
}

#[test]
fn what_does_not_fit_a_plain_module_is_refused() {
    fn refused<L: WeightSpace>(config: L::Config) -> String {
        Attached::<L>::new(Block::new(&device()), config, 0).unwrap_err().to_string()
    }
    let query = || Targets::names(["query"]);
    let loha = |config: LohaConfig| refused::<LohaLayer>(config);
    assert!(loha(LohaConfig::new(query()).with_rank_dropout(0.1)).contains("dropout"));
    let scope = Scope::new(query()).with_modules_to_save(["head"]);
    assert!(loha(LohaConfig::new(scope)).contains("modules_to_save"));
    assert!(loha(LohaConfig::new(Targets::ModelDefault)).contains("target_modules"));
    assert!(loha(LohaConfig::new(Targets::names(["nothing"]))).contains("nothing"));
    assert!(refused::<OftLayer>(OftConfig::new(query()).with_bias(Bias::All)).contains("bias"));

    // It would have to scale the bias as well; without one it need not.
    let ia3 = |targets| Ia3Config::new(targets).with_feedforward_modules(Targets::names(["up"]));
    let error = refused::<Ia3Layer>(ia3(Targets::names(["up", "query"])));
    assert!(error.contains("bias") && error.contains("query"), "{error}");
    Attached::<Ia3Layer>::new(Block::new(&device()), ia3(Targets::names(["up", "head"])), 0).unwrap();

    // Another module's adapter.
    let config = LohaConfig::new(query()).with_init(InitWeights::Random);
    let (_, adapter) = Attached::<LohaLayer>::new(Block::new(&device()), config, 0).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = adapter.save(&Block::new(&device()), out.path()).unwrap_err();
    assert!(matches!(&error, Error::NotAttached { names } if names.len() == 4), "{error}");
}
