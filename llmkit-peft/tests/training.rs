//! Training against torch, and the equivalences that must hold: recomputed and ordinary gradients, several small batches and one large one,
//! a resumed run and an uninterrupted one.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Int, Tensor};
use common::{
    Expected, all_linear, base, examples, fixtures, largest_difference, logits, random_lora, some_ids,
    tensors,
};
use llmkit_core::models::CausalLm;
use llmkit_core::nn::{Embedding, LayerMut, Linear};
use llmkit_core::{Adapter, NoAdapter};
use llmkit_peft::data::{Batch, Example, batch_order};
use llmkit_peft::train::{
    AdamW, AdamWConfig, Decay, Gradients, Observer, Recompute, Schedule, Silent, StepOptions, StepReport,
    TrainConfig, Trainer, evaluate, loss_and_gradients,
};
use llmkit_peft::{Bias, Error, Lora, LoraConfig, Method, PeftModule, Scope, Targets, trainable_parameters};

fn by_name(adapter: &impl PeftModule, gradients: &Gradients) -> BTreeMap<String, Vec<f32>> {
    let read = |id| common::values(gradients.get(id).unwrap().clone());
    adapter.parameter_names().into_iter().map(|(id, name)| (name, read(id))).collect()
}

const MODES: [Recompute; 2] = [Recompute::Off, Recompute::Blocks];

// ---- against torch -------------------------------------------------------------------------------------------------

/// The fixture's padded rows as examples: `-100` marks the prompt in front and the padding behind.
fn torch_examples(expected: &Expected) -> Vec<Example> {
    let (ids, [rows, seq]) = expected.ints("input_ids");
    let (labels, _) = expected.ints("labels");
    let (mask, _) = expected.ints("attention_mask");
    (0..rows)
        .map(|row| {
            let range = row * seq..(row + 1) * seq;
            let len = mask[range.clone()].iter().sum::<i32>() as usize;
            let prompt_len = labels[range.clone()].iter().position(|label| *label != -100).unwrap();
            Example { ids: ids[range][..len].iter().map(|id| *id as u32).collect(), prompt_len }
        })
        .collect()
}

#[test]
fn five_steps_equal_torchs() {
    let folder = fixtures().join("train");
    let expected = Expected::open(folder.join("expected.safetensors"));
    let facts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let number = |name: &str, index: usize| facts[name][index].as_f64().unwrap();
    let model = base("gqa-tied");
    let examples = torch_examples(&expected);
    let batch = Batch::new(&examples.iter().collect::<Vec<_>>(), &common::device());
    assert_eq!(batch.trained_tokens() as u64, facts["trained_tokens"].as_u64().unwrap());

    for recompute in MODES {
        let mut lora = Lora::load(model.as_ref(), folder.join("adapter")).unwrap().train();
        let mut optimizer = AdamW::new(AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() });
        let schedule =
            Schedule { learning_rate: 1e-2, warmup_steps: 2, total_steps: 10, decay: Decay::Cosine };
        for step in 0..5 {
            // A chunk smaller than the batch, so that the loss takes several.
            let options = StepOptions { recompute, loss_chunk: 7 };
            let mut output = loss_and_gradients(model.as_ref(), &lora, &batch, options);
            let loss = output.loss_sum / output.targets as f64;
            assert!((loss - number("losses", step)).abs() < 1e-4, "step {step}: loss {loss}");
            output.gradients.scale(1.0 / output.targets as f64);
            if step == 0 {
                for (name, gradient) in by_name(&lora, &output.gradients) {
                    let torch = expected.floats(&format!("grad.{name}"));
                    let size = torch.iter().fold(0.0f32, |size, g| size.max(g.abs()));
                    let difference = largest_difference(&gradient, &torch);
                    assert!(
                        size > 1e-4 && difference < 1e-4 * size.max(1.0),
                        "{name}: {difference} of {size}"
                    );
                }
            }
            let norm = output.gradients.clip_global_norm(1.0);
            assert!((norm - number("grad_norms", step)).abs() < 1e-3, "step {step}: norm {norm}");
            let rate = schedule.at(step);
            assert!((rate - number("lrs", step)).abs() < 1e-12, "step {step}: learning rate {rate}");
            lora = optimizer.step(lora, &output.gradients, rate);
        }
        for (name, values) in tensors(&lora) {
            let difference = largest_difference(&values, &expected.floats(&format!("after.{name}")));
            assert!(difference < 1e-4, "{recompute:?}: {name} differs by {difference} after five steps");
        }
    }
}

