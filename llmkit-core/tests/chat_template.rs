//! Chat templates against transformers' rendering, and against templates that mean harm.
#![cfg(feature = "models")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use llmkit_core::checkpoint::gguf::{Metadata, MetadataValue};
use llmkit_core::{ChatTemplate, Error, Message, RenderOptions, ToolCall};
use serde_json::{Map, Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat")
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, Some("<s>"), Some("</s>")).unwrap()
}

fn reason(error: Error) -> String {
    match error {
        Error::Template { reason } => reason,
        other => panic!("not about a template: {other}"),
    }
}

/// What rendering without messages fails with.
fn failure(source: &str) -> String {
    reason(template(source).render(&[], false).unwrap_err())
}

#[derive(serde::Deserialize)]
struct Expected {
    now: u64,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    add_generation_prompt: bool,
    #[serde(default)]
    tools: Vec<Value>,
    extra: Map<String, Value>,
    expected: Option<String>,
    raises: Option<String>,
}

#[test]
fn conversations_render_as_transformers_renders_them() {
    let expected: Expected =
        serde_json::from_str(&fs::read_to_string(fixtures().join("expected.json")).unwrap()).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(expected.now);
    let mut rendered = BTreeMap::<String, usize>::new();
    let mut wrong = Vec::new();
    for (index, case) in expected.cases.into_iter().enumerate() {
        let source =
            fs::read_to_string(fixtures().join(format!("templates/{}.jinja", case.template))).unwrap();
        let options = RenderOptions {
            add_generation_prompt: case.add_generation_prompt,
            tools: case.tools,
            extra: case.extra,
            now: Some(now),
            ..RenderOptions::default()
        };
        let text = template(&source).render_with(&case.messages, &options);
        let right = match (&text, &case.expected, &case.raises) {
            (Ok(text), Some(expected), None) => text == expected,
            (Err(Error::Template { reason }), None, Some(raises)) => {
                reason.starts_with("line ") && reason.ends_with(raises)
            }
            _ => false,
        };
        if !right {
            let text = text.unwrap_or_else(|error| error.to_string());
            let expected = case.expected.or(case.raises).unwrap_or_default();
            let same = text.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
            let from_there = |text: &str| text.chars().skip(same).take(60).collect::<String>();
            let (ours, theirs) = (from_there(&text), from_there(&expected));
            wrong.push(format!(
                "case {index}, {}, after {same} characters: {ours:?}, expected {theirs:?}",
                case.template
            ));
        }
        *rendered.entry(case.template).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
    assert_eq!(rendered.len(), 9, "{rendered:?}");
    assert!(rendered.values().sum::<usize>() > 150, "{rendered:?}");
}

#[derive(serde::Deserialize)]
struct Known {
    now: u64,
    conversations: BTreeMap<String, Vec<Message>>,
    tools: BTreeMap<String, Vec<Value>>,
    cases: Vec<KnownCase>,
}

#[derive(serde::Deserialize)]
struct KnownCase {
    template: String,
    messages: String,
    tools: String,
    #[serde(default)]
    documents: Vec<Value>,
    add_generation_prompt: bool,
    #[serde(default)]
    continue_final_message: bool,
    extra: Map<String, Value>,
    expected: Option<String>,
    raises: Option<String>,
    /// In characters.
    assistant: Option<Vec<(usize, usize)>>,
}

/// What is wrong with our rendering of a case, if anything.
fn judge(
    case: &KnownCase,
    template: &ChatTemplate,
    messages: &[Message],
    options: &RenderOptions,
) -> Option<String> {
    let text = match (template.render_with(messages, options), &case.expected, &case.raises) {
        (Ok(text), Some(expected), _) if &text == expected => text,
        (Ok(text), Some(expected), _) => {
            let same = text.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
            let from_there = |text: &str| text.chars().skip(same).take(80).collect::<String>();
            return Some(format!("{:?} != {:?}", from_there(&text), from_there(expected)));
        }
        (Err(error), None, Some(raises)) => {
            return (!reason(error).ends_with(raises)).then(|| format!("another error than {raises}"));
        }
        (Ok(text), None, Some(raises)) => return Some(format!("{text:?}, expected the error {raises}")),
        (Err(error), ..) => return Some(error.to_string()),
        (Ok(_), None, None) => return Some("nothing is expected".to_owned()),
    };
    let ranges = case.assistant.as_ref()?;
    let marked = match template.render_marked(messages, options) {
        Ok(marked) => marked,
        Err(error) => return Some(error.to_string()),
    };
    let characters = |at: usize| text[..at].chars().count();
    let found: Vec<_> =
        marked.assistant.iter().map(|range| (characters(range.start), characters(range.end))).collect();
    (marked.text != text || &found != ranges)
        .then(|| format!("assistant's words at {found:?}, expected {ranges:?}"))
}

#[test]
fn well_known_templates_render_as_transformers_renders_them() {
    let known: Known =
        serde_json::from_str(&fs::read_to_string(fixtures().join("known.json")).unwrap()).unwrap();
    let now = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(known.now));
    let mut templates = BTreeMap::new();
    let (mut wrong, mut marked) = (Vec::new(), 0);
    for case in &known.cases {
        let template = templates.entry(case.template.clone()).or_insert_with(|| {
            template(&fs::read_to_string(fixtures().join(format!("known/{}.jinja", case.template))).unwrap())
        });
        let options = RenderOptions {
            add_generation_prompt: case.add_generation_prompt,
            tools: known.tools[&case.tools].clone(),
            documents: case.documents.clone(),
            continue_final_message: case.continue_final_message,
            extra: case.extra.clone(),
            now,
        };
        marked += usize::from(case.assistant.is_some());
        if let Some(what) = judge(case, template, &known.conversations[&case.messages], &options) {
            wrong
                .push(format!("{} {} {} {:?}: {what}", case.template, case.messages, case.tools, case.extra));
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), known.cases.len(), wrong.join("\n"));
    assert!(templates.len() >= 50 && known.cases.len() > 500 && marked > 90, "{}", templates.len());
}

