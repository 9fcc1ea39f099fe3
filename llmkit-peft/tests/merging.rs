//! Merging and taking apart: verified merges, rounding, extraction, spectra.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use common::{all_linear, base, fixtures, largest_difference, logits, random_lora, some_ids};
use llmkit_core::NoAdapter;
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::checkpoint::gguf::GgufType;
use llmkit_core::models::{
    CausalLm, Editable, Pretrained, load_causal_lm, load_encoder, load_sequence_classifier,
};
use llmkit_core::nn::{Layer, LayerMut};
use llmkit_peft::{
    Bias, Error, ExtractConfig, ExtractRank, InitLora, Lora, LoraConfig, Method, Scope, Spectrum, Targets,
    extract, merge, rounding_report, save_merged_gguf, verify_merge,
};

fn samples() -> Vec<Vec<u32>> {
    vec![vec![5, 9, 30, 7, 7, 41], vec![3], (0..20).map(|i| (i * i * 7 + 2) % 60).collect()]
}

#[test]
fn a_merge_is_verified_on_samples() {
    let model = base("gqa-tied");
    let lora = random_lora(model.as_ref(), all_linear());
    let merged = merge(model.as_ref(), &lora).unwrap();
    let report = verify_merge(model.as_ref(), merged.as_ref(), &lora, &samples()).unwrap();
    assert!(report.largest.size() < 1e-4, "{report}");
    assert!(report.mean <= f64::from(report.largest.size()) && report.mean_effect > 1e-2, "{report}");
    assert_eq!((report.positions, report.same_best), (27, 27), "{report}");

    // It sees a merge that went wrong, and says where.
    let other = Lora::new(model.as_ref(), all_linear().with_init(InitLora::Random), 4).unwrap();
    let wrong = merge(model.as_ref(), &other).unwrap();
    let report = verify_merge(model.as_ref(), wrong.as_ref(), &lora, &samples()).unwrap();
    assert!(report.largest.size() > 0.1 && report.same_best < 27, "{report}");
    let at = report.largest;
    let ids: Vec<i32> = samples()[at.sample].iter().map(|id| *id as i32).collect();
    let row = common::ids(&ids, [1, ids.len()]);
    let there = logits(model.as_ref(), row, &lora)[at.position * 101 + at.output];
    assert_eq!(there, at.adapted);

    let none = verify_merge(model.as_ref(), merged.as_ref(), &lora, &[]).unwrap_err();
    assert!(matches!(none, Error::NoData { .. }));
}

#[test]
fn merges_of_encoders_and_classifiers_are_verified() {
    let open = |name: &str| {
        let folder = fixtures().join("../../../llmkit-core/tests/fixtures/encoders").join(name);
        Checkpoint::open(folder).unwrap()
    };
    let device = common::device();
    let config = || LoraConfig::new(Targets::AllLinear).with_rank(3).with_init(InitLora::Random);

    let encoder = load_encoder(&open("bert"), &device).unwrap();
    let lora = Lora::new(encoder.as_ref(), config(), 1).unwrap();
    let merged = merge(encoder.as_ref(), &lora).unwrap();
    let report = verify_merge(encoder.as_ref(), merged.as_ref(), &lora, &samples()).unwrap();
    assert!(report.largest.size() < 1e-4 && report.mean_effect > 1e-2, "{report}");

    let classifier = load_sequence_classifier(&open("bert-sequence"), &device).unwrap();
    let lora = Lora::new(&classifier, config(), 1).unwrap();
    let merged = merge(&classifier, &lora).unwrap();
    let report = verify_merge(&classifier, merged.as_ref(), &lora, &samples()).unwrap();
    assert!(report.largest.size() < 1e-4 && report.mean_effect > 1e-3, "{report}");
    assert_eq!(report.positions, 3);
}

/// Changes every parameter.
fn shift(lora: Lora) -> Lora {
    struct Shift;
    impl ModuleMapper for Shift {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value * 0.9 + 0.01)
        }
    }
    lora.map(&mut Shift)
}

