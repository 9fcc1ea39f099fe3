//! Answers that are held to a form, written by a model of random weights: it means nothing by what it writes, so only the form keeps it
//! from writing what does not fit.
#![cfg(all(feature = "constrained", feature = "models"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use llmkit_core::engine::{Engine, EngineConfig};
use llmkit_core::generate::{
    Constraint, Generated, GenerationConfig, Grammar, GrammarCompiler, Sampling, generate_constrained,
};
use llmkit_core::models::{CachedModel, Pretrained};
use llmkit_core::{
    ChatRequest, ChatTemplate, Device, Error, FinishReason, LanguageModel, Message, NoAdapter,
    ResponseFormat, ToolChoice, ToolDefinition,
};
use serde_json::{Value, json};

fn pretrained() -> Pretrained {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama/gguf/model.gguf");
    Pretrained::load(path, &Device::from_env().unwrap().resolve().unwrap()).unwrap()
}

/// Sees to it that only tokens come that the mask lets pass.
struct Watched<C> {
    inner: C,
    allowed: Vec<bool>,
}

impl<C: Constraint> Constraint for Watched<C> {
    fn mask(&mut self, logits: &mut [f32]) -> llmkit_core::Result<()> {
        self.inner.mask(logits)?;
        self.allowed = logits.iter().map(|logit| logit.is_finite()).collect();
        assert!(self.allowed.contains(&true));
        Ok(())
    }

    fn accept(&mut self, token: u32) -> llmkit_core::Result<()> {
        assert!(self.allowed[token as usize], "token {token} was barred");
        self.inner.accept(token)
    }

    fn is_over(&self) -> bool {
        self.inner.is_over()
    }
}

struct Writer {
    pretrained: Pretrained,
    compiler: GrammarCompiler,
}

impl Writer {
    fn new() -> Self {
        let pretrained = pretrained();
        let compiler =
            GrammarCompiler::new(&pretrained.tokenizer, &pretrained.generation.eos_token_ids).unwrap();
        Self { pretrained, compiler }
    }

    fn write(&self, grammar: &Grammar, config: &GenerationConfig) -> Generated {
        let constraint =
            self.compiler.compile(grammar).unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        let tokenizer = &self.pretrained.tokenizer;
        generate_constrained(
            &mut CachedModel::new(self.pretrained.model.as_ref(), &NoAdapter),
            &mut tokenizer.decode_stream(true),
            &tokenizer.encode("Go", true).unwrap(),
            config,
            &mut Watched { inner: constraint, allowed: Vec::new() },
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap_or_else(|error| panic!("{grammar:?}: {error}"))
    }

    /// Greedy, and drawn with several seeds.
    fn answers(&self, grammar: &Grammar) -> Vec<Generated> {
        let base = self.pretrained.generation.clone().with_max_new_tokens(200);
        let drawn = (0..4).map(|seed| base.clone().with_sampling(Sampling::new(1.0)).with_seed(seed));
        let configs = std::iter::once(base.clone().with_greedy()).chain(drawn);
        configs.map(|config| self.write(grammar, &config)).collect()
    }
}

type Check = fn(&Value) -> bool;

fn schemas() -> Vec<(Value, Check)> {
    vec![
        (json!({"enum": ["red", "green", "dark blue", 7, null]}), |value| {
            json!(["red", "green", "dark blue", 7, null]).as_array().unwrap().contains(value)
        }),
        (json!({"type": "boolean"}), Value::is_boolean),
        (json!({"const": {"a": [1, "\u{e9}\"\\"]}}), |value| *value == json!({"a": [1, "\u{e9}\"\\"]})),
        (json!({"type": "integer", "minimum": -3, "maximum": 120}), |value| {
            value.as_i64().is_some_and(|number| (-3..=120).contains(&number))
        }),
        (json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}), |value| {
            value.as_f64().is_some_and(|number| number > 0.0 && number <= 1.0)
        }),
        (json!({"type": "string", "maxLength": 5, "minLength": 2}), |value| {
            value.as_str().is_some_and(|text| (2..=5).contains(&text.chars().count()))
        }),
        (json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}), |value| {
            let bytes = value.as_str().unwrap().as_bytes();
            bytes.len() == 6
                && bytes[..2].iter().all(u8::is_ascii_uppercase)
                && bytes[2] == b'-'
                && bytes[3..].iter().all(u8::is_ascii_digit)
        }),
        (json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}), |value| {
            let items = value.as_array().unwrap();
            (2..=4).contains(&items.len()) && items.iter().all(Value::is_boolean)
        }),
        (
            json!({
                "type": "object", "additionalProperties": false, "required": ["id"],
                "properties": {"id": {"type": "integer", "minimum": 0, "maximum": 9}, "tag": {"enum": ["x", "y"]}}
            }),
            |value| {
                let fields = value.as_object().unwrap();
                fields["id"].as_i64().is_some_and(|id| (0..10).contains(&id))
                    && fields.keys().all(|key| key == "id" || key == "tag")
                    && fields.get("tag").is_none_or(|tag| tag == "x" || tag == "y")
            },
        ),
        (
            json!({
                "type": "object", "additionalProperties": false, "required": ["from", "to"],
                "properties": {"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}},
                "$defs": {"point": {
                    "type": "object", "additionalProperties": false, "required": ["x"],
                    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 3}}
                }}
            }),
            |value| {
                ["from", "to"].iter().all(|end| value[end]["x"].as_i64().is_some_and(|x| (0..4).contains(&x)))
            },
        ),
        (
            json!({"oneOf": [
                {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "boolean"}},
                 "required": ["kind", "n"], "additionalProperties": false},
                {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"], "additionalProperties": false}
            ]}),
            |value| match value["kind"].as_str() {
                Some("a") => value["n"].is_boolean(),
                Some("b") => value.as_object().unwrap().len() == 1,
                _ => false,
            },
        ),
        (
            json!({"anyOf": [{"type": "null"}, {"type": "array", "items": {"const": 1}, "maxItems": 2}]}),
            |value| {
                value.is_null()
                    || value
                        .as_array()
                        .is_some_and(|items| items.len() <= 2 && items.iter().all(|item| item == 1))
            },
        ),
    ]
}

