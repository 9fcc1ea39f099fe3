//! Sequence classification: training against torch, fresh heads against transformers, and what every run must keep.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use common::{Expected, device, fixtures, largest_difference, values};
use llmkit_core::NoAdapter;
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::{
    Editable, Model, SequenceClassifier, Task, load_encoder, load_sequence_classifier,
};
use llmkit_core::nn::{Layer, LayerMut};
use llmkit_peft::data::{Label, Labelled};
use llmkit_peft::train::{
    AdamW, AdamWConfig, Decay, Objective, Observer, Recompute, Schedule, Silent, StepOptions, StepReport,
    TrainConfig, Trainer, evaluate, loss_and_gradients,
};
use llmkit_peft::{Error, Lora, LoraConfig, Method, Targets, merge, trainable_parameters};

fn encoders() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures/encoders")
}

/// The classifier `bert-sequence`, with this `problem_type` in its configuration.
fn classifier(problem: Option<&str>) -> Arc<SequenceClassifier> {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(encoders().join("bert-sequence")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    if let Some(problem) = problem {
        let path = copy.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["problem_type"] = problem.into();
        std::fs::write(&path, config.to_string()).unwrap();
    }
    let checkpoint = Checkpoint::open(copy.path()).unwrap();
    Arc::new(load_sequence_classifier(&checkpoint, &device()).unwrap())
}

fn fixture(kind: &str) -> (Expected, serde_json::Value, std::path::PathBuf) {
    let folder = fixtures().join("training").join(kind);
    let facts = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    (Expected::open(folder.join("expected.safetensors")), facts, folder.join("adapter"))
}

/// The fixture's padded rows as examples.
fn torch_examples(kind: &str, expected: &Expected) -> Vec<Labelled> {
    let (ids, [rows, seq]) = expected.ints("input_ids");
    let (types, _) = expected.ints("token_type_ids");
    let (mask, _) = expected.ints("attention_mask");
    (0..rows)
        .map(|row| {
            let range = row * seq..(row + 1) * seq;
            let len = mask[range.clone()].iter().sum::<i32>() as usize;
            let read = |values: &[i32]| values[range.clone()][..len].iter().map(|id| *id as u32).collect();
            let label = if kind == "classes" {
                Label::Class(expected.int_vector("labels")[row] as usize)
            } else {
                Label::Values(expected.floats("labels")[row * 3..(row + 1) * 3].to_vec())
            };
            Labelled { ids: read(&ids), type_ids: read(&types), label }
        })
        .collect()
}

fn saved(lora: &Lora) -> BTreeMap<String, Vec<f32>> {
    common::tensors(lora)
}

#[test]
fn five_steps_equal_torchs_for_every_problem() {
    for kind in ["classes", "values", "several"] {
        let (expected, facts, adapter) = fixture(kind);
        let number = |name: &str, index: usize| facts[name][index].as_f64().unwrap();
        let model = classifier(facts["problem_type"].as_str());
        let examples = torch_examples(kind, &expected);
        model.check(&examples).unwrap();
        let batch = model.batch(&examples.iter().collect::<Vec<_>>());
        let lora = Lora::load(model.as_ref(), &adapter).unwrap();
        let logits = model.forward(batch.ids.clone(), &batch.lengths, batch.types.clone(), &lora);
        let difference = largest_difference(&values(logits), &expected.floats("logits"));
        assert!(difference < 1e-5, "{kind}: logits differ by {difference}");

        for recompute in [Recompute::Off, Recompute::Blocks] {
            let mut lora = lora.clone().train();
            let mut optimizer = AdamW::new(AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() });
            let schedule =
                Schedule { learning_rate: 1e-2, warmup_steps: 2, total_steps: 10, decay: Decay::Cosine };
            for step in 0..5 {
                let options = StepOptions { recompute, ..StepOptions::default() };
                let mut output = loss_and_gradients(model.as_ref(), &lora, &batch, options);
                let loss = output.loss_sum / output.targets as f64;
                assert!((loss - number("losses", step)).abs() < 1e-5, "{kind}, step {step}: loss {loss}");
                output.gradients.scale(1.0 / output.targets as f64);
                if step == 0 {
                    for (id, name) in lora.parameter_names() {
                        let gradient = values(output.gradients.get(id).unwrap().clone());
                        let torch = expected.floats(&format!("grad.{name}"));
                        let difference = largest_difference(&gradient, &torch);
                        assert!(difference < 1e-5, "{kind}: {name} differs by {difference}");
                    }
                }
                let norm = output.gradients.clip_global_norm(1.0);
                assert!((norm - number("grad_norms", step)).abs() < 1e-4, "{kind}, step {step}: norm {norm}");
                lora = optimizer.step(lora, &output.gradients, schedule.at(step));
            }
            let after = saved(&lora.valid());
            assert_eq!(after.len(), lora.parameter_names().len());
            for (name, values) in after {
                let difference = largest_difference(&values, &expected.floats(&format!("after.{name}")));
                assert!(
                    difference < 1e-4,
                    "{kind}, {recompute:?}: {name} differs by {difference} after five steps"
                );
            }
        }
    }
}