// ---- equivalences --------------------------------------------------------------------------------------------------

fn gradients_of(
    model: &dyn CausalLm,
    lora: &Lora,
    examples: &[&Example],
    options: StepOptions,
) -> (f64, Gradients) {
    let output = loss_and_gradients(model, lora, &Batch::new(examples, &common::device()), options);
    (output.loss_sum, output.gradients)
}

fn assert_close(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>, tolerance: f32) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, a) in a {
        let size = a.iter().fold(0.0f32, |size, g| size.max(g.abs()));
        assert!(size > 0.0, "{name} is all zero");
        let difference = largest_difference(a, &b[name]);
        assert!(difference <= tolerance * size, "{name}: {difference} of {size}");
    }
}

#[test]
fn recomputed_gradients_equal_ordinary_ones() {
    let model = base("head-dim-bias");
    let config =
        LoraConfig::new(Scope::new(Targets::AllLinear).with_modules_to_save(["embed_tokens", "norm"]))
            .with_rank(4)
            .with_alpha(6.0)
            .with_dropout(0.3)
            .with_bias(Bias::All);
    let lora = random_lora(model.as_ref(), config).train().with_dropout_seed(Some(11));
    let examples = examples(5, 90);
    let rows: Vec<_> = examples.iter().collect();
    let of = |recompute, loss_chunk| {
        let (loss, gradients) =
            gradients_of(model.as_ref(), &lora, &rows, StepOptions { recompute, loss_chunk });
        (loss, by_name(&lora, &gradients))
    };
    let (loss, ordinary) = of(Recompute::Off, 256);
    let (again, recomputed) = of(Recompute::Blocks, 5);
    assert!((loss - again).abs() < 1e-4 * loss, "{loss} {again}");
    assert_close(&ordinary, &recomputed, 1e-4);
}

#[test]
fn recomputed_gradients_equal_ordinary_ones_in_other_architectures() {
    // Windows, several rotations, norms by 1 + weight, fused projections, experts.
    for name in ["gemma3", "phi4-longrope", "qwen2-window", "qwen3-moe", "mixtral"] {
        let model = base(&format!("../decoders/{name}"));
        let lora = random_lora(model.as_ref(), all_linear()).train();
        let examples = examples(5, 60);
        let rows: Vec<_> = examples.iter().collect();
        let of = |recompute, loss_chunk| {
            let (loss, gradients) =
                gradients_of(model.as_ref(), &lora, &rows, StepOptions { recompute, loss_chunk });
            (loss, by_name(&lora, &gradients))
        };
        let (loss, ordinary) = of(Recompute::Off, 256);
        let (again, recomputed) = of(Recompute::Blocks, 5);
        assert!((loss - again).abs() < 1e-4 * loss, "{name}: {loss} {again}");
        assert_close(&ordinary, &recomputed, 1e-4);
    }
}

#[test]
fn dropout_follows_its_seed() {
    let model = base("gqa-tied");
    let lora = random_lora(model.as_ref(), all_linear().with_dropout(0.5));
    let run = |seed| logits(model.as_ref(), some_ids(90), &lora.clone().with_dropout_seed(seed));
    assert_eq!(run(Some(1)), run(Some(1)));
    assert!(largest_difference(&run(Some(1)), &run(Some(2))) > 1e-3);
    assert_eq!(run(None), logits(model.as_ref(), some_ids(90), &lora));
}

