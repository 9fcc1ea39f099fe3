//! An engine answers as its model would, one caller after another.
#![allow(missing_docs, clippy::unwrap_used)]

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use burn::tensor::Tensor;
use llmkit_core::engine::{Engine, EngineConfig};
use llmkit_core::models::Pretrained;
use llmkit_core::nn::Linear;
use llmkit_core::{
    Adapter, ChatEvent, ChatRequest, ChatResponse, ChatStream, Device, Error, LanguageModel, Message,
};

fn pretrained() -> Pretrained {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama/gguf/model.gguf");
    Pretrained::load(path, &Device::from_env().unwrap().resolve().unwrap()).unwrap()
}

fn request(text: &str) -> ChatRequest {
    ChatRequest { max_tokens: Some(12), ..ChatRequest::new(vec![Message::user(text)]) }
}

/// Runs a future on this thread; nothing here needs more than being asked again.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn next(stream: &mut ChatStream) -> Option<llmkit_core::Result<ChatEvent>> {
    block_on(poll_fn(|context| stream.as_mut().poll_next(context)))
}

fn collect(stream: &mut ChatStream) -> (String, ChatResponse) {
    let mut text = String::new();
    loop {
        match next(stream).unwrap().unwrap() {
            ChatEvent::Text(piece) => text += &piece,
            ChatEvent::Done(response) => {
                assert!(next(stream).is_none());
                return (text, response);
            }
            event => panic!("expected text, found {event:?}"),
        }
    }
}

/// Counts tokens that pass through the first block's queries, can wait for a signal, and can panic.
#[derive(Default)]
struct Watching {
    tokens: AtomicUsize,
    gate: Mutex<()>,
    panic: bool,
}

impl Adapter for Watching {
    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        if base.path() == "model.layers.0.self_attn.q_proj" {
            assert!(!self.panic, "as the test wants it");
            drop(self.gate.lock().unwrap());
            self.tokens.fetch_add(input.dims()[1], Ordering::SeqCst);
        }
        base.forward(input)
    }
}

