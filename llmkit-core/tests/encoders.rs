//! Encoders and their heads against transformers: the same ids, the same vectors and scores.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::models::{
    Encoder, Model, load_encoder, load_masked_lm, load_sequence_classifier, load_token_classifier,
};
use llmkit_core::nn::{Embedding, KeyValue, Layer, LayerMut, Linear, Norm};
use llmkit_core::{Adapter, Device, Error, NoAdapter};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders").join(name)
}

fn device() -> burn::tensor::Device {
    Device::from_env().unwrap().resolve().unwrap()
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(fixture(name)).unwrap()
}

/// What transformers computed, and from what.
struct Expected {
    ids: Tensor<2, Int>,
    lengths: Vec<usize>,
    types: Option<Tensor<2, Int>>,
    hidden: Vec<f32>,
    pooled: Option<Vec<f32>>,
    logits: Option<Vec<f32>>,
}

impl Expected {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(fixture(name).join("expected.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ints = |name: &str| {
            file.tensor(name).ok().map(|view| {
                let values = view.data().chunks_exact(8);
                values.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32).collect::<Vec<_>>()
            })
        };
        let floats = |name: &str| {
            file.tensor(name).ok().map(|view| {
                let values = view.data().chunks_exact(4);
                values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>()
            })
        };
        let table = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, [3, 13]), &device());
        Self {
            ids: table(ints("input_ids").unwrap()),
            lengths: ints("lengths").unwrap().into_iter().map(|length| length as usize).collect(),
            types: ints("token_type_ids").map(table),
            hidden: floats("hidden").unwrap(),
            pooled: floats("pooled"),
            logits: floats("logits"),
        }
    }

    fn hidden(&self, encoder: &dyn Encoder, adapter: &dyn Adapter) -> Tensor<3> {
        encoder.forward(self.ids.clone(), &self.lengths, self.types.clone(), adapter)
    }

    fn check_encoder(&self, name: &str, encoder: &dyn Encoder) {
        let hidden = self.hidden(encoder, &NoAdapter);
        close(&format!("{name}: hidden"), self.real(hidden.clone()), &self.hidden);
        if let Some(pooled) = &self.pooled {
            let found = encoder.pooled(hidden, &NoAdapter).expect("a pooler");
            close(&format!("{name}: pooled"), values(found), pooled);
        }
    }

    /// The values at real positions, and zeros behind them, as the fixtures have it.
    fn real(&self, x: Tensor<3>) -> Vec<f32> {
        let [_, seq, width] = x.dims();
        let mut all = values(x);
        for (row, length) in self.lengths.iter().enumerate() {
            all[(row * seq + length) * width..(row + 1) * seq * width].fill(0.0);
        }
        all
    }
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data_as::<f32>().try_to_vec::<f32>().unwrap()
}

fn close(what: &str, found: Vec<f32>, expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-4, "{what} differ by {difference}");
}

#[test]
fn encoders_give_the_same_vectors() {
    for name in ["bert", "roberta", "distilbert", "modernbert"] {
        let encoder = load_encoder(&open(name), &device()).unwrap();
        Expected::read(name).check_encoder(name, encoder.as_ref());
    }
}

#[test]
fn an_encoder_loads_from_a_checkpoint_with_a_head() {
    for name in ["bert-mlm", "bert-old-names", "bert-sequence", "camembert-token", "modernbert-token"] {
        let encoder = load_encoder(&open(name), &device()).unwrap();
        Expected::read(name).check_encoder(name, encoder.as_ref());
    }
}

#[test]
fn masked_language_models_give_the_same_scores() {
    for name in
        ["bert-mlm", "bert-untied", "bert-old-names", "roberta-mlm", "distilbert-mlm", "modernbert-mlm"]
    {
        let model = load_masked_lm(&open(name), &device()).unwrap();
        let expected = Expected::read(name);
        expected.check_encoder(name, model.encoder().as_ref());
        let (ids, types) = (expected.ids.clone(), expected.types.clone());
        let logits = model.forward(ids, &expected.lengths, types, &NoAdapter);
        close(name, expected.real(logits), expected.logits.as_deref().unwrap());
        assert_eq!(model.is_tied(), name != "bert-untied");
    }
}

