//! A prompt's conversation runs on a local model through the trait that remote models speak too.
#![cfg(feature = "prompt")]
#![allow(missing_docs, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use llmkit::engine::{Engine, EngineConfig};
use llmkit::models::Pretrained;
use llmkit::prompt::ChatPrompt;
use llmkit::{ChatRequest, ChatResponse, Device, LanguageModel, NoAdapter, Result, Role};
use serde_json::json;

/// Application code: it knows no model.
async fn explain(model: &dyn LanguageModel, prompt: &ChatPrompt, word: &str) -> Result<ChatResponse> {
    let messages = prompt.render(json!({ "word": word })).unwrap();
    model.chat(ChatRequest { max_tokens: Some(10), ..ChatRequest::new(messages) }).await
}

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

#[test]
fn a_prompt_is_answered_as_by_the_model_itself() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("llmkit-core/tests/fixtures/llama/gguf/model.gguf");
    let model = Pretrained::load(path, &Device::from_env().unwrap().resolve().unwrap()).unwrap();
    let turns = [(Role::System, "You explain words."), (Role::User, "What does {{ word }} mean?")];
    let prompt = ChatPrompt::new("explain", turns, ["word"]).unwrap();
    let engine = Engine::start(model.clone(), EngineConfig::new("tiny")).unwrap();

    let mut cached = Vec::new();
    for word in ["harbor", "library", "harbor"] {
        let messages = prompt.render(json!({ "word": word })).unwrap();
        let config = model.generation.clone().with_max_new_tokens(10);
        let expected =
            model.reply(&NoAdapter, &messages, &config, &mut |_| ControlFlow::Continue(())).unwrap();
        let answer = block_on(explain(&engine, &prompt, word)).unwrap();
        assert_eq!(answer.message.content, expected.text, "{word}");
        assert!(!answer.message.content.is_empty());
        cached.push(answer.usage.cached_tokens);
    }
    // The prompt's fixed beginning is read once.
    assert!(cached[0] == 0 && cached[1] > 0 && cached[2] > cached[1], "{cached:?}");
}