#[test]
fn answers_that_end_fit_their_schema() {
    let writer = Writer::new();
    let (mut ended, mut all) = (0, 0);
    for (schema, check) in schemas() {
        for answer in writer.answers(&Grammar::json_schema(schema.clone())) {
            all += 1;
            if answer.finish_reason == FinishReason::Length {
                continue;
            }
            ended += 1;
            let value: Value = serde_json::from_str(&answer.text)
                .unwrap_or_else(|error| panic!("{error}: {:?} for {schema}", answer.text));
            assert!(check(&value), "{value} for {schema}");
        }
    }
    assert!(ended * 4 > all * 3, "{ended} of {all} ended");
}

#[test]
fn answers_fit_expressions_and_grammars() {
    let writer = Writer::new();
    for answer in writer.answers(&Grammar::regex("(mon|tues|satur)day( at [0-9]{1,2})?")) {
        assert_eq!(answer.finish_reason, FinishReason::Stop, "{answer:?}");
        let day = answer.text.split(" at ").next().unwrap();
        assert!(["monday", "tuesday", "saturday"].contains(&day), "{}", answer.text);
    }
    let sum = "start: term \"+\" term \"=\"\nterm: /[0-9]{1,3}/ | \"(\" term \")\"\n";
    for answer in writer.answers(&Grammar::lark(sum)) {
        let same = answer.text.matches('(').count() == answer.text.matches(')').count();
        assert!(
            answer.finish_reason == FinishReason::Length || answer.text.ends_with('=') && same,
            "{}",
            answer.text
        );
    }
}

#[test]
fn what_cannot_be_enforced_is_named_and_what_is_hostile_ends() {
    let compiler = Writer::new().compiler;
    let reason = |grammar: &Grammar| match compiler.compile(grammar) {
        Err(Error::Grammar { reason }) => reason,
        other => panic!("{grammar:?} is {other:?}"),
    };
    let unknown = reason(&Grammar::json_schema(json!({"type": "array", "uniqueItems": true})));
    assert!(unknown.contains("uniqueItems"), "{unknown}");
    reason(&Grammar::json_schema(json!({"$ref": "https://example.com/schema.json"})));
    reason(&Grammar::json_schema(json!(false)));
    reason(&Grammar::regex("(unclosed"));
    reason(&Grammar::lark("start: nothing_of_this_name"));
    reason(&Grammar::lark("x".repeat(2 << 20)));
    let mut deep = json!({"type": "integer"});
    for _ in 0..200 {
        deep = json!({"type": "array", "items": deep});
    }
    assert!(reason(&Grammar::json_schema(deep)).contains("deeper"));

    let start = Instant::now();
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"type": "string", "minLength": 1_000_000_000_u64}),
        json!({"type": "string", "pattern": "((a{1,999}){1,999}){1,999}"}),
        json!({"enum": (0..20_000).collect::<Vec<_>>()}),
    ] {
        // Whether it compiles or not, it comes back.
        let _ = compiler.compile(&Grammar::json_schema(schema));
    }
    let _ = compiler.compile(&Grammar::regex("(".repeat(100_000)));
    let _ =
        compiler.compile(&Grammar::lark(format!("start: {}\"a\"{}", "(".repeat(10_000), ")".repeat(10_000))));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest {
        max_tokens: Some(120),
        temperature: Some(1.0),
        ..ChatRequest::new(vec![Message::user(text)])
    }
}

