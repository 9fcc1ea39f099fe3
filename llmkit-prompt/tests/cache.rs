//! Caches: what is kept, what is not, and who asks.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use futures_timer::Delay;
use futures_util::StreamExt;
use futures_util::future::join_all;
use llmkit_core::{
    ChatEvent, ChatRequest, ChatResponse, Embedder, Error, LanguageModel, Message, Result, Usage,
};
use llmkit_prompt::cache::{CacheReport, Cached, CachedEmbedder, FolderStore, SemanticCache};
use llmkit_prompt::testing::{HashEmbedder, ScriptedModel};
use pollster::block_on;

/// A model that takes 20 ms and fails the first `fail` times.
#[derive(Default)]
struct Slow {
    calls: AtomicUsize,
    fail: usize,
}

#[async_trait]
impl LanguageModel for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn chat(&self, _: ChatRequest) -> Result<ChatResponse> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        Delay::new(Duration::from_millis(20)).await;
        if call < self.fail {
            return Err(Error::Model { model: "slow".to_owned(), reason: "not yet".to_owned() });
        }
        let model = ScriptedModel::new([format!("answer {call}")]);
        model.chat(ask("x")).await
    }
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest::new(vec![Message::user(text)])
}

#[test]
fn equal_requests_at_the_same_time_are_asked_once() {
    let slow = Arc::new(Slow::default());
    let model = Cached::new(slow.clone());
    let answers = block_on(join_all((0..50).map(|_| model.chat(ask("same")))));
    assert_eq!(slow.calls.load(Ordering::SeqCst), 1);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().message.content == "answer 0"));
    assert_eq!((model.stats().hits, model.stats().misses), (49, 1));
    // Different ones don't wait for each other: 20 of 20 ms each.
    let start = std::time::Instant::now();
    block_on(join_all((0..20).map(|n| model.chat(ask(&n.to_string())))));
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
}