#[test]
fn a_fresh_adapter_takes_the_head_along_as_peft_does() {
    let model = classifier(None);
    let config = LoraConfig::new(Targets::names(["query", "value"])).with_rank(2).with_alpha(4.0);
    let lora = Lora::new(model.as_ref(), config, 3).unwrap();
    let folder = tempfile::tempdir().unwrap();
    lora.save(folder.path()).unwrap();
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path.join("adapter_config.json")).unwrap()).unwrap()
    };
    let (ours, (expected, _, peft)) = (read(folder.path()), fixture("classes"));
    let theirs = read(&peft);
    for field in ["task_type", "modules_to_save", "target_modules", "r"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    let keys: Vec<String> = saved(&lora).into_keys().collect();
    let peft: Vec<_> =
        expected.names().iter().filter_map(|name| name.strip_prefix("after.")).map(str::to_owned).collect();
    assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>(), peft.iter().collect());
    assert!(trainable_parameters(model.as_ref(), &lora).trainable > 3 * 24);
    // What the user names already is not named twice.
    let scope = llmkit_peft::Scope::new(Targets::AllLinear).with_modules_to_save(["classifier"]);
    let lora = Lora::new(model.as_ref(), LoraConfig::new(scope), 3).unwrap();
    assert_eq!(lora.config().scope.modules_to_save, ["classifier", "score"]);
    assert!(lora.layer("classifier").is_none() && lora.layer("bert.encoder.layer.0.output.dense").is_some());
}

/// Learnable: the label follows from the first token.
fn examples(count: usize) -> Vec<Labelled> {
    (0..count as u32)
        .map(|i| {
            let label = Label::Class((i % 3) as usize);
            let ids: Vec<u32> = (0..4 + (i * 5) % 7)
                .map(|j| if j == 0 { 10 + i % 3 } else { 20 + (i * 7 + j) % 30 })
                .collect();
            Labelled { type_ids: vec![0; ids.len()], ids, label }
        })
        .collect()
}

fn config() -> TrainConfig {
    TrainConfig { epochs: 6, batch_size: 4, accumulate: 2, learning_rate: 2e-2, ..TrainConfig::default() }
}

fn fresh(model: &SequenceClassifier) -> Lora {
    Lora::new(model, LoraConfig::new(Targets::AllLinear).with_rank(2).with_dropout(0.1), 5).unwrap()
}

struct StopAfter(usize);