#[test]
fn the_mask_covers_the_tokens_of_the_assistants_words() {
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}\
                  {% generation %}{{ m.content }}.{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}";
    let messages =
        [Message::user("é?"), Message::assistant("née"), Message::user("x"), Message::assistant("")];
    let template = template(source);
    assert!(template.marks_assistant(&RenderOptions::default()));
    let marked = template.render_marked(&messages, &RenderOptions::default()).unwrap();
    assert_eq!(marked.text, "[user]é?[assistant]née.[user]x[assistant].");
    let words: Vec<_> = marked.assistant.iter().map(|range| &marked.text[range.clone()]).collect();
    assert_eq!(words, ["née.", "."]);

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer");
    let file = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path };
        (path.file_name()? == "tokenizer.json" && path.is_file()).then_some(path)
    });
    let tokenizer = llmkit_core::Tokenizer::from_file(file.unwrap()).unwrap();
    let (ids, offsets) = tokenizer.encode_with_offsets(&marked.text, false).unwrap();
    assert_eq!(ids, tokenizer.encode(&marked.text, false).unwrap());
    let mask = marked.mask(&offsets);
    assert_eq!(mask.len(), ids.len());
    for (token, of_assistant) in offsets.iter().zip(&mask) {
        let inside = marked.assistant.iter().any(|words| token.clone().any(|byte| words.contains(&byte)));
        assert_eq!(inside, *of_assistant, "{token:?}");
    }
    assert!(mask.iter().any(|yes| *yes) && mask.iter().any(|yes| !yes));
}

#[test]
fn marks_that_can_not_be_told_are_an_error() {
    let failure = |source: &str| {
        let messages = [Message::assistant("x")];
        reason(template(source).render_marked(&messages, &RenderOptions::default()).unwrap_err())
    };
    assert!(failure("{{ messages[0].content }}").contains("no `{% generation %}` tags"));
    let measured = "{% set x %}{% generation %}a{% endgeneration %}{% endset %}{{ x | length }}";
    assert!(failure(measured).contains("changes or repeats"));
}

