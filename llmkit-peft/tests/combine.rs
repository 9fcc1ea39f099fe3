//! Several LoRAs made into one, as PEFT's `add_weighted_adapter` does it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Expected, base, fixtures, ids, largest_difference, logits, some_ids, values};
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::{CausalLm, Model, load_encoder};
use llmkit_peft::{
    Bias, Combination, Error, InitLora, Lora, LoraConfig, MajoritySign, Method, Rule, Scope, Targets, combine,
};
use serde_json::Value;

/// PEFT's arguments in our words.
fn combination(arguments: &Value) -> Combination {
    let density = arguments["density"].as_f64().unwrap_or(1.0);
    let majority = match arguments["majority_sign_method"].as_str() {
        Some("frequency") => MajoritySign::Frequency,
        _ => MajoritySign::Total,
    };
    let kind = arguments["combination_type"].as_str().unwrap();
    let (name, of_updates) = match kind.strip_suffix("_svd") {
        Some(name) => (name, true),
        None if kind == "svd" => ("linear", true),
        None => (kind, false),
    };
    let rule = match name {
        "cat" => return Combination::Cat,
        "linear" => Rule::Linear,
        "ties" => Rule::Ties { density, majority },
        "dare_linear" => Rule::DareLinear { density, seed: 0 },
        "dare_ties" => Rule::DareTies { density, majority, seed: 0 },
        "magnitude_prune" => Rule::MagnitudePrune { density },
        other => panic!("{other}"),
    };
    let rank = arguments["svd_rank"].as_u64().map(|rank| rank as usize);
    if of_updates { Combination::Updates { rule, rank } } else { Combination::Factors(rule) }
}

