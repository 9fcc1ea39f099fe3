//! Sentence encoders and cross-encoders against sentence-transformers: the same texts, the same vectors and scores.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::embed::{CrossEncoder, Function, Pooling, PoolingMode, SentenceEncoder};
use llmkit_core::models::load_encoder;
use llmkit_core::{Device, Embedder, Error, Reranker, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentence").join(name)
}

fn device() -> burn::tensor::Device {
    Device::from_env().unwrap().resolve().unwrap()
}

/// A model's folder with a variant's files laid over it.
fn assembled(base: &str, variant: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for from in [fixture(base), fixture(variant)] {
        copy(&from, folder.path());
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let at = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &at);
        } else {
            fs::copy(entry.path(), at).unwrap();
        }
    }
}

/// A variant with one of its JSON files changed.
fn changed(base: &str, variant: &str, file: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let folder = assembled(base, variant);
    let path = folder.path().join(file);
    let mut value = fs::read(&path).map_or(json!({}), |bytes| serde_json::from_slice(&bytes).unwrap());
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
    folder
}

fn texts(field: &str) -> Vec<String> {
    let all: Value = serde_json::from_slice(&fs::read(fixture("texts.json")).unwrap()).unwrap();
    serde_json::from_value(all[field].clone()).unwrap()
}

fn expected(variant: &str, name: &str) -> (Vec<f32>, Vec<usize>) {
    let bytes = fs::read(fixture(variant).join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    (values.collect(), view.shape().to_vec())
}

/// Both the direction, within 1e-5 of cosine, and the numbers.
fn same_vectors(variant: &str, name: &str, found: &[Vec<f32>]) {
    let (reference, shape) = expected(variant, name);
    assert_eq!([found.len(), found[0].len()], shape[..], "{variant}");
    for (row, (found, reference)) in found.iter().zip(reference.chunks_exact(shape[1])).enumerate() {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(found, reference) / (dot(found, found) * dot(reference, reference)).sqrt();
        assert!(1.0 - cosine < 1e-5, "{variant}, {name} {row}: cosine {cosine}");
        let difference = found.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-4, "{variant}, {name} {row}: off by {difference}");
    }
}

const VARIANTS: [&str; 12] = [
    "mean",
    "cls",
    "max",
    "mean-sqrt-len",
    "weighted-mean",
    "last-token",
    "two-modes",
    "dense",
    "lower-case",
    "prompts",
    "prompts-excluded",
    "newest",
];

#[test]
fn every_variant_gives_the_same_vectors() {
    let texts = texts("texts");
    for variant in VARIANTS {
        let encoder = SentenceEncoder::load(assembled("base", variant).path(), &device()).unwrap();
        let found = match variant {
            "prompts-excluded" => encoder.encode_queries(&texts).unwrap(),
            _ => encoder.encode(&texts).unwrap(),
        };
        same_vectors(variant, "embeddings", &found);
        same_vectors(variant, "queries", &encoder.encode_queries(&texts).unwrap());
        same_vectors(variant, "documents", &encoder.encode_documents(&texts).unwrap());
        same_vectors(variant, "queries", &encoder.for_queries().encode(&texts).unwrap());
        assert_eq!(encoder.dimensions(), found[0].len());
    }
}

#[test]
fn the_size_of_batches_changes_nothing() {
    let texts = texts("texts");
    let folder = assembled("base", "prompts-excluded");
    let encoder = SentenceEncoder::load(folder.path(), &device()).unwrap();
    for size in [1, 2, 100] {
        let found = encoder.clone().with_batch_size(size).encode_queries(&texts).unwrap();
        same_vectors("prompts-excluded", "queries", &found);
    }
    assert_eq!(encoder.encode(&[] as &[&str]).unwrap(), Vec::<Vec<f32>>::new());
}

#[test]
fn an_encoder_of_parts_equals_one_from_a_folder() {
    let folder = assembled("base", "cls");
    let encoder = load_encoder(&Checkpoint::open(folder.path()).unwrap(), &device()).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let made = SentenceEncoder::new(encoder, tokenizer, Pooling::new([PoolingMode::Cls])).unwrap();
    assert_eq!(made.max_seq_length(), 32);
    let made = made.with_max_seq_length(16).unwrap();
    same_vectors("cls", "embeddings", &made.encode(&texts("texts")).unwrap());
    assert!(made.with_max_seq_length(33).is_err());
}

#[test]
fn identities_tell_models_apart_and_prompts_together() {
    let load = |variant: &str| SentenceEncoder::load(assembled("base", variant).path(), &device()).unwrap();
    let hash = |encoder: &SentenceEncoder| encoder.id().rsplit('@').next().unwrap().to_owned();
    let (mean, again, max) = (load("mean"), load("mean"), load("max"));
    assert_eq!(hash(&mean), hash(&again));
    assert_ne!(hash(&mean), hash(&max));
    let prompted = load("prompts");
    assert_eq!(prompted.for_queries().id(), prompted.for_documents().id());
}