fn digit() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": 9})
}

#[test]
fn an_engine_answers_in_the_form_that_is_asked_for() {
    let engine = Engine::start(pretrained(), EngineConfig::new("tiny")).unwrap();
    let capabilities = engine.capabilities();
    assert!(capabilities.json_schema && !capabilities.tools && capabilities.context_tokens > Some(100));
    let schema = json!({"type": "object", "properties": {"n": digit()}, "required": ["n"], "additionalProperties": false});
    let request = ChatRequest {
        response_format: ResponseFormat::JsonSchema { name: "n".to_owned(), schema },
        ..ask("A digit?")
    };
    let response = engine.chat_blocking(request.clone()).unwrap();
    assert_eq!(response.finish_reason, FinishReason::Stop);
    let value: Value = serde_json::from_str(&response.message.content).unwrap();
    assert!(value["n"].as_u64().unwrap() < 10);
    let cut = engine.chat_blocking(ChatRequest { max_tokens: Some(2), ..request }).unwrap();
    assert_eq!(cut.finish_reason, FinishReason::Length);

    let tools = vec![ToolDefinition::new("add", "", json!({"type": "object"}))];
    let error = engine.chat_blocking(ChatRequest { tools, ..ask("Add.") }).unwrap_err().to_string();
    assert!(error.contains("`tools`") && error.contains("chat template"), "{error}");
    let forced = ChatRequest { tool_choice: ToolChoice::Required, ..ask("Add.") };
    assert!(engine.chat_blocking(forced).unwrap_err().to_string().contains("tool_choice"));
}

#[test]
fn an_engine_calls_the_tools_that_it_must() {
    // Shows tools, calls and results, each in the fewest words.
    let template = |mark: &str| {
        let source = format!(
            "{{% for tool in tools or [] %}}{{{{ tool.function.name }}}} {{% endfor %}}{{% for message in messages %}}{{{{ message.content }}}}\
             {{% for call in message.tool_calls or [] %}}{{{{ call.function.name }}}}{{% endfor %}}\n{{% endfor %}}{{# {mark} #}}"
        );
        ChatTemplate::new(source, None, None).unwrap()
    };
    let parameters = |key: &str| json!({"type": "object", "properties": {key: digit()}, "required": [key], "additionalProperties": false});
    let tools = vec![
        ToolDefinition::new("add", "", parameters("a")),
        ToolDefinition::new("now", "", parameters("b")),
    ];
    for mark in ["<tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[TOOL_CALLS] [ARGS]"] {
        let pretrained = Pretrained { chat_template: template(mark), ..pretrained() };
        let engine = Engine::start(pretrained, EngineConfig::new("tiny")).unwrap();
        assert!(engine.capabilities().tools);
        let mut talk = ChatRequest {
            tools: tools.clone(),
            tool_choice: ToolChoice::Tool("add".to_owned()),
            ..ask("One and one?")
        };
        let first = engine.chat_blocking(talk.clone()).unwrap();
        assert_eq!(first.finish_reason, FinishReason::ToolCalls, "{mark}: {first:?}");
        let call = first.message.tool_calls[0].clone();
        assert_eq!((call.name.as_str(), call.id.as_deref()), ("add", Some("call00000")));
        assert!(call.arguments["a"].as_u64().unwrap() < 10 && first.message.content.is_empty());

        // The beginning of the conversation is known the second time.
        talk.messages.extend([first.message, Message::tool(&call, "2")]);
        talk.tool_choice = ToolChoice::Tool("now".to_owned());
        let second = engine.chat_blocking(talk.clone()).unwrap();
        assert!(second.usage.cached_tokens > 0, "{:?}", second.usage);
        let call = &second.message.tool_calls[0];
        assert_eq!((call.name.as_str(), call.id.as_deref()), ("now", Some("call00001")));

        talk.tool_choice = ToolChoice::Required;
        let any = engine.chat_blocking(talk.clone()).unwrap();
        assert!(any.message.tool_calls.iter().all(|call| call.name == "add" || call.name == "now"));
        talk.tool_choice = ToolChoice::Tool("other".to_owned());
        assert!(engine.chat_blocking(talk).unwrap_err().to_string().contains("add, now"));
    }
}
