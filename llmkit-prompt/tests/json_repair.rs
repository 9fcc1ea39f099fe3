//! Repairs against PyPI's json_repair; `scripts/make_prompt_typed_fixtures.py` makes the fixture. Where we mean to read something else, the value
//! and the reason are in `json_repair_differences.json`.

use std::fs;

use llmkit_prompt::parse;
use serde_json::Value;

fn fixture(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).expect("the fixture is there")).expect("it is valid")
}

#[test]
fn broken_json_is_read_as_by_json_repair_or_for_a_reason_otherwise() {
    let differences = fixture("json_repair_differences.json");
    let cases = fixture("json_repair.json");
    assert_eq!(cases.len(), 27);
    let mut wrong = Vec::new();
    for case in &cases {
        let text = case["text"].as_str().expect("a text");
        let ours: Value = parse::json(text).unwrap_or_else(|error| Value::from(format!("error: {error}")));
        let listed = differences.iter().find(|other| other["text"] == case["text"]);
        let expected = listed.map_or(&case["json_repair"], |other| &other["ours"]);
        if ours != *expected {
            wrong.push(format!("{text:?}\n  ours {ours}\n  expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
