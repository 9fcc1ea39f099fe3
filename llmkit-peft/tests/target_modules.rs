//! Which layers PEFT adapts, with which rank and scale: a table made by PEFT itself.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{base, fixtures};
use llmkit_peft::{Lora, LoraConfig, MethodConfig};
use serde_json::{Value, json};

#[test]
fn the_same_layers_as_peft() {
    let table: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("peft/match.json")).unwrap()).unwrap();
    let model = base("gqa-tied");
    let cases = table["cases"].as_array().unwrap();
    assert!(cases.len() > 40);
    for case in cases {
        let settings = &case["settings"];
        let mut config = settings.clone();
        config["peft_type"] = json!("LORA");
        let config = LoraConfig::parse(&config.to_string(), Path::new("match.json"));
        let lora = config.and_then(|config| Lora::new(model.as_ref(), config, 0));

        let expected = case["modules"].as_array().map(Vec::as_slice).unwrap_or_default();
        if expected.is_empty() {
            assert!(lora.is_err(), "{settings}: PEFT refuses this ({})", case["error"]);
            continue;
        }
        let lora = lora.unwrap_or_else(|error| panic!("{settings}: {error}"));
        let mut ours: Vec<_> =
            lora.targets().map(|(path, sizes)| (path.to_owned(), sizes.rank as u64, sizes.scale)).collect();
        let mut theirs: Vec<_> = expected
            .iter()
            .map(|module| {
                let name = module["name"].as_str().unwrap().to_owned();
                (name, module["r"].as_u64().unwrap(), module["scale"].as_f64().unwrap())
            })
            .collect();
        ours.sort_by(|a, b| a.0.cmp(&b.0));
        theirs.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(ours, theirs, "{settings}");
    }
}