#[test]
fn accumulated_batches_equal_one_large_one() {
    let model = base("gqa-tied");
    let lora = random_lora(model.as_ref(), all_linear()).train();
    // Of very different length, so that weighting by batch instead of by token would show.
    let mut examples = examples(4, 90);
    examples[0].ids.truncate(4);
    let rows: Vec<_> = examples.iter().collect();
    for recompute in MODES {
        let options = StepOptions { recompute, ..StepOptions::default() };
        let (loss, large) = gradients_of(model.as_ref(), &lora, &rows, options);
        let mut sum = 0.0;
        let mut small = Gradients::new();
        for row in &rows {
            let (loss, gradients) = gradients_of(model.as_ref(), &lora, &[row], options);
            sum += loss;
            small.merge(gradients);
        }
        assert!((loss - sum).abs() < 1e-4 * loss);
        assert_close(&by_name(&lora, &large), &by_name(&lora, &small), 1e-4);
    }
}

#[test]
fn a_fresh_lora_is_the_identity_and_only_it_gets_gradients() {
    for name in ["gqa-tied", "untied-llama3"] {
        let model = base(name);
        let lora = Lora::new(model.as_ref(), all_linear(), 5).unwrap();
        let ids = some_ids(90);
        assert_eq!(
            logits(model.as_ref(), ids.clone(), &lora),
            logits(model.as_ref(), ids.clone(), &NoAdapter),
            "{name}"
        );
        // The model is no part of any graph: without an adapter nothing is tracked, even on tracked input.
        assert!(!model.forward(ids.clone(), &NoAdapter).is_tracked());
        let lora = lora.train();
        assert!(model.forward(ids, &lora).is_tracked());
        let examples = examples(2, 90);
        let rows: Vec<_> = examples.iter().collect();
        let (_, gradients) = gradients_of(model.as_ref(), &lora, &rows, StepOptions::default());
        // B starts at zero, so A's gradient is zero, but it is there.
        let gradients = by_name(&lora, &gradients);
        assert_eq!(gradients.len(), tensors(&lora).len());
        assert!(
            gradients
                .iter()
                .filter(|(name, _)| name.contains("lora_B"))
                .all(|(_, g)| g.iter().any(|g| *g != 0.0))
        );
    }
}

#[test]
fn evaluation_is_the_mean_over_all_learned_tokens() {
    let model = base("gqa-tied");
    let lora = random_lora(model.as_ref(), all_linear());
    let examples = examples(7, 90);
    let (mut sum, mut tokens) = (0.0, 0);
    for example in &examples {
        let ids: Vec<i32> = example.ids.iter().map(|id| *id as i32).collect();
        let logits = model.forward(common::ids(&ids, [1, ids.len()]), &lora);
        let [_, seq, vocab] = logits.dims();
        let logits = logits.reshape([seq, vocab]);
        let log_probabilities = common::values(burn::tensor::activation::log_softmax(logits, 1));
        for position in example.prompt_len..seq {
            sum -= f64::from(log_probabilities[(position - 1) * vocab + example.ids[position] as usize]);
            tokens += 1;
        }
    }
    let loss = evaluate(model.as_ref(), &lora, &examples, 3, 4).unwrap().loss;
    assert!((loss - sum / tokens as f64).abs() < 1e-5, "{loss}");
}

// ---- runs ----------------------------------------------------------------------------------------------------------

fn run_config() -> TrainConfig {
    TrainConfig {
        epochs: 3,
        batch_size: 2,
        accumulate: 2,
        learning_rate: 5e-3,
        warmup_ratio: 0.1,
        checkpoint_every: 2,
        seed: 9,
        ..TrainConfig::default()
    }
}

