//! Answers as values: the loop around a model, JSON while it is written, and what damaged answers do.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use llmkit_core::{Capabilities, ChatResponse, FinishReason, Message, ResponseFormat, Usage};
use llmkit_prompt::testing::ScriptedModel;
use llmkit_prompt::typed::{Parsed, PartialJson, Typed};
use llmkit_prompt::{Error, Run, parse};
use pollster::block_on;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Dish {
    name: String,
    litres: Option<f32>,
}

fn ask() -> Vec<Message> {
    vec![Message::system("Be brief."), Message::user("Which dish holds soup?")]
}

fn said(text: &str, finish_reason: FinishReason) -> ChatResponse {
    ChatResponse { message: Message::assistant(text), finish_reason, usage: Usage::default() }
}

#[test]
fn a_capable_model_is_held_to_the_schema_and_not_shown_it() {
    let model = ScriptedModel::new([r#"{"name": "tureen", "litres": 3.5}"#])
        .with_capabilities(Capabilities::new().with_json_schema(true));
    let typed = Typed::<Dish>::new();
    let dish = block_on(typed.run(&model, ask())).unwrap().value;
    assert_eq!(dish, Dish { name: "tureen".to_owned(), litres: Some(3.5) });
    let request = &model.requests()[0];
    assert_eq!(request.messages, ask());
    let ResponseFormat::JsonSchema { name, schema } = &request.response_format else {
        panic!("expected a schema, found {:?}", request.response_format)
    };
    assert_eq!((name.as_str(), schema), ("Dish", typed.schema()));
    assert_eq!(schema["required"], json!(["name"]));
}

#[test]
fn what_is_no_object_is_asked_for_within_one() {
    let model = ScriptedModel::new([r#"{"answer": [3, 5]}"#, r#"{"answer": [3, 5]}"#])
        .with_capabilities(Capabilities::new().with_json_schema(true));
    let numbers = Typed::<Vec<u8>>::new();
    assert_eq!(block_on(numbers.run(&model, ask())).unwrap().value, [3, 5]);
    let ResponseFormat::JsonSchema { schema, name } = &model.requests()[0].response_format else {
        panic!("expected a schema")
    };
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "{name}");
    assert_eq!(schema["properties"]["answer"]["items"]["maximum"], 255);
    // And is streamed without it.
    let run = Run::new("stream", &model);
    let mut seen = Vec::new();
    let all = block_on(numbers.stream_in(&run, ask(), &mut |value| seen.push(value.clone()))).unwrap();
    assert_eq!((all, seen.last()), (vec![3, 5], Some(&json!([3, 5]))));
}

#[test]
fn any_other_model_is_shown_the_schema_and_told_what_is_wrong() {
    let model = ScriptedModel::new([
        "A tureen.",
        r#"{"litres": 2}"#,
        r#"```json
{"name": "tureen", "litres": null,}
```"#,
    ]);
    let traced = block_on(Typed::<Dish>::new().run(&model, ask())).unwrap();
    assert_eq!(traced.value, Dish { name: "tureen".to_owned(), litres: None });
    let requests = model.requests();
    assert_eq!(requests[0].response_format, ResponseFormat::Text);
    assert_eq!(requests[0].messages.len(), 2);
    let shown = &requests[0].messages[1].content;
    assert!(shown.starts_with("Which dish holds soup?") && shown.contains(r#""litres""#), "{shown}");
    // Only the last answer that failed is shown, so that the conversation does not grow.
    for (request, answer, fault) in
        [(&requests[1], "A tureen.", "expected JSON"), (&requests[2], r#"{"litres": 2}"#, "the field `name`")]
    {
        assert_eq!(request.messages.len(), 4);
        assert_eq!(request.messages[2], Message::assistant(answer));
        assert!(request.messages[3].content.contains(fault), "{}", request.messages[3].content);
    }
    let trace = traced.trace.to_string();
    assert!(trace.contains("attempt 2 of 3") && trace.contains("mended the answer's JSON"), "{trace}");
}

#[test]
fn an_answer_that_never_comes_is_an_error_with_every_reason() {
    let model = ScriptedModel::new(["no", "never"]);
    let error = block_on(Typed::<Dish>::new().with_attempts(2).run(&model, ask())).unwrap_err();
    let Error::Answer { wanted, reasons, text } = &error else { panic!("{error}") };
    assert_eq!((wanted.as_str(), reasons.len(), text.as_str()), ("JSON of the type Dish", 2, "never"));
}

#[test]
fn a_cut_off_answer_is_no_answer_even_if_it_can_be_closed() {
    let cut = r#"[{"name": "tureen", "litres": 3.5}, {"name": "bo"#;
    let whole = r#"[{"name": "bowl", "litres": null}]"#;
    let model =
        ScriptedModel::with_responses([said(cut, FinishReason::Length), said(whole, FinishReason::Stop)]);
    let dishes = block_on(Typed::<Vec<Dish>>::new().run(&model, ask())).unwrap().value;
    assert_eq!(dishes.len(), 1);
    assert!(model.requests()[1].messages[3].content.contains("cut off"));
}

#[test]
fn a_check_refuses_in_its_own_words() {
    let model = ScriptedModel::new(["7", "8"]);
    let even = Typed::<u8>::new().with_check(|n| {
        (n % 2 == 0).then_some(()).ok_or_else(|| format!("expected an even number, found {n}"))
    });
    assert_eq!(block_on(even.run(&model, ask())).unwrap().value, 8);
    assert!(model.requests()[1].messages[3].content.contains("expected an even number, found 7"));
}

#[test]
fn any_parser_can_be_asked_around() {
    let model = ScriptedModel::new(["I can't say.", "On 2026-03-03."]);
    let date = Parsed::new("a date", parse::date);
    assert_eq!(block_on(date.run(&model, ask())).unwrap().value.to_string(), "2026-03-03");
    let model = ScriptedModel::new(["a", "b", "c"]);
    let error = block_on(date.run(&model, ask())).unwrap_err().to_string();
    assert!(error.starts_with("3 attempts gave no a date"), "{error}");
}

#[test]
fn a_failing_model_is_not_asked_again() {
    let model = ScriptedModel::new(Vec::<String>::new());
    let error = block_on(Typed::<Dish>::new().run(&model, ask())).unwrap_err();
    assert!(matches!(error, Error::Model(_)), "{error}");
    assert_eq!(model.requests().len(), 1);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |x| x.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Whether `later` can have grown out of `earlier`.
fn grew(earlier: &Value, later: &Value) -> bool {
    match (earlier, later) {
        (Value::String(a), Value::String(b)) => b.starts_with(a.as_str()),
        (Value::Array(a), Value::Array(b)) => a.len() <= b.len() && a.iter().zip(b).all(|(a, b)| grew(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, a)| b.get(key).is_some_and(|b| grew(a, b)))
        }
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn json_in_any_pieces_ends_as_it_is_and_only_grows(
        value in any_json().prop_map(|value| json!([value])),
        pretty in any::<bool>(),
        escaped in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        if escaped {
            text = text.chars().flat_map(|c| if c.is_ascii() { vec![c] } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().flat_map(|unit| format!("\\u{unit:04x}").chars().collect::<Vec<_>>()).collect()
            }).collect();
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut partial = PartialJson::new();
        let mut last = None;
        for pair in cuts.windows(2) {
            partial.push(&text[pair[0]..pair[1]]).unwrap();
            let now = partial.value().cloned();
            if let (Some(last), Some(now)) = (&last, &now) {
                prop_assert!(grew(last, now), "{last} to {now}");
            }
            last = now;
        }
        prop_assert!(partial.is_complete());
        // Through text on both sides, as floating-point numbers read back need not have the same last digit otherwise.
        let expected: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(partial.value(), Some(&expected));
    }

    #[test]
    fn any_text_in_pieces_is_taken_or_refused(text in any::<String>(), start in "[\\[{\"]{0,4}") {
        let mut partial = PartialJson::new();
        let _ = partial.push(&start);
        let _ = partial.push(&text);
        let _ = partial.path();
    }
}

#[test]
fn json_beyond_the_depth_is_refused_and_a_fault_stays() {
    let mut partial = PartialJson::new();
    assert!(partial.push(&"[".repeat(parse::MAX_DEPTH)).is_ok());
    assert!(partial.push("[").unwrap_err().to_string().contains("levels deep"));
    assert!(partial.push("1").is_err());
    let mut partial = PartialJson::new();
    assert_eq!(partial.push(r#"{"a" 1"#).unwrap_err().to_string(), "expected `:`, found `1` at character 6");
}

#[test]
fn a_long_text_is_taken_in_linear_time() {
    let time = |letters: usize| {
        let started = Instant::now();
        let mut partial = PartialJson::new();
        partial.push("[[[[\"").unwrap();
        for _ in 0..letters {
            partial.push("a").unwrap();
        }
        assert!(partial.value().is_some());
        started.elapsed()
    };
    // A quadratic reader would take 10^12 steps.
    assert!(time(1_000_000) < Duration::from_secs(20));
}

const ANSWERS: [&str; 6] = [
    r#"{"name": "tureen", "litres": 3.5}"#,
    "Sure!\n```json\n{\"name\": \"a \\\"big\\\" bowl\", \"litres\": null}\n```\nAnything else?",
    r#"[{"name": "汤盘", "litres": 1e-3}, {"name": "plate", "litres": 0}, {"name": "", "litres": -12.25}]"#,
    r#"<think>{"name": "no"}</think> {"a": {"b": [true, false, null, {"c": "\u00e9\ud83d\ude00"}]}, "d": "x, y: z"}"#,
    "{'name': 'tureen', litres: .5, // about\n  tags: ['a', \"b\",], 'deep': True}",
    "{\"title\": \"Minutes\",\n \"items\": [\n  {\"who\": \"Ann\", \"due\": \"2026-03-03\"},\n  {\"who\": \"Bo\", \"due\": null}\n ]}",
];

/// Damages `text` in `times` places.
fn mutate(text: &str, times: usize, random: &mut ChaCha8Rng) -> String {
    const SIGNS: [char; 24] = [
        '{', '}', '[', ']', '"', '\'', ',', ':', '\\', '/', '`', '\n', ' ', '0', '-', '.', 'e', 'n', 'u',
        '<', '“', '，', '\u{0}', '😀',
    ];
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..times {
        let at = random.random_range(0..=chars.len());
        let sign = SIGNS[random.random_range(0..SIGNS.len())];
        match random.random_range(0..6) {
            0 => chars.insert(at, sign),
            1 if at < chars.len() => drop(chars.remove(at)),
            2 if at < chars.len() => chars[at] = sign,
            3 => chars.truncate(at),
            4 => {
                let end = (at + random.random_range(0..20)).min(chars.len());
                let piece: Vec<char> = chars[at..end].to_vec();
                let to = random.random_range(0..=chars.len());
                chars.splice(to..to, piece);
            }
            _ => {
                let many = random.random_range(1..200);
                chars.splice(at..at, std::iter::repeat_n(sign, many));
            }
        }
    }
    chars.into_iter().collect()
}

#[test]
fn ten_thousand_damaged_answers_neither_panic_nor_take_long() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut read = 0;
    for round in 0..10_000 {
        let answer = ANSWERS[round % ANSWERS.len()];
        let times = random.random_range(1..12);
        let text = mutate(answer, times, &mut random);
        let started = Instant::now();
        read += usize::from(parse::json::<Value>(&text).is_ok());
        let _ = parse::json::<Dish>(&text);
        let _ = (parse::list(&text), parse::table(&text), parse::date(&text), parse::boolean(&text));
        let _ = (parse::tagged(&text, "think"), parse::code_blocks(&text));
        let _ = PartialJson::new().push(&text);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?} for {text:?}", started.elapsed());
    }
    assert!(read > 8_000, "{read} of 10,000 gave a value");
}

#[test]
fn one_wrong_character_rarely_hides_an_answer() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let mut read = 0;
    for round in 0..2_000 {
        let mut chars: Vec<char> = ANSWERS[round % ANSWERS.len()].chars().collect();
        chars.remove(random.random_range(0..chars.len()));
        let text: String = chars.into_iter().collect();
        read += usize::from(parse::json::<Value>(&text).is_ok());
    }
    assert!(read >= 1_900, "{read} of 2,000 gave a value");
}

#[test]
fn valid_json_is_read_as_serde_json_reads_it() {
    for text in
        [r#"{"a": [1, 2.50, -0.0, 1e300, "x\ny", {"b": {}}], "a": 2}"#, "[]", "{}", "\"text\"", "12", "null"]
    {
        let expected: Value = serde_json::from_str(text).unwrap();
        let read = parse::json_with_repairs::<Value>(text).unwrap();
        assert_eq!((read.value, read.repairs.len()), (expected, 0), "{text}");
    }
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
enum Expression {
    Number(f64),
    Negative(Box<Expression>),
}

#[test]
fn a_type_within_itself_is_referred_to_where_it_is() {
    let model = ScriptedModel::new([r#"{"answer": {"Negative": {"Number": 2.0}}}"#])
        .with_capabilities(Capabilities::new().with_json_schema(true));
    let answer = block_on(Typed::<Expression>::new().run(&model, ask())).unwrap().value;
    assert_eq!(answer, Expression::Negative(Box::new(Expression::Number(2.0))));
    let ResponseFormat::JsonSchema { schema, .. } = &model.requests()[0].response_format else {
        panic!("expected a schema")
    };
    let text = schema.to_string();
    assert!(!text.contains(r##""$ref":"#""##), "{text}");
    let target = schema.pointer("/properties/answer").unwrap();
    assert!(target.get("oneOf").or(target.get("anyOf")).is_some(), "{text}");
}

#[test]
fn one_letter_or_digit_says_yes_or_no_only_by_itself() {
    assert!(
        parse::boolean("1").unwrap() && parse::boolean("**Y**").unwrap() && !parse::boolean("0.").unwrap()
    );
    assert!(!parse::boolean("1. No, it is not.").unwrap());
    assert!(parse::boolean("N/A").is_err() && parse::boolean("1,000 people").is_err());
}