#[test]
fn a_tied_head_and_embedding_part_where_one_of_them_trains() {
    let model = base("gqa-tied");
    for module in ["embed_tokens", "lm_head"] {
        let scope = Scope::new(Targets::names(["q_proj"])).with_modules_to_save([module]);
        let lora = shift(Lora::new(model.as_ref(), LoraConfig::new(scope), 1).unwrap());
        let merged = merge(model.as_ref(), &lora).unwrap();
        assert!(model.is_tied() && !merged.is_tied(), "{module}");
        assert_eq!(merged.config()["tie_word_embeddings"], false);
        let report = verify_merge(model.as_ref(), merged.as_ref(), &lora, &samples()).unwrap();
        assert!(report.largest.size() < 1e-4 && report.mean_effect > 1e-3, "{module}: {report}");
    }
    // An adapter of the head's own low rank, too.
    let head = LoraConfig::new(Targets::names(["lm_head"])).with_init(InitLora::Random);
    let lora = Lora::new(model.as_ref(), head, 1).unwrap();
    let merged = merge(model.as_ref(), &lora).unwrap();
    assert!(!merged.is_tied());
    let report = verify_merge(model.as_ref(), merged.as_ref(), &lora, &samples()).unwrap();
    assert!(report.largest.size() < 1e-4 && report.mean_effect > 1e-3, "{report}");
}

/// A model whose rows are whole blocks, with its tokenizer.
fn pretrained() -> Pretrained {
    let path = fixtures().join("../../../llmkit-core/tests/fixtures/llama/gguf/model.gguf");
    Pretrained::load(path, &common::device()).unwrap()
}

/// A copy whose weights are what a file of `weights` holds.
fn on_the_grid(model: &Arc<dyn CausalLm>, weights: GgufType) -> Arc<dyn CausalLm> {
    let (tied, head) = (model.is_tied(), model.head_path().map(str::to_owned));
    model.edited(&mut |layer| {
        let (weight, output) = match layer {
            LayerMut::Linear(linear) => {
                let output = head.as_deref() == Some(linear.path());
                if output && tied {
                    return false;
                }
                (&mut linear.weight, output)
            }
            LayerMut::Embedding(embedding) if !tied => (&mut embedding.weight, false),
            LayerMut::Embedding(_) | LayerMut::Norm(_) => return false,
        };
        let [rows, columns] = weight.dims();
        let kind = if weights == GgufType::Q4_0 && output { GgufType::Q8_0 } else { weights };
        let values = kind.round(&weight.clone().try_into_vec_as::<f32>().unwrap(), columns);
        *weight = Tensor::from_data(burn::tensor::TensorData::new(values, [rows, columns]), &weight.device());
        true
    })
}

/// A LoRA whose update is about `size` times as large as the weights.
fn small_lora(model: &dyn CausalLm, size: f64) -> Lora {
    let config = LoraConfig::new(Targets::AllLinear).with_rank(4).with_alpha(4.0 * size);
    Lora::new(model, config.with_init(InitLora::Random), 3).unwrap()
}