/// Notes the steps, and stops after some.
#[derive(Default)]
struct Notes {
    losses: Vec<f64>,
    stop_after: Option<usize>,
    checkpoints: Vec<PathBuf>,
}

impl Observer for Notes {
    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.losses.push(report.loss);
        if self.stop_after == Some(report.step) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn saved(&mut self, folder: &Path) {
        self.checkpoints.push(folder.to_path_buf());
    }
}

fn dropped_out(model: &dyn CausalLm) -> Lora {
    Lora::new(model, all_linear().with_dropout(0.1), 5).unwrap()
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let model = base("gqa-tied");
    let examples = examples(13, 90);
    let folder = tempfile::tempdir().unwrap();
    for recompute in MODES {
        let config = TrainConfig { recompute, ..run_config() };
        let mut whole = Trainer::new(model.clone(), dropped_out(model.as_ref()), config).unwrap();
        let mut notes = Notes::default();
        let report = whole.fit(&examples, &[], &mut notes).unwrap();
        // Thirteen examples in batches of two, two batches a step, three epochs.
        assert_eq!((report.steps, report.interrupted), (12, false));
        assert!(notes.losses[11] < notes.losses[0], "{:?}", notes.losses);

        // Stopped at the end of an epoch, and in the middle of one.
        for stop_after in [4, 7] {
            let mut first = Trainer::new(model.clone(), dropped_out(model.as_ref()), config)
                .unwrap()
                .with_checkpoints(folder.path());
            let mut before = Notes { stop_after: Some(stop_after), ..Notes::default() };
            let report = first.fit(&examples, &[], &mut before).unwrap();
            assert!(report.interrupted && report.steps == stop_after);
            let checkpoint = report.checkpoint.unwrap();
            assert_eq!(before.checkpoints.last(), Some(&checkpoint));
            drop(first);

            let lora = Lora::load(model.as_ref(), &checkpoint).unwrap();
            let mut second = Trainer::new(model.clone(), lora, config).unwrap().resume(&checkpoint).unwrap();
            let mut after = Notes::default();
            let report = second.fit(&examples, &[], &mut after).unwrap();
            assert_eq!((report.steps, report.interrupted), (12, false));
            assert_eq!([before.losses, after.losses].concat(), notes.losses);
            assert_eq!(tensors(&second.into_adapter()), tensors(&whole.adapter()));
        }
    }
}

#[test]
fn only_the_latest_checkpoints_stay() {
    let model = base("gqa-tied");
    let folder = tempfile::tempdir().unwrap();
    // A longer run's, in the same folder: it must neither be removed nor cost this run its own.
    std::fs::create_dir(folder.path().join("checkpoint-99")).unwrap();
    let mut trainer = Trainer::new(model.clone(), dropped_out(model.as_ref()), run_config())
        .unwrap()
        .with_checkpoints(folder.path());
    let mut notes = Notes::default();
    trainer.fit(&examples(13, 90), &[], &mut notes).unwrap();
    assert_eq!(notes.checkpoints.len(), 6);
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["checkpoint-10", "checkpoint-12", "checkpoint-99"]);
}