#[test]
fn sequence_classifiers_give_the_same_scores() {
    let names = [
        "bert-sequence",
        "xlm-roberta-sequence",
        "distilbert-sequence",
        "modernbert-sequence",
        "modernbert-mean",
    ];
    for name in names {
        let model = load_sequence_classifier(&open(name), &device()).unwrap();
        let expected = Expected::read(name);
        let (ids, types) = (expected.ids.clone(), expected.types.clone());
        let logits = model.forward(ids, &expected.lengths, types, &NoAdapter);
        close(name, values(logits), expected.logits.as_deref().unwrap());
        let labels: &[&str] =
            if name == "xlm-roberta-sequence" { &["LABEL_0"] } else { &["cold", "warm", "hot"] };
        assert_eq!(model.labels(), labels);
    }
}

#[test]
fn token_classifiers_give_the_same_scores() {
    for name in ["bert-token", "camembert-token", "distilbert-token", "modernbert-token"] {
        let model = load_token_classifier(&open(name), &device()).unwrap();
        let expected = Expected::read(name);
        let (ids, types) = (expected.ids.clone(), expected.types.clone());
        let logits = model.forward(ids, &expected.lengths, types, &NoAdapter);
        close(name, expected.real(logits), expected.logits.as_deref().unwrap());
        assert_eq!(model.labels(), ["cold", "warm", "hot"]);
    }
}