#[test]
fn an_update_that_low_bits_would_round_away_is_not_stored() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    let pretrained = pretrained();
    let quantised = on_the_grid(&pretrained.model, GgufType::Q4_0);
    // The grid is a grid: storing it changes nothing.
    let none = rounding_report(quantised.as_ref(), quantised.as_ref(), GgufType::Q4_0).unwrap();
    assert_eq!((none.layers.len(), none.kept()), (0, 1.0));

    let merged = |size| {
        let model = merge(quantised.as_ref(), &small_lora(quantised.as_ref(), size)).unwrap();
        Pretrained { model, ..pretrained.clone() }
    };
    let small = merged(0.02);
    let report = rounding_report(quantised.as_ref(), small.model.as_ref(), GgufType::Q4_0).unwrap();
    assert!(report.kept() < 0.3, "{report}");
    let error = save_merged_gguf(quantised.as_ref(), &small, &path, GgufType::Q4_0).unwrap_err();
    assert!(matches!(error, Error::UpdateLost { .. }), "{error}");
    assert!(!path.exists());

    // In more bits the same update stays, and a larger one stays in few.
    for (merged, weights, least) in
        [(&small, GgufType::F32, 0.9999), (&small, GgufType::F16, 0.99), (&merged(1.0), GgufType::Q4_0, 0.8)]
    {
        let report = save_merged_gguf(quantised.as_ref(), merged, &path, weights).unwrap();
        assert!(report.kept() > least && report.noise() < 1.0, "{report}");
        // The report speaks of the file as it is.
        let read = load_causal_lm(&Checkpoint::open(&path).unwrap(), &common::device()).unwrap();
        let stored = on_the_grid(&merged.model, weights);
        let ids = || some_ids(60);
        let difference = largest_difference(
            &logits(read.as_ref(), ids(), &NoAdapter),
            &logits(stored.as_ref(), ids(), &NoAdapter),
        );
        // A file of halves is computed with in halves.
        let tolerance = if weights == GgufType::F16 { 3e-2 } else { 1e-4 };
        assert!(difference < tolerance, "{weights:?}: {difference}");
    }
}

#[test]
fn a_lora_comes_back_out_of_the_merged_model() {
    let model = base("gqa-tied");
    let lora = random_lora(model.as_ref(), all_linear());
    let tuned = merge(model.as_ref(), &lora).unwrap();
    let expected = logits(tuned.as_ref(), some_ids(101), &NoAdapter);
    let close = |lora: &Lora, what: &str| {
        let difference = largest_difference(&logits(model.as_ref(), some_ids(101), lora), &expected);
        assert!(difference < 1e-4, "{what}: {difference}");
    };

    let config = ExtractConfig::new(ExtractRank::Fixed(4));
    let (same, report) = extract(model.as_ref(), tuned.as_ref(), &config).unwrap();
    close(&same, "of the same rank");
    assert_eq!(report.layers.len(), 21);
    assert!(report.layers.iter().all(|layer| layer.rank == 4 && layer.energy > 0.9999), "{report}");
    assert!(report.saved_whole.is_empty() && report.left_out.is_empty());
    let out = tempfile::tempdir().unwrap();
    same.save(out.path()).unwrap();
    close(&Lora::load(model.as_ref(), out.path()).unwrap(), "saved and loaded");

    // The rank that is needed is found, a lower one keeps what it says, and ranks may differ.
    let all = ExtractConfig::new(ExtractRank::Energy { share: 0.99999, most: 16 });
    let (found, report) = extract(model.as_ref(), tuned.as_ref(), &all).unwrap();
    assert!(report.layers.iter().all(|layer| layer.rank == 4), "{report}");
    close(&found, "of the rank that was found");
    let some = ExtractConfig::new(ExtractRank::Energy { share: 0.8, most: 16 });
    let (short, report) = extract(model.as_ref(), tuned.as_ref(), &some).unwrap();
    let ranks: Vec<usize> = short.targets().map(|(_, sizes)| sizes.rank).collect();
    assert_eq!(ranks, report.layers.iter().map(|layer| layer.rank).collect::<Vec<_>>());
    assert!(ranks.iter().any(|rank| *rank != ranks[0]), "{report}");
    assert!(report.layers.iter().all(|layer| layer.rank < 4 || layer.energy > 0.999), "{report}");
    assert!(short.targets().all(|(_, sizes)| sizes.scale == 1.0));
    for (layer, spectrum) in report.layers.iter().zip(Spectrum::of_lora(&lora).unwrap().layers) {
        assert_eq!(layer.path, spectrum.path);
        assert_eq!(Some(layer.rank), spectrum.rank_for(0.8), "{report}");
    }
    let out = tempfile::tempdir().unwrap();
    short.save(out.path()).unwrap();
    let loaded = Lora::load(model.as_ref(), out.path()).unwrap();
    let ids = || some_ids(101);
    assert_eq!(logits(model.as_ref(), ids(), &loaded), logits(model.as_ref(), ids(), &short));
}

