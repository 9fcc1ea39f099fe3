//! Prompts and retrieval run on local models through core's traits.
#![cfg(all(feature = "prompt", feature = "rag", feature = "cpu"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use llmkit::checkpoint::Checkpoint;
use llmkit::embed::{Pooling, PoolingMode, SentenceEncoder};
use llmkit::engine::{Engine, EngineConfig};
use llmkit::models::{Pretrained, load_encoder};
use llmkit::prompt::ChatPrompt;
use llmkit::rag::{Collection, Document, Metric, SentenceSplitter};
use llmkit::{ChatRequest, Device, Embedder, LanguageModel, Role, Tokenizer};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("llmkit-core/tests/fixtures").join(path)
}

#[test]
fn a_passage_is_found_and_a_prompt_about_it_answered() {
    let device = Device::from_env().unwrap().resolve().unwrap();
    let folder = fixture("sentence/base");
    let encoder = load_encoder(&Checkpoint::open(&folder).unwrap(), &device).unwrap();
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let encoder = SentenceEncoder::new(encoder, tokenizer, Pooling::new([PoolingMode::Mean])).unwrap();
    let embedder: &dyn Embedder = &encoder;
    let model = Pretrained::load(fixture("llama/gguf/model.gguf"), &device).unwrap();
    let engine = Engine::start(model, EngineConfig::new("tiny")).unwrap();
    let model: &dyn LanguageModel = &engine;
    let prompt = ChatPrompt::new(
        "ask",
        [(Role::System, "Answer from this passage: {{ passage }}"), (Role::User, "{{ question }}")],
        ["passage", "question"],
    )
    .unwrap();

    pollster::block_on(async {
        let text = "A tureen is a deep dish for soup. A ladle serves from it. Harbors shelter ships.";
        let mut collection = Collection::new(embedder, Metric::Cosine);
        collection.add(embedder, &SentenceSplitter::new(40), Document::new("words", text)).await.unwrap();
        let question = "A ladle serves from it.";
        let passages = collection.retrieve(embedder, question, 1).await.unwrap();
        assert_eq!(passages[0].text.trim(), question);

        let values = HashMap::from([("passage", passages[0].text), ("question", question)]);
        let messages = prompt.render(values).unwrap();
        let request = ChatRequest { max_tokens: Some(8), ..ChatRequest::new(messages) };
        let response = model.chat(request).await.unwrap();
        assert_eq!(response.message.role, Role::Assistant);
        assert!((1..=8).contains(&response.usage.completion_tokens), "{:?}", response.usage);
    });
}