/// A copy of a fixture with its `config.json` changed.
fn changed(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture(name).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config =
        serde_json::from_slice(&std::fs::read(fixture(name).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn modernbert_reads_the_config_of_transformers_4() {
    let older = std::fs::read(fixture("modernbert").join("config-v4.json")).unwrap();
    let folder = changed("modernbert", |config| *config = serde_json::from_slice(&older).unwrap());
    let encoder = load_encoder(&Checkpoint::open(folder.path()).unwrap(), &device()).unwrap();
    Expected::read("modernbert").check_encoder("modernbert", encoder.as_ref());
}

#[test]
fn a_batch_gives_what_each_sequence_gives_alone() {
    for name in ["bert", "roberta", "distilbert", "modernbert"] {
        let encoder = load_encoder(&open(name), &device()).unwrap();
        let expected = Expected::read(name);
        let together = expected.hidden(encoder.as_ref(), &NoAdapter);
        for (row, length) in expected.lengths.iter().copied().enumerate() {
            let cut = |x: Tensor<2, Int>| x.slice([row..row + 1, 0..length]);
            let types = expected.types.clone().map(cut);
            let alone = encoder.forward(cut(expected.ids.clone()), &[length], types, &NoAdapter);
            let part = together.clone().slice([row..row + 1, 0..length, 0..24]);
            close(name, values(alone), &values(part));
        }
    }
}

#[test]
fn an_encoder_shows_every_tensor_of_its_checkpoint() {
    for name in ["bert", "roberta", "distilbert", "modernbert"] {
        let encoder = load_encoder(&open(name), &device()).unwrap();
        let mut shown = Vec::new();
        encoder.visit(&mut |layer| shown.extend(tensors(layer)));
        shown.sort();
        assert_eq!(shown, Safetensors::open(fixture(name)).unwrap().names());
    }
}

#[test]
fn classifiers_show_every_tensor_of_their_checkpoints() {
    for name in ["bert-sequence", "xlm-roberta-sequence", "distilbert-sequence", "modernbert-mean"] {
        let mut shown = Vec::new();
        let model = load_sequence_classifier(&open(name), &device()).unwrap();
        model.visit(&mut |layer| shown.extend(tensors(layer)));
        shown.sort();
        assert_eq!(shown, Safetensors::open(fixture(name)).unwrap().names());
    }
}

fn tensors(layer: Layer<'_>) -> Vec<String> {
    let bias = match layer {
        Layer::Linear(linear) => linear.bias.is_some(),
        Layer::Norm(norm) => norm.bias.is_some(),
        Layer::Embedding(_) => false,
    };
    let mut names = vec![format!("{}.weight", layer.path())];
    names.extend(bias.then(|| format!("{}.bias", layer.path())));
    names
}

/// Doubles what a linear layer writes, records which layers were asked, and may put vectors in front.
#[derive(Default)]
struct Probe {
    asked: std::sync::Mutex<Vec<String>>,
    doubled: &'static str,
    prompt: usize,
    prefix: usize,
}

impl Probe {
    fn note(&self, path: &str) {
        self.asked.lock().unwrap().push(path.to_owned());
    }
}

impl Adapter for Probe {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        self.note(base.path());
        base.forward(ids)
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        self.note(base.path());
        let output = base.forward(input);
        if base.path() == self.doubled { output * 2.0 } else { output }
    }

    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        self.note(base.path());
        base.forward(input)
    }

    fn prompt(&self, embeddings: Tensor<3>) -> Tensor<3> {
        let [batch, _, width] = embeddings.dims();
        if self.prompt == 0 {
            return embeddings;
        }
        let prompt = Tensor::ones([batch, self.prompt, width], &embeddings.device()) * 0.5;
        Tensor::cat(vec![prompt, embeddings], 1)
    }

    fn prefix(&self, _layer: usize, batch: usize) -> Option<KeyValue> {
        let seen = Tensor::ones([batch, self.prefix, 3, 8], &device());
        (self.prefix > 0).then(|| KeyValue { key: seen.clone() * 0.3, value: seen })
    }
}

#[test]
fn the_adapter_is_asked_for_every_layer() {
    for name in ["bert-sequence", "xlm-roberta-sequence", "distilbert-sequence", "modernbert-mean"] {
        let model = load_sequence_classifier(&open(name), &device()).unwrap();
        let mut shown = Vec::new();
        model.visit(&mut |layer| shown.push(layer.path().to_owned()));
        let expected = Expected::read(name);
        let probe = Probe::default();
        model.forward(expected.ids.clone(), &expected.lengths, expected.types.clone(), &probe);
        let mut asked = probe.asked.into_inner().unwrap();
        shown.sort();
        asked.sort();
        assert_eq!(asked, shown, "{name}");
    }
}

#[test]
fn a_layer_changed_in_a_copy_acts_like_an_adapter_on_it() {
    let layers = [
        ("bert", "encoder.layer.1.attention.self.query"),
        ("distilbert", "transformer.layer.0.ffn.lin1"),
        ("modernbert", "layers.2.attn.Wqkv"),
    ];
    for (name, path) in layers {
        let encoder = load_encoder(&open(name), &device()).unwrap();
        let expected = Expected::read(name);
        let before = values(expected.hidden(encoder.as_ref(), &NoAdapter));
        let copy = encoder.with_layers(&mut |layer| match layer {
            LayerMut::Linear(linear) if linear.path() == path => {
                linear.weight = linear.weight.clone() * 2.0;
                linear.bias = linear.bias.clone().map(|bias| bias * 2.0);
                true
            }
            _ => false,
        });
        let adapted = expected.hidden(encoder.as_ref(), &Probe { doubled: path, ..Probe::default() });
        let adapted = values(adapted);
        close(name, values(expected.hidden(copy.as_ref(), &NoAdapter)), &adapted);
        assert!(adapted.iter().zip(&before).any(|(a, b)| (a - b).abs() > 0.05), "{name}: nothing changed");
        close(name, values(expected.hidden(encoder.as_ref(), &NoAdapter)), &before);
    }
}

#[test]
fn a_tied_head_parts_from_a_changed_embedding() {
    let model = load_masked_lm(&open("bert-mlm"), &device()).unwrap();
    let changed = model.with_layers(&mut |layer| match layer {
        LayerMut::Embedding(table) if table.path().ends_with("word_embeddings") => {
            table.weight = table.weight.clone() * 2.0;
            true
        }
        _ => false,
    });
    assert!(model.is_tied() && !changed.is_tied());
    assert_eq!(changed.config()["tie_word_embeddings"], false);
    let untouched = model.with_layers(&mut |_| false);
    assert!(untouched.is_tied());
}

/// Padding must not be seen, whatever stands before the sequence.
#[test]
fn prompts_and_prefixes_keep_a_batch_equal_to_its_sequences() {
    for name in ["bert", "roberta", "distilbert", "modernbert"] {
        let encoder = load_encoder(&open(name), &device()).unwrap();
        let expected = Expected::read(name);
        for (prompt, prefix) in [(2, 0), (0, 3), (1, 2)] {
            let probe = Probe { prompt, prefix, ..Probe::default() };
            let together = expected.hidden(encoder.as_ref(), &probe);
            assert_eq!(together.dims(), [3, prompt + 13, 24]);
            for (row, length) in expected.lengths.iter().copied().enumerate() {
                let cut = |x: Tensor<2, Int>| x.slice([row..row + 1, 0..length]);
                let types = expected.types.clone().map(cut);
                let alone = encoder.forward(cut(expected.ids.clone()), &[length], types, &probe);
                let part = together.clone().slice([row..row + 1, 0..prompt + length, 0..24]);
                close(name, values(alone), &values(part));
            }
        }
    }
}

#[test]
fn gradients_pass_through_an_encoder_to_the_adapter_alone() {
    struct Scaled(Tensor<1>);
    impl Adapter for Scaled {
        fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
            base.forward(input) * self.0.clone().unsqueeze()
        }
    }
    for name in ["bert-sequence", "modernbert-mean"] {
        let model = load_sequence_classifier(&open(name), &device()).unwrap();
        let expected = Expected::read(name);
        let sum = |adapter: &dyn Adapter| {
            let (ids, types) = (expected.ids.clone(), expected.types.clone());
            model.forward(ids, &expected.lengths, types, adapter).sum()
        };
        let one = |value: f32| Tensor::<1>::from_floats([value], &device());
        let scale = Tensor::from_inner(one(1.0)).require_grad();
        let gradients = sum(&Scaled(scale.clone())).backward();
        let slope = scale.grad(&gradients).unwrap().into_scalar::<f32>();
        let at = |value: f32| sum(&Scaled(one(value))).into_scalar::<f32>();
        let numeric = (at(1.005) - at(0.995)) / 0.01;
        assert!(
            slope.abs() > 0.1 && (slope - numeric).abs() < 0.02 * slope.abs().max(1.0),
            "{slope} {numeric}"
        );
    }
}

