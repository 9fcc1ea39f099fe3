//! The spans of pieces and calls, as a subscriber sees them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use llmkit_core::{
    Capabilities, ChatRequest, ChatResponse, FinishReason, LanguageModel, ResponseFormat, ToolCall, Usage,
};
use llmkit_prompt::agent::{Agent, Toolbox, sync_tool};
use llmkit_prompt::few_shot::{Examples, FewShot, NgramSelector};
use llmkit_prompt::reasoning::{
    Extract, Reasoned, Reasoner, SelfConsistency, Verdict, VerifiedReasoner, ZeroShotCot,
};
use llmkit_prompt::testing::ScriptedModel;
use llmkit_prompt::typed::Typed;
use llmkit_prompt::{ChatPrompt, Message, PromptTemplate, Role, Run};
use pollster::block_on;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// A span as it was when it was made, with what was recorded later.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: String,
    parent: Option<u64>,
    fields: BTreeMap<String, String>,
    closed: bool,
}

/// A layer that keeps all spans of this crate by their numbers.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeMap<u64, Seen>>>);

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).unwrap().parent().map(|parent| parent.id().into_u64());
        let mut seen = Seen { name: attributes.metadata().name().to_owned(), parent, ..Seen::default() };
        attributes.record(&mut seen);
        self.0.lock().unwrap().insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        values.record(self.0.lock().unwrap().get_mut(&id.into_u64()).unwrap());
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.0.lock().unwrap().get_mut(&id.into_u64()).unwrap().closed = true;
    }
}

impl Recorder {
    /// What `work` left behind.
    fn record(work: impl FnOnce()) -> Spans {
        let recorder = Self::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recorder.clone()), work);
        let spans = recorder.0.lock().unwrap().clone();
        assert!(spans.values().all(|span| span.closed), "a span is left open");
        Spans(spans)
    }
}

struct Spans(BTreeMap<u64, Seen>);

impl Spans {
    fn named(&self, otel_name: &str) -> Vec<&Seen> {
        self.0
            .values()
            .filter(|span| span.fields.get("otel.name").is_some_and(|name| name == otel_name))
            .collect()
    }

    fn one(&self, otel_name: &str) -> &Seen {
        match self.named(otel_name)[..] {
            [span] => span,
            ref found => panic!("{} spans `{otel_name}` among {:?}", found.len(), self.paths()),
        }
    }

    /// The names from the outermost span to this one.
    fn path<'a>(&'a self, span: &'a Seen) -> Vec<&'a str> {
        let mut path = vec![span.fields["otel.name"].as_str()];
        let mut next = span.parent;
        while let Some(parent) = next {
            path.push(&self.0[&parent].fields["otel.name"]);
            next = self.0[&parent].parent;
        }
        path.reverse();
        path
    }

    fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.0.values().map(|span| self.path(span).join(" > ")).collect();
        paths.sort();
        paths
    }
}

fn fields(span: &Seen) -> Value {
    json!(span.fields)
}

#[test]
fn a_call_has_the_names_of_the_conventions() {
    let spans = Recorder::record(|| {
        let model = ScriptedModel::new(["A deep dish."]).with_name("smol");
        let run = Run::new("define", &model);
        let request = ChatRequest {
            max_tokens: Some(8),
            temperature: Some(0.5),
            top_p: Some(0.25),
            seed: Some(7),
            stop: vec!["\n".to_owned()],
            response_format: ResponseFormat::Json,
            ..ChatRequest::new(vec![Message::user("What is a tureen?")])
        };
        block_on(run.chat("ask", request)).unwrap();
    });
    let span = spans.one("chat smol");
    assert_eq!(span.name, "chat");
    assert_eq!(
        fields(span),
        json!({
            "otel.name": "chat smol",
            "otel.kind": "internal",
            "step": "ask",
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "llmkit",
            "gen_ai.output.type": "json",
            "gen_ai.request.model": "smol",
            "gen_ai.request.max_tokens": "8",
            "gen_ai.request.temperature": "0.5",
            "gen_ai.request.top_p": "0.25",
            "gen_ai.request.seed": "7",
            "gen_ai.request.stop_sequences": "[\"\\n\"]",
            "gen_ai.response.model": "smol",
            "gen_ai.response.finish_reasons": "[\"stop\"]",
            "gen_ai.usage.input_tokens": "5",
            "gen_ai.usage.output_tokens": "3",
        })
    );
    assert_eq!(spans.path(span), ["invoke_workflow define", "chat smol"]);
    let piece = spans.one("invoke_workflow define");
    assert_eq!(piece.fields["gen_ai.operation.name"], "invoke_workflow");
    assert_eq!(piece.fields["gen_ai.workflow.name"], "define");
}