impl Observer for StopAfter {
    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        if report.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn training_tells_the_labels_apart_and_resumes_bit_for_bit() {
    let (model, data) = (classifier(None), examples(23));
    let untrained = evaluate(model.as_ref(), &NoAdapter, &data, 5, 256).unwrap();
    let mut whole = Trainer::new(model.clone(), fresh(&model), config()).unwrap();
    let report = whole.fit(&data, &data, &mut Silent).unwrap();
    assert_eq!(report.steps, 18);
    let (loss, accuracy) = (report.heldout_loss.unwrap(), report.heldout_accuracy.unwrap());
    assert!(loss < 0.6 * untrained.loss && accuracy > 0.8, "{untrained:?} to {loss}, {accuracy}");
    // Alone or in batches of any size, the scores are the same.
    let trained = whole.into_adapter();
    let alone = evaluate(model.as_ref(), &trained, &data, 1, 256).unwrap();
    assert!((alone.loss - loss).abs() < 1e-5 && alone.accuracy == Some(accuracy));

    let folder = tempfile::tempdir().unwrap();
    let mut first =
        Trainer::new(model.clone(), fresh(&model), config()).unwrap().with_checkpoints(folder.path());
    let checkpoint = first.fit(&data, &[], &mut StopAfter(7)).unwrap().checkpoint.unwrap();
    let lora = Lora::load(model.as_ref(), &checkpoint).unwrap();
    let mut second = Trainer::new(model.clone(), lora, config()).unwrap().resume(&checkpoint).unwrap();
    // Other labels are other data.
    let mut other = data.clone();
    other[0].label = Label::Class(2);
    assert!(matches!(second.fit(&other, &[], &mut Silent), Err(Error::Resume { .. })));
    second.fit(&data, &[], &mut Silent).unwrap();
    assert_eq!(saved(&second.into_adapter()), saved(&trained));

    let merged = merge(model.as_ref(), &trained).unwrap();
    let merged = evaluate(merged.as_ref(), &NoAdapter, &data, 5, 256).unwrap();
    assert!((merged.loss - loss).abs() < 1e-5, "{merged:?} {loss}");
}

#[test]
fn examples_that_the_model_cannot_read_are_named() {
    let model = classifier(None);
    let good = examples(3);
    let spoil = |change: &dyn Fn(&mut Labelled)| {
        let mut data = good.clone();
        change(&mut data[1]);
        match evaluate(model.as_ref(), &NoAdapter, &data, 2, 256) {
            Err(Error::Example { index: 1, expected, found }) => format!("{expected}, found {found}"),
            other => panic!("{other:?}"),
        }
    };
    assert!(spoil(&|example| example.ids[0] = 61).contains("below 61"));
    assert!(spoil(&|example| example.ids.clear()).contains("from 1 to 32"));
    assert!(spoil(&|example| example.ids = vec![5; 33]).contains("from 1 to 32"));
    assert!(spoil(&|example| example.type_ids[1] = 2).contains("below 2"));
    assert!(spoil(&|example| example.type_ids.clear()).contains("token types"));
    assert!(spoil(&|example| example.label = Label::Class(3)).contains("class below 3"));
    assert!(
        spoil(&|example| example.label = Label::Values(vec![1.0, f32::NAN, 0.0])).contains("from 0 to 1")
    );
    assert!(spoil(&|example| example.label = Label::Values(vec![1.0, 0.0, 1.0])).contains("same kind"));
    let regression = classifier(Some("regression"));
    assert!(matches!(regression.check(&good), Err(Error::Example { index: 0, .. })));
    assert!(matches!(evaluate(model.as_ref(), &NoAdapter, &[], 2, 256), Err(Error::NoData { .. })));
}

#[test]
fn fresh_heads_are_transformers() {
    let facts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("training/fresh.json")).unwrap()).unwrap();
    let labels = ["a", "b", "c", "d", "e"];
    for (kind, facts) in facts.as_object().unwrap() {
        let checkpoint = Checkpoint::open(encoders().join(kind)).unwrap();
        let encoder = load_encoder(&checkpoint, &device()).unwrap();
        let make = |seed| SequenceClassifier::fresh(encoder.clone(), &labels, seed).unwrap();
        let model = make(0);
        assert_eq!(
            (model.task(), model.labels()),
            (Task::SequenceClassification, &labels.map(str::to_owned)[..])
        );
        assert_eq!(model.config()["architectures"], facts["architectures"]);
        assert_eq!(model.config()["id2label"]["4"], "e");

        // The same names as in transformers' model, so that files fit both ways.
        let mut paths = Vec::new();
        model.visit(&mut |layer| {
            paths.push(format!("{}.weight", layer.path()));
            let bias = match layer {
                Layer::Linear(linear) => linear.bias.is_some(),
                Layer::Norm(norm) => norm.bias.is_some(),
                Layer::Embedding(_) => false,
            };
            paths.extend(bias.then(|| format!("{}.bias", layer.path())));
        });
        paths.sort();
        assert_eq!(serde_json::to_value(&paths).unwrap(), facts["paths"], "{kind}");

        // The same shapes and distributions.
        let parameters = facts["parameters"].as_object().unwrap();
        let mut drawn: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        let mut shapes = BTreeMap::new();
        for seed in 0..30 {
            let model = make(seed);
            let fresh = model.fresh_layers();
            let note = &mut |name: String, shape: Vec<usize>, new: Vec<f32>| {
                shapes.insert(name.clone(), shape);
                drawn.entry(name).or_default().extend(new);
            };
            model.visit(&mut |layer| {
                if !fresh.iter().any(|path| path == layer.path()) {
                    return;
                }
                let name = |end: &str| format!("{}.{end}", layer.path());
                let bias = match layer {
                    Layer::Linear(linear) => {
                        note(name("weight"), linear.weight.dims().to_vec(), values(linear.weight.clone()));
                        &linear.bias
                    }
                    Layer::Norm(norm) => {
                        note(name("weight"), norm.weight.dims().to_vec(), values(norm.weight.clone()));
                        &norm.bias
                    }
                    Layer::Embedding(_) => unreachable!("a head has no embedding"),
                };
                if let Some(bias) = bias {
                    note(name("bias"), bias.dims().to_vec(), values(bias.clone()));
                }
            });
        }
        assert_eq!(drawn.keys().collect::<Vec<_>>(), parameters.keys().collect::<Vec<_>>(), "{kind}");
        for (name, values) in drawn {
            let theirs = &parameters[&name];
            assert_eq!(serde_json::to_value(&shapes[&name]).unwrap(), theirs["shape"], "{kind}: {name}");
            let number = |field: &str| theirs[field].as_f64().unwrap();
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
            let variance =
                values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / values.len() as f64;
            let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            assert!(
                (variance.sqrt() - number("std")).abs() <= 0.05 * number("std"),
                "{kind}: {name} {variance}"
            );
            assert!((mean - number("mean")).abs() <= 0.1 * number("std").max(1e-9), "{kind}: {name} {mean}");
            assert!(f64::from(largest) <= 1.5 * number("largest").max(1e-9), "{kind}: {name} {largest}");
        }

        // And it works.
        let ids = common::ids(&[5, 6, 7, 8, 9, 10], [2, 3]);
        assert_eq!(model.forward(ids, &[3, 2], None, &NoAdapter).dims(), [2, 5]);
    }
    let encoder = load_encoder(&Checkpoint::open(encoders().join("bert")).unwrap(), &device()).unwrap();
    assert!(SequenceClassifier::fresh(encoder.clone(), &[] as &[&str], 0).is_err());
    assert!(SequenceClassifier::fresh(encoder, &["a", "a"], 0).is_err());
}

