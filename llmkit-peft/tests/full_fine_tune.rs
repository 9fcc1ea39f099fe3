//! Full fine-tuning: what every method promises, tied embeddings, patterns, and the folders that it writes.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::Path;

use burn::module::Module;
use common::method::{Promises, check_method};
use common::{base, device, examples, largest_difference, logits, some_ids};
use llmkit_core::NoAdapter;
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::{Model, load_causal_lm, load_sequence_classifier};
use llmkit_core::nn::Layer;
use llmkit_peft::data::{Label, Labelled};
use llmkit_peft::train::{Silent, TrainConfig, Trainer};
use llmkit_peft::{Error, FullFineTune, Method, Targets, merge, trainable_parameters};

#[test]
fn it_keeps_what_methods_promise() {
    let promises = Promises { learning_rate: 2e-3, ..Promises::default() };
    for name in ["gqa-tied", "untied-llama3", "../decoders/qwen2-window"] {
        let model = base(name);
        check_method(
            &model,
            promises,
            || FullFineTune::new(model.as_ref()),
            |folder| FullFineTune::load(model.as_ref(), folder).unwrap(),
        );
    }
}

#[test]
fn chosen_layers_keep_what_methods_promise() {
    let model = base("gqa-tied");
    let layers = Targets::Regex(r"model\.layers\.1\..*|model\.norm".into());
    check_method(
        &model,
        Promises { learning_rate: 5e-3, ..Promises::default() },
        || FullFineTune::only(model.as_ref(), layers.clone()).unwrap(),
        |folder| FullFineTune::load(model.as_ref(), folder).unwrap(),
    );
}

fn trained(model: &std::sync::Arc<dyn llmkit_core::models::CausalLm>, tuned: FullFineTune) -> FullFineTune {
    let data = examples(9, 90);
    let config = TrainConfig { batch_size: 3, learning_rate: 5e-3, ..TrainConfig::default() };
    let mut trainer = Trainer::new(model.clone(), tuned, config).unwrap();
    trainer.fit(&data, &[], &mut Silent).unwrap();
    trainer.into_adapter()
}

#[test]
fn a_tied_model_stays_tied_in_its_folder() {
    let model = base("gqa-tied");
    let tuned = FullFineTune::new(model.as_ref());
    assert_eq!(
        trainable_parameters(model.as_ref(), &tuned).trainable * 2,
        trainable_parameters(model.as_ref(), &tuned).all,
        "everything trains, and nothing twice"
    );
    let tuned = trained(&model, tuned);
    let folder = tempfile::tempdir().unwrap();
    tuned.save(folder.path()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.source().info("lm_head.weight").is_none());
    let read = load_causal_lm(&checkpoint, &device()).unwrap();
    assert!(read.is_tied());
    let ids = || some_ids(90);
    let adapted = logits(model.as_ref(), ids(), &tuned);
    assert_eq!(logits(read.as_ref(), ids(), &NoAdapter), adapted);
    assert!(largest_difference(&adapted, &logits(model.as_ref(), ids(), &NoAdapter)) > 1e-2);
    let merged = merge(model.as_ref(), &tuned).unwrap();
    assert!(largest_difference(&logits(merged.as_ref(), ids(), &NoAdapter), &adapted) < 1e-5);
}

/// The names of a model's parameters that differ from another's.
fn changed(a: &dyn Model, b: &dyn Model) -> Vec<String> {
    let read = |model: &dyn Model| {
        let mut all = Vec::new();
        model.visit(&mut |layer| {
            let weight = match layer {
                Layer::Linear(linear) => common::values(linear.weight.clone()),
                Layer::Norm(norm) => common::values(norm.weight.clone()),
                Layer::Embedding(embedding) => common::values(embedding.weight.clone()),
            };
            all.push((layer.path().to_owned(), weight));
        });
        all
    };
    let pairs = read(a).into_iter().zip(read(b));
    pairs.filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0).collect()
}

#[test]
fn only_the_chosen_layers_change() {
    let model = base("untied-llama3");
    let layers = Targets::names(["layers.0.self_attn.q_proj", "norm", "embed_tokens"]);
    let tuned = trained(&model, FullFineTune::only(model.as_ref(), layers).unwrap());
    let folder = tempfile::tempdir().unwrap();
    tuned.save(folder.path()).unwrap();
    let read = load_causal_lm(&Checkpoint::open(folder.path()).unwrap(), &device()).unwrap();
    assert_eq!(
        changed(read.as_ref(), model.as_ref()),
        ["model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.norm"]
    );
    // With another base, what does not train would silently be another model's.
    let other = base("head-dim-bias");
    assert!(matches!(
        FullFineTune::load(other.as_ref(), folder.path()),
        Err(Error::NoTarget { .. } | Error::Adapter { .. })
    ));
    let error = FullFineTune::load(read.as_ref(), folder.path());
    assert!(error.is_ok(), "the frozen layers are the same in both");
    let renamed = FullFineTune::only(model.as_ref(), Targets::names(["k_projection"]));
    assert!(matches!(renamed, Err(Error::NoTarget { .. })));
}

#[test]
fn frozen_layers_of_another_model_are_refused() {
    let model = base("untied-llama3");
    let tuned = FullFineTune::only(model.as_ref(), Targets::names(["norm"])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    tuned.save(folder.path()).unwrap();
    let whole = trained(&model, FullFineTune::new(model.as_ref()));
    let other = merge(model.as_ref(), &whole).unwrap();
    let Err(Error::Adapter { mismatched, .. }) = FullFineTune::load(other.as_ref(), folder.path()) else {
        panic!("the frozen layers are another model's");
    };
    assert!(mismatched.iter().any(|name| name.contains("q_proj")), "{mismatched:?}");
}

#[test]
fn a_classifier_is_tuned_whole() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures/encoders/bert-sequence");
    let checkpoint = Checkpoint::open(folder).unwrap();
    let model = std::sync::Arc::new(load_sequence_classifier(&checkpoint, &device()).unwrap());
    let data: Vec<Labelled> = (0..12u32)
        .map(|i| Labelled {
            ids: vec![4, 10 + i % 3, 20 + i],
            type_ids: vec![0; 3],
            label: Label::Class((i % 3) as usize),
        })
        .collect();
    let config = TrainConfig { epochs: 8, learning_rate: 3e-3, ..TrainConfig::default() };
    let mut trainer = Trainer::new(model.clone(), FullFineTune::new(model.as_ref()), config).unwrap();
    trainer.preflight(&data.iter().collect::<Vec<_>>()).unwrap();
    let report = trainer.fit(&data, &data, &mut Silent).unwrap();
    assert!(report.heldout_accuracy.unwrap() > 0.9, "{report:?}");
    let out = tempfile::tempdir().unwrap();
    let tuned = trainer.into_adapter();
    tuned.save(out.path()).unwrap();
    let read = load_sequence_classifier(&Checkpoint::open(out.path()).unwrap(), &device()).unwrap();
    let ids = || common::ids(&[4, 10, 20, 4, 11, 21], [2, 3]);
    let scores = common::values(read.forward(ids(), &[3, 3], None, &NoAdapter));
    assert_eq!(scores, common::values(model.forward(ids(), &[3, 3], None, &tuned)));
    assert_eq!(read.labels(), model.labels());
    assert_eq!(tuned.num_params(), trainable_parameters(model.as_ref(), &tuned).trainable);
}