/// A model elsewhere that answers and fails as it is told to.
struct Elsewhere(Mutex<Vec<llmkit_core::Result<ChatResponse>>>);

#[async_trait]
impl LanguageModel for Elsewhere {
    fn name(&self) -> &str {
        "gpt"
    }

    fn provider(&self) -> &str {
        "openai"
    }

    async fn chat(&self, _: ChatRequest) -> llmkit_core::Result<ChatResponse> {
        self.0.lock().unwrap().pop().unwrap()
    }
}

#[test]
fn a_remote_model_is_a_client_and_an_error_has_a_type_and_no_text() {
    let error = |status| llmkit_core::Error::Remote {
        model: "gpt".to_owned(),
        reason: "SECRET".to_owned(),
        status,
        retry_after: None,
        source: None,
    };
    for (error, kind) in [
        (error(Some(429)), "429"),
        (error(None), "remote"),
        (llmkit_core::Error::Model { model: "gpt".to_owned(), reason: "SECRET".to_owned() }, "model"),
    ] {
        let spans = Recorder::record(|| {
            let model = Elsewhere(Mutex::new(vec![Err(error)]));
            block_on(ZeroShotCot::new().run(&model, "Why?")).unwrap_err();
        });
        let span = spans.one("chat gpt");
        assert_eq!(span.fields["otel.kind"], "client");
        assert_eq!(span.fields["gen_ai.provider.name"], "openai");
        // The call and the piece that it fails.
        for span in [span, spans.one("invoke_workflow zero-shot-cot")] {
            assert_eq!(
                (span.fields["otel.status_code"].as_str(), span.fields["error.type"].as_str()),
                ("ERROR", kind)
            );
        }
        assert!(!span.fields.contains_key("gen_ai.usage.output_tokens"));
        assert!(!format!("{:?}", spans.0).contains("SECRET"));
    }
}

#[test]
fn a_call_that_succeeds_has_no_error() {
    let spans = Recorder::record(|| {
        let usage = Usage { prompt_tokens: 9, completion_tokens: 2, cached_tokens: 4 };
        let answer = ChatResponse {
            message: Message::assistant("Answer: 1"),
            finish_reason: FinishReason::Length,
            usage,
        };
        let model = Elsewhere(Mutex::new(vec![Ok(answer)]));
        block_on(ZeroShotCot::new().run(&model, "Why?")).unwrap();
    });
    let span = spans.one("chat gpt");
    assert_eq!(span.fields["gen_ai.usage.input_tokens"], "9");
    assert_eq!(span.fields["gen_ai.usage.cache_read.input_tokens"], "4");
    assert_eq!(span.fields["gen_ai.response.finish_reasons"], "[\"length\"]");
    assert!(spans.0.values().all(|span| !span.fields.contains_key("error.type")));
    assert!(spans.0.values().all(|span| !span.fields.contains_key("otel.status_code")));
}