#[test]
fn what_would_change_the_result_is_refused_by_name() {
    let refused = |name: &str, field: &str, value: serde_json::Value| {
        let folder = changed(name, |config| config[field] = value);
        match load_encoder(&Checkpoint::open(folder.path()).unwrap(), &device()) {
            Err(Error::Config { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{name} with another {field}: {other:?}"),
        }
    };
    refused("bert", "position_embedding_type", "relative_key".into());
    refused("bert", "hidden_act", "quick_gelu".into());
    refused("bert", "is_decoder", true.into());
    refused("bert", "num_attention_heads", 5.into());
    refused("bert", "num_hidden_layers", 200_000_000.into());
    refused("roberta", "pad_token_id", 31.into());
    refused("roberta", "pad_token_id", (-1).into());
    refused("distilbert", "n_layers", 200_000_000.into());
    refused("modernbert", "layer_types", serde_json::json!(["full_attention"]));
    refused("modernbert", "local_attention", 1.into());
    refused("modernbert", "local_rope_theta", serde_json::Value::Null);
    refused("modernbert", "num_hidden_layers", 200_000_000.into());
}

#[test]
fn labels_without_an_order_are_refused() {
    for labels in [serde_json::json!({"0": "a", "2": "b"}), serde_json::json!({}), serde_json::json!("a")] {
        let folder = changed("bert-sequence", |config| config["id2label"] = labels);
        let result = load_sequence_classifier(&Checkpoint::open(folder.path()).unwrap(), &device());
        assert!(matches!(result, Err(Error::Config { field, .. }) if field == "id2label"));
    }
}

#[test]
fn a_checkpoint_without_the_head_names_what_is_missing() {
    match load_sequence_classifier(&open("distilbert"), &device()) {
        Err(Error::Tensors { missing, .. }) => assert!(missing.contains(&"classifier.weight".to_owned())),
        other => panic!("{other:?}"),
    }
    let folder = changed("bert", |config| config["architectures"] = serde_json::json!(["T5Model"]));
    let result = load_encoder(&Checkpoint::open(folder.path()).unwrap(), &device());
    assert!(matches!(result, Err(Error::UnsupportedArchitecture { found, .. }) if found == "T5Model"));
}