#[test]
fn another_run_s_checkpoint_is_refused() {
    let model = base("gqa-tied");
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(model.clone(), dropped_out(model.as_ref()), run_config())
        .unwrap()
        .with_checkpoints(folder.path());
    trainer.fit(&examples(13, 90), &[], &mut Silent).unwrap();
    let checkpoint = folder.path().join("checkpoint-12");

    let resume =
        |config, lora| Trainer::new(model.clone(), lora, config).unwrap().resume(&checkpoint).map(|_| ());
    let other = TrainConfig { learning_rate: 1e-4, ..run_config() };
    let error = resume(other, dropped_out(model.as_ref())).unwrap_err().to_string();
    assert!(error.contains("learning_rate"), "{error}");
    let narrow = Lora::new(model.as_ref(), all_linear().with_rank(2), 5).unwrap();
    let error = resume(run_config(), narrow).unwrap_err();
    assert!(matches!(error, Error::Resume { .. }), "{error}");
    // Other data: the place in it would mean nothing.
    let config = TrainConfig { epochs: 4, ..run_config() };
    let error = resume(config, dropped_out(model.as_ref())).unwrap_err().to_string();
    assert!(error.contains("epochs"), "{error}");
    // The checkpoint's moments with another adapter's values.
    let error = resume(run_config(), dropped_out(model.as_ref())).unwrap_err().to_string();
    assert!(error.contains("load it from the same folder"), "{error}");
    let loaded = || Lora::load(model.as_ref(), &checkpoint).unwrap();
    let mut resumed =
        Trainer::new(model.clone(), loaded(), run_config()).unwrap().resume(&checkpoint).unwrap();
    let error = resumed.fit(&examples(12, 90), &[], &mut Silent).unwrap_err().to_string();
    assert!(error.contains("data"), "{error}");
    assert!(resume(TrainConfig { keep_checkpoints: 9, ..run_config() }, loaded()).is_ok());
}

#[test]
fn a_step_with_nothing_to_learn_moves_nothing_and_counts() {
    let model = base("gqa-tied");
    let folder = tempfile::tempdir().unwrap();
    // The answers of half of the rows were cut off; a step reads one row.
    let mut rows = examples(8, 90);
    rows.iter_mut().step_by(2).for_each(|row| row.prompt_len = row.ids.len());
    let config = TrainConfig { batch_size: 1, accumulate: 1, ..run_config() };
    let mut trainer = Trainer::new(model.clone(), dropped_out(model.as_ref()), config).unwrap();
    let mut seen = StepsSeen::default();
    let report = trainer.fit(&rows, &[], &mut seen).unwrap();
    assert_eq!((report.steps, seen.empty), (24, 12));
    assert!((report.mean_loss - seen.loss / 12.0).abs() < 1e-9);

    let lengths: Vec<_> = rows.iter().map(|row| row.ids.len()).collect();
    let starts_empty = |seed: &u64| rows[batch_order(&lengths, 1, *seed, 0)[0][0]].trained_tokens() == 0;
    let seed = (0..64).find(starts_empty).expect("half of the orders begin with an empty row");
    let config = TrainConfig { seed, ..config };
    // Before anything was learned: a parameter that nothing reads is still found, and the checkpoint is the fresh adapter, and goes on.
    let idle =
        WithIdle { lora: dropped_out(model.as_ref()), idle: Param::from_data([1.0], &common::device()) };
    let error = Trainer::new(model.clone(), idle, config).unwrap().fit(&rows, &[], &mut Silent).unwrap_err();
    assert!(matches!(error, Error::NoGradient { .. }), "an empty first step hid it: {error}");
    let mut first = Trainer::new(model.clone(), dropped_out(model.as_ref()), config)
        .unwrap()
        .with_checkpoints(folder.path());
    let mut stop = Notes { stop_after: Some(1), ..Notes::default() };
    let checkpoint = first.fit(&rows, &[], &mut stop).unwrap().checkpoint.unwrap();
    assert_eq!(tensors(&first.adapter()), tensors(&dropped_out(model.as_ref())));
    let loaded = Lora::load(model.as_ref(), &checkpoint).unwrap();
    Trainer::new(model.clone(), loaded, config).unwrap().resume(&checkpoint).unwrap();
}

#[derive(Default)]
struct StepsSeen {
    empty: usize,
    loss: f64,
}

impl Observer for StepsSeen {
    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.empty += usize::from(report.targets == 0);
        self.loss += report.loss;
        ControlFlow::Continue(())
    }
}