#[test]
fn what_is_said_is_recorded_only_on_demand() {
    let answer = || {
        let call = ToolCall {
            id: Some("1".to_owned()),
            name: "look_up".to_owned(),
            arguments: json!({"word": "tureen"}),
        };
        let message =
            Message::assistant("SECRET answer").with_reasoning("SECRET thought").with_tool_calls(vec![call]);
        ChatResponse { message, finish_reason: FinishReason::ToolCalls, usage: Usage::default() }
    };
    let request = || ChatRequest::new(vec![Message::system("SECRET rule"), Message::user("SECRET question")]);
    let spans = Recorder::record(|| {
        let model = ScriptedModel::with_responses([answer()]);
        block_on(Run::new("private", &model).chat("ask", request())).unwrap();
        let model = ScriptedModel::from_fn(|_| "Answer: SECRET");
        block_on(SelfConsistency::new(ZeroShotCot::new(), 2).run(&model, "SECRET?")).unwrap();
        let error = block_on(ZeroShotCot::new().with_extract(Extract::Number).run(&model, "SECRET?"));
        assert!(error.unwrap_err().to_string().contains("SECRET"));
    });
    assert!(spans.0.len() > 6);
    assert!(!format!("{:?}", spans.0).contains("SECRET"));

    let spans = Recorder::record(|| {
        let model = ScriptedModel::with_responses([answer()]);
        // A part does as the whole.
        let run = Run::new("open", &model).with_content();
        let part = run.part("part");
        block_on(part.chat("ask", request())).unwrap();
        run.include(part);
    });
    let span = spans.one("chat scripted");
    let read = |name: &str| serde_json::from_str::<Value>(&span.fields[name]).unwrap();
    assert_eq!(
        read("gen_ai.input.messages"),
        json!([
            {"role": "system", "parts": [{"type": "text", "content": "SECRET rule"}]},
            {"role": "user", "parts": [{"type": "text", "content": "SECRET question"}]},
        ])
    );
    assert_eq!(
        read("gen_ai.output.messages"),
        json!([{
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "SECRET thought"},
                {"type": "text", "content": "SECRET answer"},
                {"type": "tool_call", "id": "1", "name": "look_up", "arguments": {"word": "tureen"}},
            ],
            "finish_reason": "tool_calls",
        }])
    );
    assert_eq!(spans.path(span), ["invoke_workflow open", "invoke_workflow part", "chat scripted"]);
}

#[test]
fn spans_lie_in_the_pieces_that_made_them() {
    let spans = Recorder::record(|| {
        let method = VerifiedReasoner::new(
            SelfConsistency::new(ZeroShotCot::new(), 2),
            |_: &str, found: &Reasoned| {
                if found.answer == "b" { Verdict::pass() } else { Verdict::fail("no") }
            },
        );
        let model = ScriptedModel::new(["Answer: a", "Answer: a", "Answer: b"]);
        block_on(method.run(&model, "a or b?")).unwrap();
    });
    let paths: Vec<String> = spans.paths().into_iter().filter(|path| !path.contains("render")).collect();
    let samples = "invoke_workflow verified > invoke_workflow self-consistency > invoke_workflow sample";
    assert_eq!(
        paths,
        [
            "invoke_workflow verified".to_owned(),
            "invoke_workflow verified > chat scripted".to_owned(),
            "invoke_workflow verified > invoke_workflow self-consistency".to_owned(),
            format!("{samples} 1"),
            format!("{samples} 1 > chat scripted"),
            format!("{samples} 1 > parse text"),
            format!("{samples} 2"),
            format!("{samples} 2 > chat scripted"),
            format!("{samples} 2 > parse text"),
            "invoke_workflow verified > parse text".to_owned(),
        ]
    );
}

/// A model in whose answering another span is made, before and after a pause.
struct Instrumented;

#[async_trait]
impl LanguageModel for Instrumented {
    fn name(&self) -> &str {
        "instrumented"
    }

    async fn chat(&self, request: ChatRequest) -> llmkit_core::Result<ChatResponse> {
        let seed = request.seed.unwrap();
        tracing::info_span!("inner", otel.name = format!("before {seed}")).in_scope(|| {});
        futures_timer::Delay::new(Duration::from_millis(2 * (5 - seed))).await;
        tracing::info_span!("inner", otel.name = format!("after {seed}")).in_scope(|| {});
        Ok(ChatResponse {
            message: Message::assistant("Answer: 1"),
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
        })
    }
}

#[test]
fn calls_side_by_side_keep_their_spans_across_pauses() {
    let spans = Recorder::record(|| {
        let method = SelfConsistency::new(ZeroShotCot::new(), 5).with_concurrency(5);
        block_on(method.run(&Instrumented, "Why?")).unwrap();
        // Nothing is entered any more.
        assert!(tracing::Span::current().is_none());
    });
    for seed in 0..5 {
        for moment in ["before", "after"] {
            let name = format!("{moment} {seed}");
            let sample = format!("invoke_workflow sample {}", seed + 1);
            let expected = ["invoke_workflow self-consistency", &sample, "chat instrumented", &name];
            assert_eq!(spans.path(spans.one(&name)), expected);
        }
    }
    assert_eq!(spans.named("chat instrumented").len(), 5);
}

