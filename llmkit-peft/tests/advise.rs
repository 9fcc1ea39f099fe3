//! Advice and rank sweeps.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::Path;

use burn::module::Module;
use common::{all_linear, base, examples};
use llmkit_core::checkpoint::Checkpoint;
use llmkit_peft::advise::{Choice, LayerShapes, Limits, advise};
use llmkit_peft::train::{Recompute, Silent, TrainConfig, rank_sweep};
use llmkit_peft::{Error, FullFineTune, Lora, LoraConfig, Targets};

fn checkpoint(name: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures/llama").join(name);
    Checkpoint::open(folder).unwrap()
}

#[test]
fn what_trains_is_counted_from_the_header() {
    for name in ["gqa-tied", "untied-llama3"] {
        let (model, shapes) = (base(name), LayerShapes::read(&checkpoint(name)).unwrap());
        let lora = Lora::new(model.as_ref(), LoraConfig::new(Targets::AllLinear).with_rank(8), 0).unwrap();
        assert_eq!(Choice::Lora { rank: 8 }.cost(&shapes).parameters, lora.num_params() as u64, "{name}");
        let full = FullFineTune::new(model.as_ref());
        assert_eq!(Choice::Full.cost(&shapes).parameters, full.num_params() as u64, "{name}");
    }
}

#[test]
fn more_room_gives_a_better_method() {
    let checkpoint = checkpoint("untied-llama3");
    let config = TrainConfig::default();
    let at = |memory| advise(&checkpoint, &config, 64, Limits::new(memory)).unwrap();
    let roomy = at(1 << 40);
    let best = roomy.choice.as_ref().unwrap();
    assert_eq!((best.choice, best.recompute), (Choice::RsLora { rank: 64 }, Recompute::Off));
    assert!(roomy.candidates.windows(2).all(|two| two[0].choice.published() >= two[1].choice.published()));

    // As the room shrinks, the choice never gets better, and always fits.
    let mut last = best.choice.published();
    let mut memory = best.memory.peak();
    let mut recomputed = false;
    while let Some(choice) = at(memory).choice {
        assert!(choice.memory.peak() <= memory && choice.choice.published() <= last);
        last = choice.choice.published();
        recomputed |= choice.recompute == Recompute::Blocks;
        memory = choice.memory.peak() - 1;
    }
    assert!(recomputed);
    let none = at(1000);
    assert!(none.choice.is_none() && none.reasons.last().unwrap().contains("No method fits"), "{none}");
}

#[test]
fn the_file_s_size_is_a_limit() {
    let checkpoint = checkpoint("untied-llama3");
    let shapes = LayerShapes::read(&checkpoint).unwrap();
    let limits = Limits::new(1 << 40).with_file(4 * Choice::Lora { rank: 2 }.cost(&shapes).saved);
    let advice = advise(&checkpoint, &TrainConfig::default(), 64, limits).unwrap();
    let choice = advice.choice.clone().unwrap();
    assert_eq!(choice.choice, Choice::Lora { rank: 2 });
    assert!(
        advice.reasons.iter().any(|reason| reason.contains("rsLoRA, rank 64") && reason.contains("file"))
    );
    assert!(advice.reasons.iter().any(|reason| reason.contains("nothing is published")), "{advice}");
    assert!(advice.to_string().contains("full fine-tuning"));
}

#[test]
fn impossible_settings_are_refused() {
    let config = TrainConfig { batch_size: 0, ..TrainConfig::default() };
    let advice = advise(&checkpoint("gqa-tied"), &config, 64, Limits::new(1 << 40));
    assert!(matches!(advice, Err(Error::Setting { .. })));
    // Sizes that overflow are too large, not small.
    let advice =
        advise(&checkpoint("gqa-tied"), &TrainConfig::default(), usize::MAX, Limits::new(1 << 60)).unwrap();
    assert!(advice.choice.is_none());
}

#[test]
fn a_sweep_runs_every_rank_alike() {
    let model = base("gqa-tied");
    let data = examples(12, 90);
    let config = TrainConfig { epochs: 2, learning_rate: 1e-2, ..TrainConfig::default() };
    let fresh =
        |rank: usize| Lora::new(model.as_ref(), all_linear().with_rank(rank).with_alpha(rank as f64), 1);
    let sweep = rank_sweep(&model, &[1, 4, 4], fresh, config, (&data[..8], &data[8..]), &mut Silent).unwrap();
    let [one, four, again] = sweep.rows.as_slice() else { panic!("{sweep}") };
    assert_eq!(four.parameters, 4 * one.parameters);
    assert_eq!(
        (four.heldout_loss, four.train_loss),
        (again.heldout_loss, again.train_loss),
        "same seed, same run"
    );
    assert!(sweep.rows.iter().all(|row| row.heldout_loss >= sweep.best().heldout_loss));
    assert_eq!(sweep.smallest_within(10.0).rank, 1);
    assert_eq!(sweep.smallest_within(0.0).heldout_loss, sweep.best().heldout_loss);
    assert_eq!(sweep.to_string().lines().count(), 5);
    let none = rank_sweep(&model, &[1], fresh, config, (&data[..8], &[]), &mut Silent);
    assert!(matches!(none, Err(Error::NoData { .. })));
}
