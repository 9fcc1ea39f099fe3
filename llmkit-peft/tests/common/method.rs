//! What every method must keep, whatever it computes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::module::{ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use llmkit_core::NoAdapter;
use llmkit_core::checkpoint::{Safetensors, TensorSource};
use llmkit_core::models::CausalLm;
use llmkit_peft::data::{Batch, Example};
use llmkit_peft::train::{
    Observer, Recompute, Silent, StepOptions, StepReport, TrainConfig, Trainer, loss_and_gradients,
};
use llmkit_peft::{PeftModule, merge};

use super::{examples, largest_difference, logits, some_ids};

/// What a method says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// A fresh adapter leaves the model as it is.
    pub identity: bool,
    /// It can be worked into the model's weights.
    pub merges: bool,
    /// A learning rate with which a few steps on a tiny model show.
    pub learning_rate: f64,
}

impl Default for Promises {
    fn default() -> Self {
        Self { identity: true, merges: true, learning_rate: 1e-2 }
    }
}

/// Checks a method on a causal model: `fresh` makes it, `load` reads its folder.
///
/// Identity at the start, gradients for every parameter and for nothing else, in both ways of computing them; training lowers the loss and
/// leaves the base alone; saved and resumed is uninterrupted, bit for bit; merged is unmerged; saved and loaded is the same.
pub fn check_method<A: PeftModule>(
    model: &Arc<dyn CausalLm>,
    promises: Promises,
    fresh: impl Fn() -> A,
    load: impl Fn(&Path) -> A,
) {
    let vocab = model.vocab_size() as u32;
    let ids = || some_ids(vocab as usize);
    let base = logits(model.as_ref(), ids(), &NoAdapter);
    if promises.identity {
        let difference = largest_difference(&logits(model.as_ref(), ids(), &fresh()), &base);
        assert!(difference < 2e-5, "a fresh adapter changes the logits by {difference}");
    }
    check_gradients(model.as_ref(), fresh());

    let data = examples(13, vocab);
    let config = TrainConfig {
        epochs: 4,
        batch_size: 2,
        accumulate: 2,
        learning_rate: promises.learning_rate,
        ..TrainConfig::default()
    };
    let mut whole = Trainer::new(model.clone(), fresh(), config).unwrap();
    let before = whole.evaluate(&data).unwrap().loss;
    whole.fit(&data, &[], &mut Silent).unwrap();
    let after = whole.evaluate(&data).unwrap().loss;
    assert!(after < 0.98 * before, "training took the loss from {before} to {after}");
    assert_eq!(logits(model.as_ref(), ids(), &NoAdapter), base, "training changed the base model");
    let trained = whole.into_adapter();

    let folder = tempfile::tempdir().unwrap();
    let mut first = Trainer::new(model.clone(), fresh(), config).unwrap().with_checkpoints(folder.path());
    let report = first.fit(&data, &[], &mut StopAfter(6)).unwrap();
    let checkpoint = report.checkpoint.expect("a stopped run writes a checkpoint");
    let mut second =
        Trainer::new(model.clone(), load(&checkpoint), config).unwrap().resume(&checkpoint).unwrap();
    second.fit(&data, &[], &mut Silent).unwrap();
    assert_eq!(saved(&second.into_adapter()), saved(&trained), "a resumed run is another run");

    let adapted = logits(model.as_ref(), ids(), &trained);
    let folder = tempfile::tempdir().unwrap();
    trained.save(folder.path()).unwrap();
    let loaded = load(folder.path());
    let difference = largest_difference(&logits(model.as_ref(), ids(), &loaded), &adapted);
    assert!(difference < 2e-5, "saved and loaded differ by {difference}");

    match merge(model.as_ref(), &trained) {
        Ok(merged) => {
            assert!(promises.merges, "the method merged against its word");
            let difference = largest_difference(&logits(merged.as_ref(), ids(), &NoAdapter), &adapted);
            assert!(difference < 1e-4, "merged and unmerged differ by {difference}");
        }
        Err(error) => assert!(!promises.merges, "{error}"),
    }
}

fn check_gradients<A: PeftModule>(model: &dyn CausalLm, fresh: A) {
    let adapter = fresh.train();
    let names: BTreeMap<ParamId, String> = adapter.parameter_names().into_iter().collect();
    assert_eq!(names.keys().copied().collect::<BTreeSet<_>>(), parameters(&adapter), "unnamed parameters");
    let data = examples(3, model.vocab_size() as u32);
    let rows: Vec<&Example> = data.iter().collect();
    let batch = Batch::new(&rows, &model.device());
    let of = |recompute| {
        let options = StepOptions { recompute, loss_chunk: 7 };
        loss_and_gradients(model, &adapter, &batch, options).gradients
    };
    let (kept, recomputed) = (of(Recompute::Off), of(Recompute::Blocks));
    let mut largest = 0.0f32;
    for (id, name) in &names {
        let read = |gradients: &llmkit_peft::train::Gradients| {
            let gradient = gradients.get(*id).unwrap_or_else(|| panic!("{name} has no gradient"));
            super::values(gradient.clone())
        };
        let (kept, recomputed) = (read(&kept), read(&recomputed));
        let size = kept.iter().fold(0.0f32, |size, g| size.max(g.abs()));
        let difference = largest_difference(&kept, &recomputed);
        assert!(
            difference <= 1e-3 * size.max(1e-3),
            "{name}: recomputed gradients differ by {difference} of {size}"
        );
        largest = largest.max(size);
    }
    assert!(largest > 0.0, "every gradient is zero");
    assert!(!model.forward(some_ids(model.vocab_size()), &NoAdapter).is_tracked(), "the base is tracked");
}

/// The ids of all float parameters.
fn parameters<A: PeftModule>(adapter: &A) -> BTreeSet<ParamId> {
    struct Ids(BTreeSet<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.insert(param.id);
        }
    }
    let mut ids = Ids(BTreeSet::new());
    adapter.visit(&mut ids);
    ids.0
}

/// Every tensor in the files that the adapter writes.
fn saved<A: PeftModule>(adapter: &A) -> BTreeMap<String, Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    adapter.save(folder.path()).unwrap();
    let mut tensors = BTreeMap::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let file = Safetensors::open(&path).unwrap();
            tensors
                .extend(file.names().into_iter().map(|name| (name.clone(), file.read_f32(&name).unwrap())));
        }
    }
    assert!(!tensors.is_empty());
    tensors
}

struct StopAfter(usize);

impl Observer for StopAfter {
    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        if report.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