#[test]
fn a_leader_that_fails_or_is_dropped_hands_over() {
    let slow = Arc::new(Slow { fail: 2, ..Slow::default() });
    let model = Cached::new(slow.clone());
    let answers = block_on(join_all((0..10).map(|_| model.chat(ask("same")))));
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 2);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 3);

    let mut leader = model.chat(ask("other"));
    assert!(matches!(leader.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    let mut follower = model.chat(ask("other"));
    assert!(matches!(follower.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    assert_eq!(slow.calls.load(Ordering::SeqCst), 4);
    drop(leader);
    block_on(follower).unwrap();
    assert_eq!(slow.calls.load(Ordering::SeqCst), 5);
}

#[test]
fn samples_differ_unless_a_seed_or_the_user_says_so() {
    let sampled = ChatRequest { temperature: Some(0.7), ..ask("x") };
    let contents = |model: &dyn LanguageModel, request: &ChatRequest| {
        [(); 2].map(|()| block_on(model.chat(request.clone())).unwrap().message.content)
    };
    let model = Cached::new(ScriptedModel::new(["a", "b", "c"]));
    assert_eq!(contents(&model, &sampled), ["a", "b"]);
    assert_eq!(model.stats().bypassed, 2);
    assert_eq!(contents(&model, &ChatRequest { seed: Some(1), ..sampled.clone() }), ["c", "c"]);
    let model = Cached::new(ScriptedModel::new(["a"])).with_sampled_answers();
    assert_eq!(contents(&model, &sampled), ["a", "a"]);
}

#[test]
fn answers_cost_nothing_again_and_grow_old() {
    let usage = Usage { prompt_tokens: 9, completion_tokens: 4, cached_tokens: 0 };
    let said = |text: &str| {
        let answer = block_on(ScriptedModel::new([text]).chat(ask("x"))).unwrap();
        ChatResponse { usage, ..answer }
    };
    let model = Cached::new(ScriptedModel::with_responses([said("a"), said("b")]))
        .with_ttl(Duration::from_millis(50));
    assert_eq!(block_on(model.chat(ask("x"))).unwrap().usage, usage);
    let again = block_on(model.chat(ask("x"))).unwrap();
    assert_eq!((again.message.content.as_str(), again.usage), ("a", Usage::default()));
    assert_eq!((model.stats().prompt_tokens_saved, model.stats().completion_tokens_saved), (9, 4));
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(block_on(model.chat(ask("x"))).unwrap().message.content, "b");
    assert_eq!(model.stats().expired, 1);
}

#[test]
fn streams_are_kept_when_they_end_and_given_again() {
    let model = Cached::new(ScriptedModel::new(["a", "b"]));
    drop(block_on(model.chat_stream(ask("x"))).unwrap());
    let events = || -> Vec<ChatEvent> {
        block_on(async {
            model.chat_stream(ask("x")).await.unwrap().map(|event| event.unwrap()).collect().await
        })
    };
    // The first stream was dropped before its end, so its answer is not kept.
    let text = |text: &str| ChatEvent::Text(text.to_owned());
    assert_eq!((events()[0].clone(), events()[0].clone()), (text("b"), text("b")));
    assert_eq!(block_on(model.chat(ask("x"))).unwrap().message.content, "b");
}

#[test]
fn a_folder_keeps_answers_from_run_to_run_and_between_models_apart() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, answer: &str| {
        let model = ScriptedModel::new([answer]).with_name(name);
        Cached::new(model).with_store(FolderStore::open(folder.path()).unwrap())
    };
    let say = |model: &dyn LanguageModel| block_on(model.chat(ask("x"))).unwrap().message.content;
    assert_eq!(say(&open("m", "a")), "a");
    assert_eq!(say(&open("m", "b")), "a");
    assert_eq!(say(&open("n", "c")), "c");
    assert_eq!(say(&open("m", "d").with_scope("another server")), "d");
    let adapted = ChatRequest { adapter: Some("cooking".to_owned()), ..ask("x") };
    assert_eq!(block_on(open("m", "e").chat(adapted)).unwrap().message.content, "e");
}

#[test]
fn similar_questions_share_an_answer_only_where_all_else_is_the_same() {
    let model = SemanticCache::new(ScriptedModel::new(["1", "2", "3", "4"]), HashEmbedder::new(256), 0.8);
    let report = |request: ChatRequest| {
        let (response, report) = block_on(model.chat_with_report(request)).unwrap();
        (response.message.content, report)
    };
    let question = "how deep is a soup tureen";
    assert_eq!(report(ask(question)), ("1".to_owned(), CacheReport::Miss { nearest: None }));
    let (answer, hit) = report(ask("how deep is the soup tureen"));
    assert!(
        answer == "1"
            && matches!(&hit, CacheReport::Hit { question: found, score } if found == question && *score > 0.8 && *score < 1.0),
        "{hit:?}"
    );
    let (answer, miss) = report(ask("how deep is the Atlantic ocean"));
    assert!(
        answer == "2"
            && matches!(&miss, CacheReport::Miss { nearest: Some((found, score)) } if found == question && *score < 0.8),
        "{miss:?}"
    );
    assert_eq!(report(ChatRequest { adapter: Some("a".to_owned()), ..ask(question) }).0, "3");
    let with_system = ChatRequest::new(vec![Message::system("Be brief."), Message::user(question)]);
    assert_eq!(report(with_system).0, "4");
    let events: Vec<_> = block_on(async { model.chat_stream(ask(question)).await.unwrap().collect().await });
    assert!(matches!(&events[0], Ok(ChatEvent::Text(text)) if text == "1"));
}

/// Counts the texts that it is asked for.
struct Counting(HashEmbedder, AtomicUsize);

#[async_trait]
impl Embedder for Counting {
    fn id(&self) -> &str {
        self.0.id()
    }

    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        self.1.fetch_add(texts.len(), Ordering::SeqCst);
        self.0.embed(texts).await
    }
}

#[test]
fn no_text_is_embedded_twice() {
    let counting = Arc::new(Counting(HashEmbedder::new(8), AtomicUsize::new(0)));
    let cached = CachedEmbedder::new(counting.clone());
    let texts = ["a b", "c", "a b", "d e f"].map(str::to_owned);
    let plain = block_on(counting.0.embed(&texts)).unwrap();
    assert_eq!(block_on(cached.embed(&texts)).unwrap(), plain);
    assert_eq!(block_on(cached.embed(&texts[1..])).unwrap(), plain[1..]);
    assert_eq!(counting.1.load(Ordering::SeqCst), 3);
}
