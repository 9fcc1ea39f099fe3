//! Prompts and prefixes: PEFT's folders both ways, what PEFT computes and generates with them, and training.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use common::method::{Promises, check_method};
use common::{Expected, base, device, fixtures, ids, largest_difference, logits, values};
use llmkit_core::checkpoint::{Checkpoint, Safetensors, TensorSource};
use llmkit_core::engine::{Engine, EngineConfig};
use llmkit_core::generate::{
    BatchRequest, GenerationConfig, NextToken, NextTokens, TextDecoder, generate, generate_batch,
};
use llmkit_core::models::Pretrained;
use llmkit_core::models::{
    CachedModel, CausalLm, Model, load_causal_lm, load_encoder, load_sequence_classifier,
    load_token_classifier,
};
use llmkit_core::{Adapter, ChatRequest, Message, NoAdapter, Tokenizer};
use llmkit_peft::data::{Label, Labelled};
use llmkit_peft::train::{Silent, TrainConfig, Trainer};
use llmkit_peft::{
    Error, Learned, Method, MultitaskPromptTuning, MultitaskPromptTuningConfig, MultitaskPromptTuningInit,
    PTuning, PTuningConfig, PrefixInit, PrefixTuning, PrefixTuningConfig, PromptConfig, PromptEncoderKind,
    PromptMethod, PromptScope, PromptTuning, PromptTuningConfig, PromptTuningInit, load_adapter, merge,
};
use serde_json::{Value, json};

const ENCODER: &str = "llmkit_prompt_encoder.safetensors";

fn folder(name: &str) -> PathBuf {
    fixtures().join("prompts").join(name)
}

fn base_folder(name: &str) -> PathBuf {
    let base = std::fs::read_to_string(folder(name).join("base.txt")).unwrap();
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures").join(base.trim())
}

fn causal(name: &str) -> Arc<dyn CausalLm> {
    load_causal_lm(&Checkpoint::open(base_folder(name)).unwrap(), &device()).unwrap()
}

/// A copy of a fixture's folder, to be spoilt; `files` of it.
fn copy(name: &str, files: &[&str]) -> tempfile::TempDir {
    let copied = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(folder(name).join(file), copied.path().join(file)).unwrap();
    }
    copied
}

const PEFT_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
const ALL_FILES: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", ENCODER];

fn close(name: &str, ours: &[f32], theirs: &[f32]) {
    let difference = largest_difference(ours, theirs);
    assert!(difference < 1e-4, "{name}: differs by {difference}");
}

/// As PEFT writes it, with lists that stand for sets in order and without repetition.
fn config(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
}

fn assert_same_file(theirs: &Path, ours: &Path, file: &str) {
    let open = |folder: &Path| Safetensors::open(folder.join(file)).unwrap();
    let (a, b) = (open(theirs), open(ours));
    assert_eq!(a.names(), b.names(), "{file}");
    for name in a.names() {
        assert_eq!(a.info(&name), b.info(&name), "{file}: {name}");
        assert_eq!(a.read_f32(&name).unwrap(), b.read_f32(&name).unwrap(), "{file}: {name}");
    }
}