#[test]
fn the_last_message_is_continued_or_says_why_not() {
    let options = RenderOptions { continue_final_message: true, ..RenderOptions::default() };
    let continued = |source: &str, messages: &[Message]| template(source).render_with(messages, &options);
    let answer = [Message::assistant("one \u{f8fe}continue-0\u{f8ff} two ")];
    // The mark that is in the way is not taken for ours.
    assert_eq!(continued("<{{ messages[0].content }}>", &answer).unwrap(), format!("<{}", answer[0].content));
    let trimmed = continued("<{{ messages[0].content | trim }}>", &answer).unwrap();
    assert_eq!(trimmed, format!("<{}", answer[0].content.trim_end()));
    for (source, messages) in [
        ("{{ messages[0].role }}", &answer[..]),
        ("{{ messages[0].content | upper }}", &answer),
        ("{{ messages }}", &[]),
    ] {
        assert!(
            reason(continued(source, messages).unwrap_err()).contains("continue_final_message"),
            "{source}"
        );
    }
    let both = RenderOptions { add_generation_prompt: true, ..options.clone() };
    assert!(reason(template("").render_with(&answer, &both).unwrap_err()).contains("exclude each other"));
}

#[test]
fn a_tool_call_reaches_the_template_as_function_with_name_and_arguments() {
    let call =
        ToolCall { id: Some("1".to_owned()), name: "add".to_owned(), arguments: json!({"b": 1, "a": "é"}) };
    let source = "{% for call in messages[0].tool_calls %}{{ call.id }} {{ call.type }} {{ call.function.name }} \
                  {{ call.function.arguments | tojson }}{% endfor %}|{{ messages[1].name }} {{ messages[1].tool_call_id }}";
    let messages = [Message::assistant("").with_tool_calls(vec![call.clone()]), Message::tool(&call, "3")];
    let text = template(source).render(&messages, false).unwrap();
    assert_eq!(text, r#"1 function add {"b": 1, "a": "é"}|add 1"#);
}

#[test]
fn a_separate_template_for_tools_is_used_with_tools() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "bos_token": {"content": "<s>", "lstrip": false},
        "eos_token": null,
        "chat_template": [
            {"name": "tool_use", "template": "tools {{ tools | length }}"},
            {"name": "default", "template": "{{ bos_token }}{{ eos_token is defined }}{{ tools is none }}"},
        ],
    });
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let template = ChatTemplate::from_folder(folder.path()).unwrap();
    assert_eq!(template.render(&[], false).unwrap(), "<s>FalseTrue");
    let options = RenderOptions { tools: vec![json!({})], ..RenderOptions::default() };
    assert_eq!(template.render_with(&[], &options).unwrap(), "tools 1");
    assert_eq!(template.source(), config["chat_template"][1]["template"]);

    // A file of its own wins over the config.
    fs::write(folder.path().join("chat_template.jinja"), "of the file\n").unwrap();
    let template = ChatTemplate::from_folder(folder.path()).unwrap();
    assert_eq!(template.render(&[], false).unwrap(), "of the file");
}

#[test]
fn a_gguf_template_knows_the_special_tokens() {
    let text = |text: &str| MetadataValue::String(text.to_owned());
    let mut metadata = Metadata::from([
        (
            "tokenizer.chat_template".to_owned(),
            text("{{ bos_token }}|{{ eos_token }}|{{ pad_token is defined }}"),
        ),
        ("tokenizer.ggml.tokens".to_owned(), MetadataValue::Array(vec![text("<s>"), text("</s>")])),
        ("tokenizer.ggml.bos_token_id".to_owned(), MetadataValue::U32(0)),
        ("tokenizer.ggml.eos_token_id".to_owned(), MetadataValue::U32(1)),
        ("tokenizer.ggml.padding_token_id".to_owned(), MetadataValue::U32(9)),
    ]);
    assert_eq!(ChatTemplate::from_gguf(&metadata).unwrap().render(&[], false).unwrap(), "<s>|</s>|False");
    // A separate one for conversations with tools, as the `gguf` package writes it.
    metadata.insert("tokenizer.chat_templates".to_owned(), MetadataValue::Array(vec![text("tool_use")]));
    metadata
        .insert("tokenizer.chat_template.tool_use".to_owned(), text("{{ tools | length }}{{ eos_token }}"));
    let options = RenderOptions { tools: vec![json!({})], ..RenderOptions::default() };
    assert_eq!(ChatTemplate::from_gguf(&metadata).unwrap().render_with(&[], &options).unwrap(), "1</s>");
    metadata.remove("tokenizer.chat_template.tool_use");
    metadata.remove("tokenizer.chat_template");
    assert!(reason(ChatTemplate::from_gguf(&metadata).unwrap_err()).contains("ChatTemplate::new"));
}

