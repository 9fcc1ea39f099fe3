//! Chat templates.

use llmkit_core::{ChatTemplate, Message, RenderOptions, ToolCall};
use serde_json::json;

use crate::{campaign, fixture, mutate, read};

#[test]
fn templates() {
    let mut names: Vec<_> = std::fs::read_dir(fixture("chat/known"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".jinja"))
        .collect();
    names.sort();
    let sources: Vec<_> = names.iter().map(|name| read(&format!("chat/known/{name}"))).collect();
    let call = ToolCall {
        id: Some("000000001".to_owned()),
        name: "f".to_owned(),
        arguments: json!({"a": [1, null]}),
    };
    let messages = [
        Message::system("Be brief."),
        Message::user("{{ 7 * 7 }} <think>"),
        Message::assistant("</think>").with_tool_calls(vec![call.clone()]),
        Message::tool(&call, "1"),
    ];
    let tools =
        vec![json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}})];
    let options = RenderOptions { add_generation_prompt: true, tools, ..RenderOptions::default() };
    let outcome = campaign(
        "templates",
        2500,
        |rng| {
            let source = rng.pick(&sources);
            let bytes = if rng.below(6) == 0 {
                spliced(rng, &sources)
            } else {
                mutate::bytes(rng, source, source.len())
            };
            let source = String::from_utf8_lossy(&bytes).into_owned();
            let size = source.len();
            (source, size)
        },
        |source| {
            let Ok(template) = ChatTemplate::new(source.as_str(), Some("<s>"), Some("</s>")) else {
                return false;
            };
            let rendered = template.render_with(&messages, &options);
            let _ = template.render_marked(&messages[..2], &options);
            rendered.is_ok()
        },
    );
    assert!(outcome.loaded > 100 && outcome.refused > 100, "{outcome:?}");
}

/// The pieces of templates, between tags, in another order.
fn spliced(rng: &mut mutate::Rng, sources: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..3 + rng.below(30) {
        let source = String::from_utf8_lossy(rng.pick::<Vec<u8>>(sources)).into_owned();
        let pieces: Vec<_> = source.split_inclusive("%}").collect();
        let from = rng.below(pieces.len());
        let to = pieces.len().min(from + 1 + rng.below(4));
        out.extend(pieces[from..to].concat().into_bytes());
    }
    out
}