/// PEFT's folder computes here what `compute` compares, with and without the network beside it, and is written back as it was.
fn check_folder<L: Learned>(name: &str, model: &dyn Model, compute: impl Fn(PromptMethod<L>)) {
    let folder = folder(name);
    let plain = copy(name, &PEFT_FILES);
    let method = PromptMethod::<L>::load(model, plain.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    method.save(out.path()).unwrap();
    assert_same_file(&folder, out.path(), "adapter_model.safetensors");
    assert_eq!(config(&folder), config(out.path()), "{name}");
    assert!(!out.path().join(ENCODER).exists());
    compute(method);

    if folder.join(ENCODER).exists() {
        let method = PromptMethod::<L>::load(model, &folder).unwrap();
        method.save(out.path()).unwrap();
        assert_same_file(&folder, out.path(), ENCODER);
        assert_eq!(config(&folder), config(out.path()), "{name}");
        let read = |folder: &Path| {
            let file = Safetensors::open(folder.join("adapter_model.safetensors")).unwrap();
            file.read_f32("prompt_embeddings").unwrap()
        };
        let difference = largest_difference(&read(&folder), &read(out.path()));
        assert!(difference < 1e-5, "{name}: the network's output differs by {difference}");
        compute(method);
    }
    // By the file's own word.
    assert_eq!(load_adapter(model, &folder).unwrap().kind(), config(&folder)["peft_type"]);
}

/// The fixtures have no tokenizer, and only their ids are compared.
struct NoText;

impl TextDecoder for NoText {
    fn step(&mut self, _id: u32) -> llmkit_core::Result<Option<String>> {
        Ok(None)
    }

    fn finish(&mut self) -> llmkit_core::Result<Option<String>> {
        Ok(None)
    }
}

fn unsigned(values: &[i32]) -> Vec<u32> {
    values.iter().map(|id| *id as u32).collect()
}

/// The prompts of a fixture and PEFT's answers.
fn conversations(expected: &Expected) -> Vec<(Vec<u32>, Vec<u32>)> {
    let (prompts, [_, len]) = expected.ints("prompt_ids");
    let (answers, [_, new]) = expected.ints("greedy_ids");
    let prompts = [unsigned(&prompts[..len]), unsigned(&prompts[len + 2..])];
    prompts.into_iter().zip(answers.chunks(new).map(unsigned)).collect()
}

/// Logits, greedy answers one by one, token by token without a cache, and side by side: all as PEFT's. `of_row` is the adapter for a row
/// alone.
fn check_causal<L: Learned>(
    name: &str,
    model: &dyn CausalLm,
    both: &PromptMethod<L>,
    of_row: impl Fn(usize) -> PromptMethod<L>,
) {
    let expected = Expected::open(folder(name).join("expected.safetensors"));
    let (input, shape) = expected.ints("input_ids");
    let input = ids(&input, shape);
    let adapted = logits(model, input.clone(), both);
    close(name, &adapted, &expected.floats("logits"));
    let plain = logits(model, input, &NoAdapter);
    let tokens = &adapted[adapted.len() / 2 - plain.len() / 2..adapted.len() / 2];
    assert!(largest_difference(&plain[..plain.len() / 2], tokens) > 1e-2, "{name}: nothing changed");

    let conversations = conversations(&expected);
    let config = GenerationConfig::new().with_max_new_tokens(20);
    for (row, (prompt, answer)) in conversations.iter().enumerate() {
        let adapter = of_row(row);
        let mut next = CachedModel::new(model, &adapter);
        // The second time after forgetting the first.
        for _ in 0..2 {
            let given = generate(&mut next, &mut NoText, prompt, &config, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            assert_eq!(&given.ids, answer, "{name}: row {row}");
            let learned = adapter.prompt_len() + adapter.prefix_len();
            assert_eq!(next.position(), learned + prompt.len() + answer.len() - 1, "{name}");
            next.clear();
        }
        let mut read: Vec<i32> = prompt.iter().map(|id| *id as i32).collect();
        for (step, id) in answer.iter().enumerate() {
            let scores = model.forward(ids(&read, [1, read.len()]), &adapter);
            let [_, seq, vocab] = scores.dims();
            let last = scores.slice([0..1, seq - 1..seq, 0..vocab]).argmax(2);
            assert_eq!(last.into_scalar::<i64>() as u32, *id, "{name}: row {row}, step {step}, no cache");
            read.push(*id as i32);
        }
    }
    let mut next = CachedModel::new(model, both).with_rows(2);
    let requests: Vec<_> =
        conversations.iter().map(|(prompt, _)| BatchRequest { prompt, config: &config }).collect();
    let given =
        generate_batch(&mut next, &requests, &mut || NoText, &mut |_, _| ControlFlow::Continue(())).unwrap();
    for (row, (given, (_, answer))) in given.iter().zip(&conversations).enumerate() {
        assert_eq!(&given.ids, answer, "{name}: row {row} of a batch");
    }
}

macro_rules! causal_fixtures {
    ($($test:ident: $learned:ty, $folder:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                let model = causal($folder);
                check_folder::<$learned>($folder, model.as_ref(), |method| {
                    check_causal($folder, model.as_ref(), &method, |_| method.clone());
                });
            }
        )+
    };
}

causal_fixtures! {
    a_prompt_of_llama: llmkit_peft::Prompt, "prompt-llama",
    a_prompt_of_qwen3: llmkit_peft::Prompt, "prompt-qwen3",
    a_prompt_of_gemma3_is_not_scaled: llmkit_peft::Prompt, "prompt-gemma3",
    a_prompt_of_phi4_with_longrope: llmkit_peft::Prompt, "prompt-longrope",
    p_tuning_of_llama_by_a_perceptron: llmkit_peft::PromptEncoder, "p-tuning-llama-mlp",
    p_tuning_of_llama_by_an_lstm: llmkit_peft::PromptEncoder, "p-tuning-llama-lstm",
    p_tuning_of_qwen2: llmkit_peft::PromptEncoder, "p-tuning-qwen2",
    a_prefix_of_llama_with_grouped_keys: llmkit_peft::Prefix, "prefix-llama",
    a_projected_prefix_of_llama: llmkit_peft::Prefix, "prefix-llama-projection",
    a_prefix_of_qwen2_with_a_window: llmkit_peft::Prefix, "prefix-qwen2-window",
    a_prefix_of_qwen3_whose_keys_are_normalised: llmkit_peft::Prefix, "prefix-qwen3",
    a_prefix_of_gemma3_longer_than_its_window: llmkit_peft::Prefix, "prefix-gemma3",
    a_prefix_of_phi4_with_longrope: llmkit_peft::Prefix, "prefix-longrope",
}

#[test]
fn tasks_of_llama_and_qwen3() {
    for name in ["multitask-llama", "multitask-qwen3"] {
        let model = causal(name);
        check_folder::<llmkit_peft::MultitaskPrompt>(name, model.as_ref(), |method| {
            // As the generator has it.
            let tasks = [1, 0];
            let both = method.clone().with_tasks(tasks).unwrap();
            check_causal(name, model.as_ref(), &both, |row| method.clone().with_task(tasks[row]).unwrap());
            // Rows that end or branch keep their tasks.
            let expected = Expected::open(folder(name).join("expected.safetensors"));
            let (input, shape) = expected.ints("input_ids");
            let swapped: Vec<i32> = input[9..].iter().chain(&input[..9]).copied().collect();
            let selected = both.select(&[1, 0]).unwrap();
            let ours = logits(model.as_ref(), ids(&swapped, shape), selected.as_ref());
            let theirs = expected.floats("logits");
            let (first, second) = theirs.split_at(theirs.len() / 2);
            close(name, &ours, &[second, first].concat());
        });
    }
}

/// A classifier's scores for the two rows of a fixture, side by side and each alone.
fn check_sequence<L: Learned>(name: &str, prepare: impl Fn(PromptMethod<L>, usize) -> PromptMethod<L>) {
    let checkpoint = Checkpoint::open(base_folder(name)).unwrap();
    let model = load_sequence_classifier(&checkpoint, &device()).unwrap();
    check_folder::<L>(name, &model, |method| {
        let expected = Expected::open(folder(name).join("expected.safetensors"));
        let (input, shape) = expected.ints("input_ids");
        // RoBERTa tells padding by its id, 1.
        let padded: Vec<i32> = input.iter().enumerate().map(|(i, id)| if i < 15 { *id } else { 1 }).collect();
        let theirs = expected.floats("logits");
        let both = prepare(method.clone(), 2);
        let together = model.forward(ids(&padded, shape), &[9, 6], None, &both);
        close(name, &values(together), &theirs);
        for (row, length) in [9, 6].into_iter().enumerate() {
            let alone = ids(&input[row * 9..row * 9 + length], [1, length]);
            let alone = values(model.forward(alone, &[length], None, &prepare(method.clone(), row)));
            close(name, &alone, &theirs[row * theirs.len() / 2..(row + 1) * theirs.len() / 2]);
        }
        let plain = values(model.forward(ids(&padded, shape), &[9, 6], None, &NoAdapter));
        assert!(largest_difference(&plain, &theirs) > 1e-2, "{name}: nothing changed");
    });
}

#[test]
fn a_classifier_with_a_prompt() {
    check_sequence::<llmkit_peft::Prompt>("prompt-bert-sequence", |method, _| method);
    check_sequence::<llmkit_peft::PromptEncoder>("p-tuning-bert-sequence", |method, _| method);
}

#[test]
fn a_classifier_with_a_prefix() {
    check_sequence::<llmkit_peft::Prefix>("prefix-bert-sequence", |method, _| method);
    check_sequence::<llmkit_peft::Prefix>("prefix-bert-projection", |method, _| method);
    check_sequence::<llmkit_peft::Prefix>("prefix-roberta-sequence", |method, _| method);
}

#[test]
fn a_classifier_of_two_tasks() {
    check_sequence::<llmkit_peft::MultitaskPrompt>("multitask-bert-sequence", |method, row| match row {
        2 => method.with_tasks([1, 0]).unwrap(),
        row => method.with_task([1, 0][row]).unwrap(),
    });
}

/// The real positions of both rows, one after the other, from vectors `[2, prompt + 9, width]`.
fn real(vectors: Tensor<3>, prompt: usize) -> Vec<f32> {
    let rows = vectors.clone().narrow(0, 0, 1).narrow(1, 0, prompt + 9);
    let mut real = values(rows);
    real.extend(values(vectors.narrow(0, 1, 1).narrow(1, 0, prompt + 6)));
    real
}

#[test]
fn an_encoder_and_a_token_classifier_with_a_prompt() {
    let input = |name: &str| -> (Tensor<2, Int>, Vec<f32>) {
        let expected = Expected::open(folder(name).join("expected.safetensors"));
        let (values, shape) = expected.ints("input_ids");
        (ids(&values, shape), expected.floats("logits"))
    };
    let name = "prompt-bert-token";
    let model = load_token_classifier(&Checkpoint::open(base_folder(name)).unwrap(), &device()).unwrap();
    check_folder::<llmkit_peft::Prompt>(name, &model, |method| {
        let (input, theirs) = input(name);
        close(name, &real(model.forward(input, &[9, 6], None, &method), 4), &theirs);
    });
    let name = "prompt-bert";
    let model = load_encoder(&Checkpoint::open(base_folder(name)).unwrap(), &device()).unwrap();
    check_folder::<llmkit_peft::Prompt>(name, model.as_ref(), |method| {
        let (input, theirs) = input(name);
        close(name, &real(model.forward(input, &[9, 6], None, &method), 4), &theirs);
    });
}

/// The gradients of the networks' parameters are torch's.
#[test]
fn networks_have_the_gradients_of_torch() {
    fn check<L: Learned>(name: &str, model: &dyn Model) {
        let expected = Expected::open(folder(name).join("gradients.safetensors"));
        let method = PromptMethod::<L>::load(model, folder(name)).unwrap().train();
        let output = method.learned().output().unwrap();
        let weights = expected.floats("weights");
        let weights = burn::tensor::TensorData::new(weights, output.shape());
        let weights = Tensor::from_data(weights, &device());
        let gradients = (output * weights).sum().backward();
        let mut ours = llmkit_peft::train::Gradients::new();
        ours.accumulate(&method, gradients);
        let mut theirs: Vec<&str> = expected.names();
        theirs.retain(|name| *name != "weights");
        let names = method.parameter_names();
        for key in theirs {
            // The last layer of a projection is one parameter for each block.
            let parts = names.iter().filter(|(_, name)| name == key || name.starts_with(&format!("{key}.")));
            let parts: Vec<f32> = parts.flat_map(|(id, _)| values(ours.get(*id).unwrap().clone())).collect();
            close(&format!("{name}: {key}"), &parts, &expected.floats(key));
        }
    }
    for name in ["p-tuning-llama-mlp", "p-tuning-llama-lstm"] {
        check::<llmkit_peft::PromptEncoder>(name, causal(name).as_ref());
    }
    check::<llmkit_peft::Prefix>("prefix-llama-projection", causal("prefix-llama-projection").as_ref());
    for name in ["p-tuning-bert-sequence", "prefix-bert-projection"] {
        let model =
            load_sequence_classifier(&Checkpoint::open(base_folder(name)).unwrap(), &device()).unwrap();
        match name {
            "p-tuning-bert-sequence" => check::<llmkit_peft::PromptEncoder>(name, &model),
            _ => check::<llmkit_peft::Prefix>(name, &model),
        }
    }
}

fn promises() -> Promises {
    Promises { identity: false, merges: false, learning_rate: 5e-2 }
}

#[test]
fn prompt_tuning_keeps_what_methods_promise() {
    let model = base("gqa-tied");
    for init in [PromptTuningInit::Random, PromptTuningInit::SampleVocab] {
        let config = PromptTuningConfig::new(5).with_init(init);
        check_method(
            &model,
            promises(),
            || PromptTuning::new(model.as_ref(), config.clone(), 1).unwrap(),
            |folder| PromptTuning::load(model.as_ref(), folder).unwrap(),
        );
    }
}

#[test]
fn p_tuning_keeps_what_methods_promise() {
    let model = base("gqa-tied");
    let mlp = PTuningConfig::new(4).with_hidden_size(16);
    let lstm = PTuningConfig::new(4)
        .with_encoder(PromptEncoderKind::Lstm)
        .with_hidden_size(8)
        .with_encoder_layers(2)
        .with_dropout(0.2);
    for config in [mlp, lstm] {
        check_method(
            &model,
            Promises { learning_rate: 2e-2, ..promises() },
            || PTuning::new(model.as_ref(), config.clone(), 1).unwrap(),
            |folder| PTuning::load(model.as_ref(), folder).unwrap(),
        );
    }
}

#[test]
fn prefix_tuning_keeps_what_methods_promise() {
    let model = base("gqa-tied");
    let plain = PrefixTuningConfig::new(4);
    let zero = PrefixTuningConfig::new(4).with_init(PrefixInit::Zero);
    let projected = PrefixTuningConfig::new(3).with_projection(true).with_hidden_size(12);
    for config in [plain, zero, projected] {
        check_method(
            &model,
            promises(),
            || PrefixTuning::new(model.as_ref(), config.clone(), 1).unwrap(),
            |folder| PrefixTuning::load(model.as_ref(), folder).unwrap(),
        );
    }
}

#[test]
fn multitask_prompt_tuning_keeps_what_methods_promise() {
    let model = base("gqa-tied");
    let config = MultitaskPromptTuningConfig::new(4, 2).with_ranks(2);
    let task = |method: MultitaskPromptTuning| method.with_task(1).unwrap();
    check_method(
        &model,
        promises(),
        || task(MultitaskPromptTuning::new(model.as_ref(), config.clone(), 1).unwrap()),
        |folder| task(MultitaskPromptTuning::load(model.as_ref(), folder).unwrap()),
    );
}

#[test]
fn what_is_fresh_is_shaped_as_peft_shapes_it() {
    let model = base("gqa-tied");
    let fresh: [(Box<dyn Method>, &str); 4] = [
        (Box::new(PromptTuning::new(model.as_ref(), PromptTuningConfig::new(5), 0).unwrap()), "prompt-llama"),
        (
            Box::new(
                PTuning::new(
                    model.as_ref(),
                    PTuningConfig::new(4)
                        .with_encoder(PromptEncoderKind::Lstm)
                        .with_hidden_size(6)
                        .with_dropout(0.1),
                    0,
                )
                .unwrap(),
            ),
            "p-tuning-llama-lstm",
        ),
        (
            Box::new(
                PrefixTuning::new(
                    model.as_ref(),
                    PrefixTuningConfig::new(4).with_projection(true).with_hidden_size(10),
                    0,
                )
                .unwrap(),
            ),
            "prefix-llama-projection",
        ),
        (
            Box::new(
                MultitaskPromptTuning::new(
                    model.as_ref(),
                    MultitaskPromptTuningConfig::new(4, 3).with_ranks(2),
                    0,
                )
                .unwrap(),
            ),
            "multitask-llama",
        ),
    ];
    for (method, name) in fresh {
        let out = tempfile::tempdir().unwrap();
        method.save(out.path()).unwrap();
        let (ours, theirs) = (config(out.path()), config(&folder(name)));
        for (field, value) in ours.as_object().unwrap() {
            if field != "base_model_name_or_path" {
                assert_eq!(value, &theirs[field], "{name}: {field}");
            }
        }
        for file in ["adapter_model.safetensors", ENCODER] {
            if !folder(name).join(file).exists() {
                continue;
            }
            let [a, b] = [out.path(), &folder(name)].map(|at| Safetensors::open(at.join(file)).unwrap());
            assert_eq!(a.names(), b.names(), "{name}");
            a.names().iter().for_each(|key| assert_eq!(a.info(key), b.info(key), "{name}: {key}"));
        }
    }
}

#[test]
fn a_prompt_starts_from_a_text() {
    let tokenizer =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures/tokenizer/byte_level");
    let tokenizer = Tokenizer::from_folder(tokenizer).unwrap();
    // The vectors of the text's tokens, in a model whose embedding is scaled.
    for name in ["prompt-llama", "prompt-gemma3"] {
        let model = causal(name);
        let vocab = model.vocab_size() as u32;
        let text = (0..400u32).map(|i| char::from(b'!' + (i % 90) as u8).to_string());
        let text =
            text.into_iter().find(|text| tokenizer.encode(text, true).unwrap().iter().all(|id| *id < vocab));
        let text = text.unwrap().repeat(2);
        let text_ids = tokenizer.encode(&text, true).unwrap();
        let wanted: Vec<i32> = text_ids.iter().cycle().take(5).map(|id| *id as i32).collect();
        let wanted = values(model.embed(ids(&wanted, [1, 5]), &NoAdapter));
        let config = PromptTuningConfig::new(5).with_text(&text, "a/tokenizer");
        let prompt = PromptTuning::from_text(model.as_ref(), config.clone(), &tokenizer, 0).unwrap();
        let vectors = prompt.learned().prompt(1, None).unwrap();
        assert_eq!(values(vectors), wanted, "{name}");
        let error = PromptTuning::new(model.as_ref(), config, 0).unwrap_err().to_string();
        assert!(error.contains("from_text"), "{error}");
    }
    let model = causal("prompt-llama");
    let foreign = PromptTuningConfig::new(5).with_text("words of a larger vocabulary", "a/tokenizer");
    let error = PromptTuning::from_text(model.as_ref(), foreign, &tokenizer, 0).unwrap_err().to_string();
    assert!(error.contains("does the tokenizer belong to it"), "{error}");
}

#[test]
fn tasks_start_from_trained_ones() {
    let model = causal("multitask-llama");
    let path = folder("multitask-llama").join("adapter_model.safetensors");
    let file = Safetensors::open(&path).unwrap();
    let cols = file.read_f32("prefix_task_cols").unwrap();
    let shared = file.read_f32("prompt_embeddings").unwrap();
    let start = |init, tasks| {
        let config = MultitaskPromptTuningConfig::new(4, tasks).with_ranks(2).with_source(init, &path);
        let out = tempfile::tempdir().unwrap();
        let config = config.with_source_task(2);
        MultitaskPromptTuning::new(model.as_ref(), config, 0).unwrap().save(out.path()).unwrap();
        Safetensors::open(out.path().join("adapter_model.safetensors")).unwrap()
    };
    let exact = start(MultitaskPromptTuningInit::ExactSourceTask, 1);
    assert_eq!(exact.read_f32("prefix_task_cols").unwrap(), cols[16..]);
    let average =
        start(MultitaskPromptTuningInit::AverageSourceTasks, 1).read_f32("prefix_task_cols").unwrap();
    let expected: Vec<f32> = (0..8).map(|i| (cols[i] + cols[i + 8] + cols[i + 16]) / 3.0).collect();
    assert!(largest_difference(&average, &expected) < 1e-6);
    let only = start(MultitaskPromptTuningInit::OnlySourceShared, 2);
    assert_eq!(only.read_f32("prompt_embeddings").unwrap(), shared);
    assert_eq!(only.info("prefix_task_cols").unwrap().shape, [2, 4, 2]);

    let config = MultitaskPromptTuningConfig::new(4, 1)
        .with_ranks(2)
        .with_source(MultitaskPromptTuningInit::ExactSourceTask, &path)
        .with_source_task(3);
    let error = MultitaskPromptTuning::new(model.as_ref(), config, 0).unwrap_err().to_string();
    assert!(error.contains("prompt_tuning_init_task"), "{error}");
    let method = MultitaskPromptTuning::load(model.as_ref(), folder("multitask-llama")).unwrap();
    assert!(matches!(method.with_task(3), Err(Error::Setting { .. })));
}

#[test]
fn a_network_that_does_not_belong_to_the_folder_is_refused() {
    let model = causal("p-tuning-llama-mlp");
    let spoilt = copy("p-tuning-llama-mlp", &ALL_FILES);
    let path = spoilt.path().join("adapter_model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    // The last value of the prompt.
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&9.0f32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = PTuning::load(model.as_ref(), spoilt.path()).unwrap_err().to_string();
    assert!(error.contains("remove this file"), "{error}");

    // One that is left of another adapter goes when a prompt without one is saved over it.
    let plain = copy("p-tuning-llama-mlp", &PEFT_FILES);
    let method = PTuning::load(model.as_ref(), plain.path()).unwrap();
    assert!(!method.learned().has_network());
    method.save(spoilt.path()).unwrap();
    assert!(!spoilt.path().join(ENCODER).exists());
}

#[test]
fn a_prompt_without_its_network_trains_by_itself() {
    let model = base("gqa-tied");
    for name in ["p-tuning-llama-lstm", "prefix-llama-projection"] {
        let plain = copy(name, &PEFT_FILES);
        let data = common::examples(6, 101);
        let config = TrainConfig { epochs: 4, learning_rate: 5e-2, ..TrainConfig::default() };
        let (before, after) = if name.starts_with("prefix") {
            let method = PrefixTuning::load(model.as_ref(), plain.path()).unwrap();
            let mut trainer = Trainer::new(model.clone(), method, config).unwrap();
            let before = trainer.evaluate(&data).unwrap().loss;
            trainer.fit(&data, &[], &mut Silent).unwrap();
            (before, trainer.evaluate(&data).unwrap().loss)
        } else {
            let method = PTuning::load(model.as_ref(), plain.path()).unwrap();
            let mut trainer = Trainer::new(model.clone(), method, config).unwrap();
            let before = trainer.evaluate(&data).unwrap().loss;
            trainer.fit(&data, &[], &mut Silent).unwrap();
            (before, trainer.evaluate(&data).unwrap().loss)
        };
        assert!(after < before, "{name}: {before} to {after}");
    }
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let mut config = config(folder);
    change(&mut config);
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}

#[test]
fn fields_that_mean_something_else_are_refused_and_unknown_ones_kept() {
    let model = causal("prompt-llama");
    for (name, field, value) in [
        ("prompt-llama", "num_transformer_submodules", json!(2)),
        ("prompt-llama", "token_dim", json!(64)),
        ("prompt-llama", "num_layers", json!(2)),
        ("prompt-llama", "num_virtual_tokens", json!(0)),
        ("prompt-llama", "num_virtual_tokens", json!(u64::MAX)),
        ("prompt-llama", "prompt_tuning_init", json!("FROM_THE_FUTURE")),
        ("prefix-llama", "num_attention_heads", json!(3)),
        ("prefix-llama", "init_weights", json!("xavier")),
        ("p-tuning-llama-mlp", "encoder_reparameterization_type", json!("GRU")),
        ("p-tuning-llama-lstm", "encoder_num_layers", json!(1_000_000)),
        ("p-tuning-llama-lstm", "encoder_dropout", json!(1.0)),
        ("multitask-llama", "num_tasks", json!(0)),
    ] {
        let spoilt = copy(name, &PEFT_FILES);
        edit(spoilt.path(), |config| config[field] = value.clone());
        let error = load_adapter(model.as_ref(), spoilt.path()).unwrap_err().to_string();
        // Values that serde refuses are named themselves.
        let named = error.contains(field) || value.as_str().is_some_and(|value| error.contains(value));
        assert!(named, "{field}: {error}");
    }
    let kept = copy("prefix-llama", &PEFT_FILES);
    edit(kept.path(), |config| config["from_the_future"] = json!({"depth": [1, 2]}));
    let out = tempfile::tempdir().unwrap();
    PrefixTuning::load(model.as_ref(), kept.path()).unwrap().save(out.path()).unwrap();
    assert_eq!(config(out.path())["from_the_future"], json!({"depth": [1, 2]}));
}

#[test]
fn a_config_that_claims_more_than_the_file_has_takes_no_memory() {
    let model = causal("prefix-llama");
    for (name, field) in [("prefix-llama", "num_virtual_tokens"), ("multitask-llama", "num_tasks")] {
        let spoilt = copy(name, &PEFT_FILES);
        edit(spoilt.path(), |config| config[field] = json!(65536));
        let error = load_adapter(model.as_ref(), spoilt.path()).unwrap_err();
        assert!(matches!(&error, Error::Adapter { mismatched, .. } if !mismatched.is_empty()), "{error}");
    }
    let spoilt = copy("p-tuning-llama-lstm", &ALL_FILES);
    edit(spoilt.path(), |config| config["encoder_hidden_size"] = json!(65536));
    let error = load_adapter(model.as_ref(), spoilt.path()).unwrap_err();
    assert!(matches!(&error, Error::Adapter { .. }), "{error}");
}

#[test]
fn the_smallest_config_loads() {
    let model = causal("prefix-llama");
    let plain = copy("prefix-llama", &PEFT_FILES);
    let config = r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5}"#;
    std::fs::write(plain.path().join("adapter_config.json"), config).unwrap();
    let method = PrefixTuning::load(model.as_ref(), plain.path()).unwrap();
    assert_eq!((method.prefix_len(), method.prompt_len()), (5, 0));
    assert_eq!(method.config().scope().token_dim, Some(16));
}

#[test]
fn prompts_do_not_merge() {
    let model = causal("prompt-llama");
    let method = PromptTuning::load(model.as_ref(), folder("prompt-llama")).unwrap();
    let error = merge(model.as_ref(), &method).unwrap_err();
    assert!(matches!(&error, Error::NotMergeable { kind, .. } if kind == "PROMPT_TUNING"), "{error}");
}

#[test]
fn a_classifier_trains_with_a_prompt_and_is_read_again() {
    let name = "prompt-bert-sequence";
    let checkpoint = Checkpoint::open(base_folder(name)).unwrap();
    let model = Arc::new(load_sequence_classifier(&checkpoint, &device()).unwrap());
    let data: Vec<Labelled> = (0..12u32)
        .map(|i| {
            let ids: Vec<u32> = (0..4 + i % 4).map(|j| 3 + (i % 3) * 15 + j).collect();
            Labelled { type_ids: vec![0; ids.len()], ids, label: Label::Class((i % 3) as usize) }
        })
        .collect();
    let scope = || PromptScope::new(4).with_task_type("SEQ_CLS");
    let config = TrainConfig { epochs: 8, learning_rate: 2e-2, ..TrainConfig::default() };
    let train = |before: f64, after: f64, what: &str| {
        assert!(after < 0.8 * before, "{what}: the loss went from {before} to {after}");
    };
    let method = PTuning::new(model.as_ref(), PTuningConfig::new(scope()), 0).unwrap();
    let mut trainer = Trainer::new(model.clone(), method, config).unwrap();
    let before = trainer.evaluate(&data).unwrap().loss;
    trainer.fit(&data, &[], &mut Silent).unwrap();
    train(before, trainer.evaluate(&data).unwrap().loss, "P-tuning");
    let out = tempfile::tempdir().unwrap();
    let trained = trainer.into_adapter();
    trained.save(out.path()).unwrap();
    let saved = Safetensors::open(out.path().join("adapter_model.safetensors")).unwrap();
    let keys = ["base_model.classifier.bias", "base_model.classifier.weight", "prompt_embeddings"];
    assert_eq!(saved.names(), keys);
    let loaded = PTuning::load(model.as_ref(), out.path()).unwrap();
    let input = || (ids(&[5, 20, 40, 7, 9], [1, 5]), [5]);
    let scores = |method: &PTuning| {
        let (input, lengths) = input();
        values(model.forward(input, &lengths, None, method))
    };
    assert_eq!(scores(&loaded), scores(&trained));

    let method = PrefixTuning::new(model.as_ref(), PrefixTuningConfig::new(scope()), 0).unwrap();
    let mut trainer = Trainer::new(model.clone(), method, config).unwrap();
    let before = trainer.evaluate(&data).unwrap().loss;
    trainer.fit(&data, &[], &mut Silent).unwrap();
    train(before, trainer.evaluate(&data).unwrap().loss, "prefix tuning");

    // The prefix and this are one position too many.
    let long = [Labelled { ids: vec![5; 29], type_ids: vec![0; 29], label: Label::Class(0) }];
    let error = trainer.evaluate(&long).unwrap_err().to_string();
    assert!(error.contains("at most 28 tokens"), "{error}");
}

#[test]
fn learned_positions_count_as_context() {
    let model = base("gqa-tied");
    let prompt = PromptTuning::new(model.as_ref(), PromptTuningConfig::new(5), 0).unwrap();
    let prefix = PrefixTuning::new(model.as_ref(), PrefixTuningConfig::new(5), 0).unwrap();
    let adapters: [&dyn Adapter; 2] = [&prompt, &prefix];
    for adapter in adapters {
        let mut next = CachedModel::new(model.as_ref(), adapter);
        let limit = NextToken::max_positions(&next);
        let tokens = vec![3; limit - 4];
        let error = next.feed(&tokens, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(&format!("room for {}", limit - 5)), "{error}");
        next.feed(&tokens[1..], &mut Vec::new()).unwrap();
        assert_eq!(next.row_position(0), limit);
    }
}

/// An engine goes on from what it remembers of a conversation; with a prompt or prefix in front, it answers as one that remembers
/// nothing.
#[test]
fn an_engine_reuses_conversations_behind_learned_positions() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures/llama/gguf/model.gguf");
    let pretrained = || Pretrained::load(&path, &device()).unwrap();
    let model = pretrained().model;
    let prompt = PromptTuning::new(model.as_ref(), PromptTuningConfig::new(3), 0).unwrap();
    let prefix = PrefixTuning::new(model.as_ref(), PrefixTuningConfig::new(3), 0).unwrap();
    let config = |name: &str| {
        EngineConfig::new(name)
            .with_adapter("prompt", Arc::new(prompt.clone()))
            .with_adapter("prefix", Arc::new(prefix.clone()))
    };
    let engine = Engine::start(pretrained(), config("remembers")).unwrap();
    let fresh = Engine::start(pretrained(), config("forgets").with_remembered(0)).unwrap();
    // Drawn by chance, so that an answer shows all of the distribution.
    let request = |adapter: Option<&str>| ChatRequest {
        max_tokens: Some(8),
        temperature: Some(1.0),
        seed: Some(3),
        adapter: adapter.map(str::to_owned),
        ..ChatRequest::new(vec![Message::user("What is a harbor?")])
    };
    for adapter in ["prompt", "prefix"] {
        let mut talk = request(Some(adapter));
        let ask = |talk: &ChatRequest| {
            let answer = engine.chat_blocking(talk.clone()).unwrap();
            assert_eq!(answer.message, fresh.chat_blocking(talk.clone()).unwrap().message, "{adapter}");
            answer
        };
        let first = ask(&talk);
        talk.messages.extend([first.message, Message::user("Say more.")]);
        let second = ask(&talk);
        assert!(second.usage.cached_tokens >= first.usage.prompt_tokens, "{adapter}: {:?}", second.usage);
        // Another branch, cut out of what is remembered.
        talk.messages[2] = Message::user("Stop.");
        assert!(ask(&talk).usage.cached_tokens >= first.usage.prompt_tokens, "{adapter}");
    }
    // Without them the model says something else.
    let answers = [None, Some("prompt"), Some("prefix")]
        .map(|adapter| fresh.chat_blocking(request(adapter)).unwrap().message);
    assert_ne!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
}