#[test]
fn what_is_no_update_of_low_rank_is_saved_whole_or_named() {
    let model = base("head-dim-bias");
    let scope =
        Scope::new(Targets::names(["q_proj", "up_proj"])).with_modules_to_save(["model.norm", "lm_head"]);
    let config = LoraConfig::new(scope).with_rank(3).with_bias(Bias::All).with_init(InitLora::Random);
    let adapter = shift(Lora::new(model.as_ref(), config, 1).unwrap());
    let tuned = merge(model.as_ref(), &adapter).unwrap();
    let expected = logits(tuned.as_ref(), some_ids(61), &NoAdapter);

    let config = ExtractConfig::new(ExtractRank::Fixed(3));
    let (lora, report) = extract(model.as_ref(), tuned.as_ref(), &config).unwrap();
    let difference = largest_difference(&logits(model.as_ref(), some_ids(61), &lora), &expected);
    assert!(difference < 1e-4, "{difference}\n{report}");
    assert_eq!(report.saved_whole, ["model.norm", "lm_head"]);
    assert!(lora.config().lora_bias && report.left_out.is_empty());

    let (lora, report) =
        extract(model.as_ref(), tuned.as_ref(), &config.clone().with_save_others(false)).unwrap();
    assert_eq!(report.left_out, ["model.norm", "lm_head"]);
    assert!(largest_difference(&logits(model.as_ref(), some_ids(61), &lora), &expected) > 1e-3);

    for (error, part) in [
        (extract(model.as_ref(), model.as_ref(), &config).unwrap_err(), "nothing to extract"),
        (extract(model.as_ref(), base("gqa-tied").as_ref(), &config).unwrap_err(), "not of one architecture"),
        (
            extract(model.as_ref(), tuned.as_ref(), &ExtractConfig::new(ExtractRank::Fixed(0))).unwrap_err(),
            "a rank in 1..=65536",
        ),
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn the_spectrum_of_a_lora_is_that_of_what_it_changes() {
    let model = base("gqa-tied");
    let lora = random_lora(model.as_ref(), all_linear());
    let spectrum = Spectrum::of_lora(&lora).unwrap();
    let merged = merge(model.as_ref(), &lora).unwrap();
    let whole = Spectrum::between(model.as_ref(), merged.as_ref(), 4).unwrap();
    assert_eq!(spectrum.layers.len(), 21);
    for (ours, theirs) in spectrum.layers.iter().zip(&whole.layers) {
        assert_eq!(ours.path, theirs.path);
        let largest = ours.singular_values[0];
        let difference = largest_difference(&ours.singular_values, &theirs.singular_values);
        assert!(difference < 1e-4 * largest, "{}: {difference} of {largest}", ours.path);
        assert!((ours.norm() / theirs.norm() - 1.0).abs() < 1e-4);
        assert!((1.0..=4.0 + 1e-6).contains(&ours.effective_rank()));
    }

    let table = spectrum.to_string();
    assert_eq!(table.lines().count(), 1 + 21 + 1);
    assert!(table.contains("model.layers.2.mlp.down_proj"), "{table}");
    let svg = spectrum.to_svg();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<polyline").count(), 21);
    // Seven kinds of layers, and nothing that isn't a number.
    assert_eq!(svg.matches("font-weight=\"bold\"").count(), 7);
    assert!(!svg.contains("NaN") && !svg.contains("inf"));

    let mut layers = 0;
    model.visit(&mut |layer| layers += usize::from(matches!(layer, Layer::Linear(_))));
    assert_eq!(layers, 22);
}