#[test]
fn a_model_without_a_template_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let text = reason(ChatTemplate::from_folder(folder.path()).unwrap_err());
    assert!(text.contains("chat_template.jinja") && text.contains("ChatTemplate::new"), "{text}");
}

#[test]
fn errors_name_the_line() {
    assert!(failure("a\nb\n{{ messages.x.y }}").starts_with("line 3: "));
    assert_eq!(failure("\n{{ raise_exception('no ' ~ 'way') }}"), "line 2: no way");
    let unfinished = reason(ChatTemplate::new("a\n{% if x %}", None, None).unwrap_err());
    assert!(unfinished.starts_with("line 2: "), "{unfinished}");
    assert!(failure("{{ strftime_now('%Q') }}").contains("%Q"));
}

#[test]
fn the_time_can_be_fixed() {
    let now = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000));
    let options = RenderOptions { now, ..RenderOptions::default() };
    let text =
        template("{{ strftime_now('%Y-%m-%d %H:%M:%S, %d %B %Y') }}").render_with(&[], &options).unwrap();
    assert_eq!(text, "2025-06-15 15:06:40, 15 June 2025");
}

/// What must end in an error soon, without taking the machine's memory.
fn assert_defused(source: &str) {
    let start = Instant::now();
    assert!(!failure(source).is_empty(), "{source}");
    assert!(start.elapsed() < Duration::from_secs(60), "{source}: {:?}", start.elapsed());
}

#[test]
fn endless_templates_end_in_an_error() {
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ range(1000000000) | list | length }}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{% include 'default' %}",
    ] {
        assert_defused(source);
    }
}

#[test]
fn a_list_of_exponential_size_is_not_written_out() {
    let double = "{% set ns = namespace(x=['text']) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    for use_it in ["{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x | string }}"] {
        assert_defused(&format!("{double}{use_it}"));
    }
}

#[test]
fn a_deeply_nested_value_does_not_overflow_the_stack() {
    let deep = "{% set ns = namespace(x=[], y=[]) %}{% for i in range(RANGE) %}\
                {% set ns.x = [[[[[[[[ns.x]]]]]]]] %}{% set ns.y = [[[[[[[[ns.y]]]]]]]] %}{% endfor %}";
    // Until the fuel is used up: a million levels.
    assert_defused(&deep.replace("RANGE", "100000").repeat(9));
    let deep = deep.replace("RANGE", "9000");
    for use_it in ["{{ ns.x }}", "{{ ns.x | tojson }}"] {
        assert_defused(&format!("{deep}{use_it}"));
    }
    assert_eq!(template(&format!("{deep}{{{{ ns.x == ns.y }}}}")).render(&[], false).unwrap(), "True");
}

#[test]
fn a_very_long_conversation_renders() {
    let source = fs::read_to_string(fixtures().join("templates/thinking.jinja")).unwrap();
    let words = "so many words ".repeat(100);
    let messages: Vec<_> =
        (0..5000).flat_map(|_| [Message::user("more"), Message::assistant(words.as_str())]).collect();
    let text = template(&source).render(&messages, true).unwrap();
    assert_eq!(text.matches("so many words").count(), 500_000);
}

#[test]
fn a_template_that_would_exhaust_the_parser_is_refused() {
    let nested = format!("{}1{}", "(".repeat(50_000), ")".repeat(50_000));
    assert!(ChatTemplate::new(format!("{{{{ {nested} }}}}"), None, None).is_err());
    assert!(ChatTemplate::new("x".repeat(2 << 20), None, None).is_err());
}