#[test]
fn a_dropped_call_closes_its_span() {
    let spans = Recorder::record(|| {
        let run = Run::new("impatient", &Instrumented);
        let request = ChatRequest { seed: Some(0), ..ChatRequest::new(vec![Message::user("Hello")]) };
        let mut call = Box::pin(run.chat("ask", request));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
        drop(call);
        assert!(tracing::Span::current().is_none());
    });
    // `record` checks that all are closed.
    assert!(!spans.one("chat instrumented").fields.contains_key("gen_ai.response.model"));
}

#[test]
fn selection_has_a_span_in_its_piece() {
    let spans = Recorder::record(|| {
        let rows = [json!({"q": "old boat", "a": "1"}), json!({"q": "a boat", "a": "2"})];
        let examples = Examples::new(rows).unwrap();
        let few_shot =
            FewShot::new(examples, "{{ q }}", "{{ a }}").unwrap().with_selector(NgramSelector::new(), 1);
        let model = ScriptedModel::new([""; 0]);
        let run = Run::new("classify", &model);
        block_on(few_shot.select_in(&run, json!({"q": "a small boat"}))).unwrap();
    });
    let span = spans.0.values().find(|span| span.name == "select").unwrap();
    assert_eq!((span.fields["candidates"].as_str(), span.fields["count"].as_str()), ("2", "1"));
    assert_eq!(span.fields["otel.name"], format!("select {}", span.fields["selector"]));
    assert_eq!(spans.path(span)[0], "invoke_workflow classify");
}

#[test]
fn rendering_has_a_span_with_the_prompts_name_and_a_failure_its_kind() {
    let spans = Recorder::record(|| {
        let prompt = ChatPrompt::new("greet", [(Role::User, "Hello {{ user.name }}")], ["user"]).unwrap();
        prompt.render(json!({"user": {"name": "SECRET"}})).unwrap();
        prompt.render(json!({"user": {}})).unwrap_err();
        prompt.render(json!({})).unwrap_err();
        let text = PromptTemplate::new("line", "{{ x }}", ["x"]).unwrap();
        text.render(json!({"x": "SECRET"})).unwrap();
    });
    let errors: Vec<Option<&str>> = spans
        .named("render greet")
        .iter()
        .map(|span| span.fields.get("error.type").map(String::as_str))
        .collect();
    assert_eq!(errors, [None, Some("render"), Some("render")]);
    assert_eq!(spans.one("render line").fields["gen_ai.prompt.name"], "line");
    assert!(!format!("{:?}", spans.0).contains("SECRET"));
}

#[test]
fn a_typed_answer_is_parsed_in_a_span() {
    let spans = Recorder::record(|| {
        let model = ScriptedModel::new(["[1, 2", "no numbers", "[1, 2, 3]"]);
        block_on(Typed::<Vec<u32>>::new().run(&model, vec![Message::user("Count to three.")])).unwrap();
    });
    let parses: Vec<&Seen> = spans.0.values().filter(|span| span.name == "parse").collect();
    assert!(
        !parses.is_empty() && parses.iter().all(|span| spans.path(span).len() == 2),
        "{:?}",
        spans.paths()
    );
}

#[derive(Deserialize, JsonSchema)]
struct Sum {
    a: i64,
    b: i64,
}

#[test]
fn a_tool_has_a_span_with_its_call() {
    let spans = Recorder::record(|| {
        let call = ToolCall {
            id: Some("call-7".to_owned()),
            name: "add".to_owned(),
            arguments: json!({"a": 1, "b": 2}),
        };
        let answer =
            |message| ChatResponse { message, finish_reason: FinishReason::Stop, usage: Usage::default() };
        let model = ScriptedModel::with_responses([
            answer(Message::assistant("").with_tool_calls(vec![call])),
            answer(Message::assistant("It is 3.")),
        ])
        .with_capabilities(Capabilities::new().with_tools(true));
        let add = sync_tool("add", "Adds two numbers.", |Sum { a, b }: Sum| Ok(a + b));
        let agent = Agent::new(Toolbox::new([add]).unwrap());
        let run = block_on(agent.run(&model, "What is 1 + 2?")).unwrap();
        assert_eq!(run.value.into_answer().unwrap(), "It is 3.");
    });
    let span = spans.one("execute_tool add");
    assert_eq!(
        fields(span),
        json!({
            "otel.name": "execute_tool add",
            "otel.kind": "internal",
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "add",
            "gen_ai.tool.call.id": "call-7",
            "gen_ai.tool.type": "function",
        })
    );
}