#[test]
fn a_stop_flag_ends_the_run_with_a_checkpoint() {
    let model = base("gqa-tied");
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(model.clone(), dropped_out(model.as_ref()), run_config())
        .unwrap()
        .with_checkpoints(folder.path());
    trainer.stop_flag().store(true, Ordering::Relaxed);
    let report = trainer.fit(&examples(13, 90), &[], &mut Silent).unwrap();
    assert!(report.interrupted);
    assert_eq!((report.steps, report.checkpoint), (1, Some(folder.path().join("checkpoint-1"))));
}

#[test]
fn a_diverging_run_stops_with_the_adapter_of_the_step_before() {
    let model = base("gqa-tied");
    let config = TrainConfig { learning_rate: 1e30, warmup_ratio: 0.0, ..run_config() };
    let mut trainer = Trainer::new(model.clone(), dropped_out(model.as_ref()), config).unwrap();
    let error = trainer.fit(&examples(13, 90), &[], &mut Silent).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    assert!(tensors(&trainer.into_adapter()).values().flatten().all(|value| value.is_finite()));
}

/// A LoRA beside a parameter that nothing reads.
#[derive(Module, Debug)]
struct WithIdle {
    lora: Lora,
    idle: Param<Tensor<1>>,
}

impl Adapter for WithIdle {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        self.lora.embed(base, ids)
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        self.lora.linear(base, input)
    }
}

impl Method for WithIdle {
    fn kind(&self) -> &str {
        "IDLE"
    }

    fn parameter_names(&self) -> Vec<(ParamId, String)> {
        let mut names = self.lora.parameter_names();
        names.push((self.idle.id, "idle".into()));
        names
    }

    fn save(&self, folder: &Path) -> llmkit_peft::Result<()> {
        self.lora.save(folder)
    }

    fn merge_layer(&self, layer: LayerMut<'_>) -> llmkit_peft::Result<bool> {
        self.lora.merge_layer(layer)
    }
}

impl PeftModule for WithIdle {
    fn with_dropout_seed(self, seed: Option<u64>) -> Self {
        Self { lora: self.lora.with_dropout_seed(seed), ..self }
    }
}

#[test]
fn preflight_names_the_parameters_without_a_gradient() {
    let model = base("gqa-tied");
    let idle = Param::from_data([1.0f32, 2.0], &common::device());
    let adapter = WithIdle { lora: dropped_out(model.as_ref()), idle };
    let examples = examples(4, 90);
    for recompute in MODES {
        let config = TrainConfig { recompute, ..run_config() };
        let mut trainer = Trainer::new(Arc::clone(&model), adapter.clone(), config).unwrap();
        let preflight = trainer.preflight(&examples.iter().collect::<Vec<_>>()).unwrap_err();
        let fit = trainer.fit(&examples, &[], &mut Silent).unwrap_err();
        for error in [preflight, fit] {
            assert!(matches!(&error, Error::NoGradient { names } if *names == ["idle"]), "{error}");
        }
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let model = base("gqa-tied");
    for (setting, config) in [
        ("batch_size", TrainConfig { batch_size: 0, ..run_config() }),
        ("learning_rate", TrainConfig { learning_rate: f64::NAN, ..run_config() }),
        ("warmup_ratio", TrainConfig { warmup_ratio: 2.0, ..run_config() }),
        ("max_steps", TrainConfig { max_steps: Some(0), ..run_config() }),
    ] {
        let error = Trainer::new(model.clone(), dropped_out(model.as_ref()), config).unwrap_err().to_string();
        assert!(error.contains(setting), "{error}");
    }
}

#[test]
fn trainable_parameters_are_counted() {
    let model = base("gqa-tied");
    let lora =
        Lora::new(model.as_ref(), LoraConfig::new(Targets::names(["q_proj"])).with_rank(2), 0).unwrap();
    // Three layers of A [2, 48] and B [48, 2].
    let line = trainable_parameters(model.as_ref(), &lora).to_string();
    assert!(line.starts_with("trainable params: 576 || all params: "), "{line}");
}