/// Every combination of a folder's adapters computes what PEFT's does.
fn check(name: &str, model: Arc<dyn Model>, forward: &dyn Fn(&dyn Method) -> Vec<f32>, expected: &Expected) {
    let folder = fixtures().join("working").join(name);
    let combinations: Value =
        serde_json::from_slice(&std::fs::read(folder.join("combinations.json")).unwrap()).unwrap();
    let combinations = combinations.as_object().unwrap();
    assert!(combinations.len() >= 12);
    for (key, arguments) in combinations {
        let loras: Vec<Lora> = arguments["adapters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|adapter| Lora::load(model.as_ref(), folder.join(adapter.as_str().unwrap())).unwrap())
            .collect();
        let weights = arguments["weights"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap());
        let weighted: Vec<_> = loras.iter().zip(weights).collect();
        let combined = combine(model.as_ref(), &weighted, combination(arguments)).unwrap();
        let difference = largest_difference(&forward(&combined), &expected.floats(key));
        assert!(difference < 1e-4, "{name}: {key} differs by {difference}");

        // It is an ordinary LoRA, with a folder of its own.
        let out = tempfile::tempdir().unwrap();
        combined.save(out.path()).unwrap();
        let loaded = Lora::load(model.as_ref(), out.path()).unwrap();
        assert_eq!(forward(&loaded), forward(&combined), "{name}: {key}");
        assert!(loaded.targets().all(|(_, sizes)| sizes.scale == 1.0));
    }
}

fn check_decoder(name: &str, base_name: &str) {
    let model = base(base_name);
    let expected = Expected::open(fixtures().join("working").join(name).join("expected.safetensors"));
    let (input, shape) = expected.ints("input_ids");
    let forward =
        |adapter: &dyn Method| logits(model.as_ref(), ids(&input[..shape[1]], [1, shape[1]]), adapter);
    check(name, model.clone(), &forward, &expected);
}

#[test]
fn loras_of_llama_combined() {
    check_decoder("llama", "gqa-tied");
}

#[test]
fn loras_of_an_embedding_combined() {
    check_decoder("llama-embedding", "gqa-tied");
}

#[test]
fn loras_of_qwen3_combined() {
    check_decoder("qwen3", "../decoders/qwen3-tied");
}

#[test]
fn loras_of_bert_combined() {
    let path = fixtures().join("../../../llmkit-core/tests/fixtures/encoders/bert");
    let model = load_encoder(&Checkpoint::open(path).unwrap(), &common::device()).unwrap();
    let expected = Expected::open(fixtures().join("working/bert/expected.safetensors"));
    let (input, shape) = expected.ints("input_ids");
    let forward = |adapter: &dyn Method| {
        let input = ids(&input[..shape[1]], [1, shape[1]]);
        values(model.forward(input, &[shape[1]], None, adapter))
    };
    check("bert", model.clone(), &forward, &expected);
}

fn random(model: &dyn CausalLm, config: LoraConfig, seed: u64) -> Lora {
    Lora::new(model, config.with_init(InitLora::Random), seed).unwrap()
}

fn config(rank: usize) -> LoraConfig {
    LoraConfig::new(Targets::names(["q_proj", "down_proj"])).with_rank(rank).with_alpha(6.0)
}

#[test]
fn exact_combinations_are_the_sum_of_the_updates() {
    let model = base("gqa-tied");
    let [first, second] = [(4, 1), (2, 2)].map(|(rank, seed)| random(model.as_ref(), config(rank), seed));
    let weighted = [(&first, 1.0), (&second, 1.0)];
    let adapters =
        [("first", Arc::new(first.clone()) as Arc<dyn Method>), ("second", Arc::new(second.clone()))];
    let stacked = llmkit_peft::StackedAdapters::new(model.as_ref(), adapters).unwrap();
    let ids = || some_ids(101);
    let expected = logits(model.as_ref(), ids(), &stacked);
    let all = Combination::Updates { rule: Rule::Linear, rank: Some(6) };
    for (how, rank) in [(Combination::Cat, 6), (all, 6)] {
        let combined = combine(model.as_ref(), &weighted, how).unwrap();
        assert_eq!(combined.config().rank, rank);
        let difference = largest_difference(&logits(model.as_ref(), ids(), &combined), &expected);
        assert!(difference < 1e-4, "{how:?} differs by {difference}");
    }
    // A smaller rank is worse, and the default is the highest.
    let combined =
        combine(model.as_ref(), &weighted, Combination::Updates { rule: Rule::Linear, rank: None }).unwrap();
    assert_eq!(combined.config().rank, 4);
    assert!(largest_difference(&logits(model.as_ref(), ids(), &combined), &expected) > 1e-3);

    // One adapter is scaled, whatever the rule.
    let ties = Combination::Factors(Rule::Ties { density: 0.5, majority: MajoritySign::Total });
    let one = combine(model.as_ref(), &[(&first, 1.0)], ties).unwrap();
    let same =
        largest_difference(&logits(model.as_ref(), ids(), &one), &logits(model.as_ref(), ids(), &first));
    assert!(same < 2e-5, "{same}");
}

#[test]
fn a_layer_that_one_trains_whole_is_taken_over() {
    let model = base("untied-llama3");
    let whole = || {
        let scope = Scope::new(Targets::names(["q_proj"])).with_modules_to_save(["lm_head"]);
        random(model.as_ref(), LoraConfig::new(scope), 1)
    };
    let (whole, plain) = (whole(), random(model.as_ref(), LoraConfig::new(Targets::names(["v_proj"])), 2));
    let combined = combine(model.as_ref(), &[(&plain, 0.5), (&whole, 0.5)], Combination::Cat).unwrap();
    assert_eq!(combined.config().scope.modules_to_save, ["lm_head"]);
    for (adapters, part) in [
        (vec![(&whole, 1.0), (&whole, 1.0)], "trains lm_head whole"),
        (vec![], "there is none"),
        (vec![(&plain, f64::NAN)], "NaN"),
    ] {
        let error = combine(model.as_ref(), &adapters, Combination::Cat).unwrap_err();
        assert!(matches!(error, Error::Combination { .. }) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_is_more_than_two_factors_is_refused() {
    let model = base("head-dim-bias");
    let plain = random(model.as_ref(), config(4), 1);
    let other_rank = random(model.as_ref(), config(3), 2);
    let biases = random(model.as_ref(), config(4).with_bias(Bias::All), 3);
    let folder = fixtures().join("peft/lora-b-bias");
    let lora_bias = Lora::load(model.as_ref(), folder).unwrap();
    let linear = Combination::Factors(Rule::Linear);
    let sparse = Combination::Factors(Rule::MagnitudePrune { density: 2.0 });
    for (other, how, part) in [
        (&other_rank, linear, "ranks [4, 3] differ"),
        (&biases, Combination::Cat, "adapter 1 trains biases"),
        (&lora_bias, Combination::Cat, "adapter 1: model.layers.0.self_attn.q_proj has `lora_B.bias`"),
        (&plain, sparse, "density is 2"),
    ] {
        let error = combine(model.as_ref(), &[(&plain, 1.0), (other, 1.0)], how).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}