#[test]
fn truncated_dimensions_are_the_first_ones() {
    let set = |config: &mut Value| config["truncate_dim"] = 5.into();
    let folder = changed("base", "mean", "config_sentence_transformers.json", set);
    let encoder = SentenceEncoder::load(folder.path(), &device()).unwrap();
    let whole = SentenceEncoder::load(assembled("base", "mean").path(), &device()).unwrap();
    let (short, long) = (encoder.encode(&["a dog"]).unwrap(), whole.encode(&["a dog"]).unwrap());
    assert_eq!(encoder.dimensions(), 5);
    assert_eq!(short[0], long[0][..5]);
}

/// Waits without any executor.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn it_embeds_without_an_executor_and_beside_itself() {
    let encoder = SentenceEncoder::load(assembled("base", "mean").path(), &device()).unwrap();
    let texts = texts("texts");
    let embedder: Arc<dyn Embedder> = Arc::new(encoder);
    same_vectors("mean", "embeddings", &wait(embedder.embed(&texts)).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| same_vectors("mean", "embeddings", &wait(embedder.embed(&texts)).unwrap()));
        }
    });
}

fn pairs() -> Vec<(String, String)> {
    let documents = texts("documents");
    let of = |query: String| documents.iter().map(move |document| (query.clone(), document.clone()));
    texts("queries").into_iter().flat_map(of).collect()
}

#[test]
fn cross_encoders_give_the_same_scores() {
    for (variant, function) in [
        ("cross-default", Function::Sigmoid),
        ("cross-untyped", Function::Sigmoid),
        ("cross-identity", Function::Identity),
        ("cross-old", Function::Tanh),
    ] {
        let model = CrossEncoder::load(assembled("cross", variant).path(), &device()).unwrap();
        assert_eq!(model.function(), function);
        let (reference, _) = expected(variant, "scores");
        for size in [1, 3, 100] {
            let scores = model.clone().with_batch_size(size).score(&pairs()).unwrap();
            assert_eq!(scores.len(), reference.len());
            for (found, reference) in scores.iter().zip(&reference) {
                assert!((found - reference).abs() < 1e-5, "{variant}: {found}, {reference}");
            }
        }
    }
}

#[test]
fn a_cross_encoder_reranks() {
    let model = CrossEncoder::load(assembled("cross", "cross-default").path(), &device()).unwrap();
    let (reference, _) = expected("cross-default", "scores");
    let documents = texts("documents");
    let reranker: Arc<dyn Reranker> = Arc::new(model);
    for (query, reference) in texts("queries").iter().zip(reference.chunks_exact(documents.len())) {
        let scores = wait(reranker.rerank(query, &documents)).unwrap();
        assert!(scores.iter().zip(reference).all(|(found, reference)| (found - reference).abs() < 1e-5));
    }
}