#[test]
fn a_fresh_head_without_pooler_computes_what_a_pooler_would() {
    let checkpoint = Checkpoint::open(encoders().join("bert")).unwrap();
    let encoder = load_encoder(&checkpoint, &device()).unwrap();
    let with = SequenceClassifier::fresh(encoder.clone(), &["a", "b"], 1).unwrap();
    let without = SequenceClassifier::fresh(encoder.without_pooler(), &["a", "b"], 1).unwrap();
    assert_eq!(without.fresh_layers(), ["bert.pooler.dense", "classifier"]);
    // With the pooler's own weights, and the other's head, it is the same model.
    let mut tensors: BTreeMap<String, (Tensor<2>, Option<Tensor<1>>)> = BTreeMap::new();
    with.visit(&mut |layer| {
        if let Layer::Linear(linear) = layer {
            tensors.insert(linear.path().to_owned(), (linear.weight.clone(), linear.bias.clone()));
        }
    });
    let same = without.edited(&mut |layer| match layer {
        LayerMut::Linear(linear) if ["bert.pooler.dense", "classifier"].contains(&linear.path()) => {
            (linear.weight, linear.bias) = tensors[linear.path()].clone();
            true
        }
        _ => false,
    });
    let ids = || common::ids(&[5, 6, 7, 8, 9, 10], [2, 3]);
    let scores = |model: &SequenceClassifier| values(model.forward(ids(), &[3, 2], None, &NoAdapter));
    assert_eq!(scores(&same), scores(&with));
    assert!(largest_difference(&scores(&without), &scores(&with)) > 1e-4);
}