#[test]
fn an_answer_is_that_of_the_model_streamed_or_whole() {
    let model = pretrained();
    let config = model.generation.for_request(&request("Tell me."));
    let messages = [Message::user("Tell me.")];
    let expected = model
        .reply(&llmkit_core::NoAdapter, &messages, &config, &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap();
    let engine = Engine::start(model, EngineConfig::new("tiny")).unwrap();
    assert_eq!(engine.name(), "tiny");
    let whole = block_on(engine.chat(request("Tell me."))).unwrap();
    assert_eq!(whole.message.content, expected.text);
    assert_eq!(whole.finish_reason, expected.finish_reason);
    assert_eq!(whole.usage.completion_tokens, expected.ids.len());
    assert!(!expected.text.is_empty());

    let (text, streamed) = collect(&mut block_on(engine.chat_stream(request("Tell me."))).unwrap());
    assert_eq!((text, streamed.message), (expected.text.clone(), whole.message));
    assert_eq!(engine.chat_blocking(request("Tell me.")).unwrap().message.content, expected.text);
}

#[test]
fn callers_are_served_in_their_order_and_side_by_side() {
    let engine = Engine::start(pretrained(), EngineConfig::new("tiny")).unwrap();
    let alone: Vec<_> =
        (0..6).map(|i| engine.chat_blocking(request(&format!("Question {i}"))).unwrap()).collect();
    let threads: Vec<_> = (0..6)
        .map(|i| {
            let engine = engine.clone();
            thread::spawn(move || engine.chat_blocking(request(&format!("Question {i}"))).unwrap())
        })
        .collect();
    for (thread, alone) in threads.into_iter().zip(alone) {
        assert_eq!(thread.join().unwrap().message, alone.message);
    }
}

#[test]
fn the_beginning_of_a_known_conversation_is_not_read_again() {
    let watching = Arc::new(Watching::default());
    let config = EngineConfig::new("tiny").with_adapter("watching", watching.clone());
    let engine = Engine::start(pretrained(), config).unwrap();
    let fresh = || Engine::start(pretrained(), EngineConfig::new("fresh").with_remembered(0)).unwrap();
    let ask = |request: &ChatRequest| {
        let before = watching.tokens.load(Ordering::SeqCst);
        let watched = ChatRequest { adapter: Some("watching".into()), ..request.clone() };
        let response = engine.chat_blocking(watched).unwrap();
        let fed = watching.tokens.load(Ordering::SeqCst) - before;
        // The last token is chosen and not read.
        let computed = response.usage.prompt_tokens - response.usage.cached_tokens
            + response.usage.completion_tokens
            - 1;
        assert_eq!(fed, computed);
        let expected = fresh().chat_blocking(request.clone()).unwrap();
        assert_eq!(response.message, expected.message);
        assert_eq!(
            (response.usage.prompt_tokens, expected.usage.cached_tokens),
            (expected.usage.prompt_tokens, 0)
        );
        response
    };

    let mut talk = request("What is a harbor, and who needs one?");
    let first = ask(&talk);
    assert_eq!(first.usage.cached_tokens, 0);
    talk.messages.extend([first.message, Message::user("Say more.")]);
    let second = ask(&talk);
    assert!(second.usage.cached_tokens >= first.usage.prompt_tokens, "{:?}", second.usage);
    assert!(second.usage.cached_tokens < second.usage.prompt_tokens);

    // The same again: all but one token of the prompt is known.
    let again = ask(&talk);
    assert_eq!(again.usage.cached_tokens, again.usage.prompt_tokens - 1);
    // Another branch of the first conversation, and then the first branch still.
    let mut branch = talk.clone();
    branch.messages[2] = Message::user("Stop talking.");
    assert!(ask(&branch).usage.cached_tokens >= first.usage.prompt_tokens);
    assert_eq!(ask(&talk).usage.cached_tokens, again.usage.cached_tokens);
    // What was read with an adapter is not taken for what was read without.
    assert_eq!(engine.chat_blocking(talk).unwrap().usage.cached_tokens, 0);
}

#[test]
fn a_full_queue_is_waited_for_or_refused() {
    let watching = Arc::new(Watching::default());
    let config = EngineConfig::new("tiny").with_adapter("watching", watching.clone()).with_queue(1);
    let engine = Engine::start(pretrained(), config).unwrap();
    let gate = watching.gate.lock().unwrap();
    let watched = ChatRequest { adapter: Some("watching".into()), ..request("One") };
    let mut first = engine.try_chat_stream(watched.clone()).unwrap();
    // The thread takes the first request out of the queue; then there is room for one more.
    let mut second = loop {
        match engine.try_chat_stream(watched.clone()) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    };
    let Err(Error::Model { reason, .. }) = engine.try_chat_stream(watched.clone()) else {
        panic!("a third request found room");
    };
    assert!(reason.contains("1 requests are waiting"), "{reason}");
    let waiting = {
        let engine = engine.clone();
        thread::spawn(move || engine.chat_blocking(watched).unwrap())
    };
    drop(gate);
    let (_, first) = collect(&mut first);
    let (_, second) = collect(&mut second);
    let third = waiting.join().unwrap();
    assert_eq!((&first.message, &second.message), (&second.message, &third.message));
}

#[test]
fn a_caller_who_goes_away_costs_no_more_work() {
    let watching = Arc::new(Watching::default());
    let config = EngineConfig::new("tiny").with_adapter("watching", watching.clone());
    let engine = Engine::start(pretrained(), config).unwrap();
    let long = ChatRequest {
        max_tokens: Some(60),
        adapter: Some("watching".into()),
        ..request("Tell me everything.")
    };
    let all = engine.chat_blocking(long.clone()).unwrap();
    let long = ChatRequest { messages: vec![Message::user("Now something else.")], ..long };

    let gate = watching.gate.lock().unwrap();
    let before = watching.tokens.load(Ordering::SeqCst);
    let mut stream = engine.try_chat_stream(long).unwrap();
    let unheard = engine.try_chat_stream(request("Nobody waits for this.")).unwrap();
    assert!(stream.as_mut().poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(stream);
    drop(unheard);
    drop(gate);
    let after = engine.chat_blocking(request("Is anybody there?")).unwrap();
    assert_eq!(after.finish_reason, all.finish_reason);
    // At most the prompt's part that was under way.
    let fed = watching.tokens.load(Ordering::SeqCst) - before;
    assert!(fed < all.usage.prompt_tokens + 8, "{fed} tokens were read for nobody");
}

#[test]
fn errors_and_panics_are_the_caller_s_and_the_engine_goes_on() {
    let panicking = Arc::new(Watching { panic: true, ..Watching::default() });
    let config = EngineConfig::new("tiny").with_adapter("panicking", panicking);
    let engine = Engine::start(pretrained(), config).unwrap();
    let expected = engine.chat_blocking(request("Hello")).unwrap();
    let failure = |request| match engine.chat_blocking(request) {
        Err(error) => error.to_string(),
        Ok(response) => panic!("an answer: {response:?}"),
    };
    let with = |adapter: &str| ChatRequest { adapter: Some(adapter.into()), ..request("Hello") };
    assert!(failure(with("missing")).contains("it has: panicking"));
    assert!(failure(with("panicking")).contains("as the test wants it"));
    assert!(failure(ChatRequest { temperature: Some(-1.0), ..request("Hello") }).contains("temperature"));
    assert!(failure(request(&"many words ".repeat(400))).contains("room for"));
    assert_eq!(engine.chat_blocking(request("Hello")).unwrap().message, expected.message);
    assert!(Engine::start(pretrained(), EngineConfig::new("none").with_queue(0)).is_err());
    assert!(Engine::start(pretrained(), EngineConfig::new("none").with_queue(usize::MAX)).is_err());
}

#[test]
fn dropping_the_engine_ends_its_thread_and_its_answers() {
    let watching = Arc::new(Watching::default());
    let config = EngineConfig::new("tiny").with_adapter("watching", watching.clone());
    let engine = Engine::start(pretrained(), config).unwrap();
    let gate = watching.gate.lock().unwrap();
    let watched = ChatRequest { adapter: Some("watching".into()), ..request("One") };
    let mut running = engine.try_chat_stream(watched.clone()).unwrap();
    let mut waiting = engine.try_chat_stream(watched).unwrap();
    let dropping = thread::spawn(move || drop(engine));
    thread::sleep(Duration::from_millis(20));
    drop(gate);
    dropping.join().unwrap();
    let mut last = next(&mut running);
    while let Some(Ok(ChatEvent::Text(_))) = last {
        last = next(&mut running);
    }
    assert!(last.unwrap().unwrap_err().to_string().contains("has stopped"));
    assert!(next(&mut waiting).unwrap().unwrap_err().to_string().contains("has stopped"));
    assert!(next(&mut waiting).is_none());
}

#[test]
fn adapters_come_and_go_while_requests_are_answered() {
    let engine = Engine::start(pretrained(), EngineConfig::new("tiny")).unwrap();
    let ask = |text: &str| ChatRequest { adapter: Some("a".into()), ..request(text) };
    let error = engine.chat_blocking(ask("Hello")).unwrap_err().to_string();
    assert!(error.contains("no adapter `a`; it has: none"), "{error}");

    let (first, second) = (Arc::new(Watching::default()), Arc::new(Watching::default()));
    assert!(engine.add_adapter("a", first.clone()).is_none());
    assert_eq!(engine.adapters(), ["a"]);

    // One request is being answered and another waits when the adapter is replaced: both finish with theirs.
    let gate = first.gate.lock().unwrap();
    let mut streams: Vec<_> =
        ["Hello", "Good morning"].map(|text| engine.try_chat_stream(ask(text)).unwrap()).into();
    assert!(engine.add_adapter("a", second.clone()).is_some());
    let mut last = engine.try_chat_stream(ask("Good evening")).unwrap();
    drop(gate);
    let read: usize = streams
        .iter_mut()
        .map(|stream| collect(stream).1.usage)
        .map(|usage| usage.prompt_tokens + usage.completion_tokens - usage.cached_tokens)
        .sum();
    let seen = first.tokens.load(Ordering::SeqCst);
    // The last token of an answer is not read by the model.
    assert!((read - 2..=read).contains(&seen), "{seen} of {read} tokens");
    // The third found the new one, and nothing that the old one remembered.
    assert_eq!(collect(&mut last).1.usage.cached_tokens, 0);
    assert_eq!(first.tokens.load(Ordering::SeqCst), seen);
    assert!(second.tokens.load(Ordering::SeqCst) > 0);

    // A conversation is remembered until its adapter goes, even if the same one comes back.
    assert!(engine.chat_blocking(ask("Good evening")).unwrap().usage.cached_tokens > 0);
    let removed = engine.remove_adapter("a").unwrap();
    assert!(engine.remove_adapter("a").is_none());
    assert!(engine.chat_blocking(ask("Good evening")).is_err());
    engine.add_adapter("a", removed);
    assert_eq!(engine.chat_blocking(ask("Good evening")).unwrap().usage.cached_tokens, 0);
}

#[test]
fn an_answer_with_an_adapter_that_went_is_not_remembered() {
    let engine = Engine::start(pretrained(), EngineConfig::new("tiny")).unwrap();
    let ask = |text: &str| ChatRequest { adapter: Some("a".into()), ..request(text) };
    let watching = Arc::new(Watching::default());
    engine.add_adapter("a", watching.clone());
    let gate = watching.gate.lock().unwrap();
    let mut stream = engine.try_chat_stream(ask("Hello")).unwrap();
    let same = engine.remove_adapter("a").unwrap();
    engine.add_adapter("a", same);
    drop(gate);
    assert!(collect(&mut stream).1.usage.completion_tokens > 0);
    assert_eq!(engine.chat_blocking(ask("Hello")).unwrap().usage.cached_tokens, 0);
}