#[test]
fn what_would_change_the_result_is_refused_by_name() {
    let refused = |variant: &str, file: &str, field: &str, change: &dyn Fn(&mut Value)| {
        let folder = changed("base", variant, file, change);
        match SentenceEncoder::load(folder.path(), &device()) {
            Err(Error::Config { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{file} with another {field}: {other:?}"),
        }
    };
    refused("mean", "1_Pooling/config.json", "word_embedding_dimension", &|c| {
        c["word_embedding_dimension"] = 25.into()
    });
    refused("newest", "1_Pooling/config.json", "pooling_mode", &|c| c["pooling_mode"] = "median".into());
    refused("newest", "1_Pooling/config.json", "pooling_mode", &|c| c["pooling_mode"] = json!([]));
    refused("dense", "2_Dense/config.json", "in_features", &|c| c["in_features"] = 23.into());
    let odd = "torch.nn.modules.activation.Softshrink";
    refused("dense", "2_Dense/config.json", "activation_function", &|c| {
        c["activation_function"] = odd.into()
    });
    let elsewhere = "my_code.Tanh";
    refused("dense", "2_Dense/config.json", "activation_function", &|c| {
        c["activation_function"] = elsewhere.into()
    });
    refused("mean", "modules.json", "type", &|c| c[2]["type"] = "sentence_transformers.models.LSTM".into());
    refused("mean", "modules.json", "type", &|c| c[2]["type"] = "somewhere.models.Normalize".into());
    refused("mean", "modules.json", "path", &|c| c[1]["path"] = "../1_Pooling".into());
    refused("mean", "modules.json", "path", &|c| c[1]["path"] = "/1_Pooling".into());
    refused("mean", "modules.json", "type", &|c| *c = json!([]));
    refused("mean", "modules.json", "(the whole file)", &|c| *c = json!({}));
    refused("mean", "sentence_bert_config.json", "max_seq_length", &|c| c["max_seq_length"] = 0.into());
    refused("mean", "sentence_bert_config.json", "query_length", &|c| c["query_length"] = 8.into());
    refused("newest", "sentence_bert_config.json", "transformer_task", &|c| {
        c["transformer_task"] = "fill-mask".into()
    });
    let config = "config_sentence_transformers.json";
    refused("prompts", config, "default_prompt_name", &|c| c["default_prompt_name"] = "other".into());
    refused("prompts", config, "prompts", &|c| c["prompts"] = json!(["query: "]));
    refused("prompts", config, "model_type", &|c| c["model_type"] = "SparseEncoder".into());
}

#[test]
fn a_cross_encoder_with_more_labels_or_another_function_is_refused() {
    let refused = |field: &str, change: &dyn Fn(&mut Value)| {
        let folder = changed("cross", "cross-default", "config.json", change);
        match CrossEncoder::load(folder.path(), &device()) {
            Err(Error::Config { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    };
    let unknown = json!({ "activation_fn": "torch.nn.modules.activation.Softmax" });
    refused("sentence_transformers.activation_fn", &|c| c["sentence_transformers"] = unknown.clone());
    let two = json!({ "0": "a", "1": "b" });
    let folder = changed("cross", "cross-default", "config.json", |c| c["id2label"] = two);
    assert!(matches!(CrossEncoder::load(folder.path(), &device()), Err(Error::Tensors { .. })));
}

#[test]
fn a_length_without_room_and_a_folder_without_modules_say_so() {
    let folder = changed("base", "mean", "sentence_bert_config.json", |c| c["max_seq_length"] = 3.into());
    match SentenceEncoder::load(folder.path(), &device()) {
        Err(Error::Tokenizer { reason }) => assert!(reason.contains("no room"), "{reason}"),
        other => panic!("{other:?}"),
    }
    match SentenceEncoder::load(fixture("base"), &device()) {
        Err(Error::MissingFile { path, .. }) => assert!(path.ends_with("modules.json")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prompt_that_is_not_pooled_may_not_be_all_there_is() {
    let encoder = SentenceEncoder::load(assembled("base", "prompts-excluded").path(), &device()).unwrap();
    let prompt = "the cat sat on the mat and the dog ran over the river and the old house and it sat";
    // The end token is still pooled, so that every vector is a number.
    let vectors = encoder.encode_with_prompt(&["a dog"], prompt).unwrap();
    assert!(vectors[0].iter().all(|value| value.is_finite()));
}

/// Ranks from 1, ties sharing their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count() as f64;
    let same = |value: f64| values.iter().filter(|other| **other == value).count() as f64;
    values.iter().map(|value| below(*value) + (same(*value) + 1.0) / 2.0).collect()
}

/// Spearman's correlation.
fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Run with LLMKIT_MINILM set to the model's folder: `cargo test --test sentence -- --ignored`.
#[test]
#[ignore = "needs the weights of all-MiniLM-L6-v2; set LLMKIT_MINILM to their folder"]
fn minilm_orders_real_pairs_as_sentence_transformers_does() {
    let folder = std::env::var("LLMKIT_MINILM").expect("LLMKIT_MINILM is the folder of all-MiniLM-L6-v2");
    let encoder = SentenceEncoder::load(folder, &device()).unwrap();
    assert_eq!((encoder.dimensions(), encoder.max_seq_length()), (384, 256));

    let pairs: Vec<(String, String, f64)> =
        serde_json::from_slice(&fs::read(fixture("minilm/pairs.json")).unwrap()).unwrap();
    let firsts = pairs.iter().map(|pair| &pair.0);
    let texts: Vec<&String> = firsts.chain(pairs.iter().map(|pair| &pair.1)).collect();
    let vectors = encoder.encode(&texts).unwrap();
    same_vectors("minilm", "embeddings", &vectors);

    let (reference, _) = expected("minilm", "embeddings");
    let reference: Vec<_> = reference.chunks_exact(384).map(<[f32]>::to_vec).collect();
    let cosines = |vectors: &[Vec<f32>]| -> Vec<f64> {
        let (firsts, seconds) = vectors.split_at(pairs.len());
        firsts.iter().zip(seconds).map(|(a, b)| cosine(a, b)).collect()
    };
    let (found, reference) = (cosines(&vectors), cosines(&reference));
    let largest = found.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(largest < 1e-5, "cosines of pairs differ by {largest}");
    let gold: Vec<f64> = pairs.iter().map(|pair| pair.2).collect();
    let (ours, theirs) = (spearman(&gold, &found), f64::from(expected("minilm", "spearman").0[0]));
    println!("largest difference of a cosine {largest:.1e}; Spearman {ours:.4}, theirs {theirs:.4}");
    assert!((ours - theirs).abs() < 1e-4 && ours > 0.9, "Spearman {ours}, theirs {theirs}");
}
