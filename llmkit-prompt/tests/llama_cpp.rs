//! The client against llama.cpp's server. Run by `scripts/check_llama_cpp_server.sh`, which starts it.
#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use futures_util::StreamExt;
use llmkit_core::{
    ChatEvent, ChatRequest, Embedder, FinishReason, LanguageModel, Message, ResponseFormat, ToolChoice,
    ToolDefinition,
};
use llmkit_prompt::cache::Cached;
use llmkit_prompt::remote::{OpenAi, OpenAiEmbedder, Provider};
use pollster::block_on;
use serde_json::{Value, json};

fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} holds the server's address"))
}

fn model() -> OpenAi {
    OpenAi::new(&address("LLMKIT_LLAMA_CPP"), "local").unwrap().with_provider(Provider::LlamaCpp)
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest {
        max_tokens: Some(40),
        temperature: Some(0.0),
        seed: Some(1),
        ..ChatRequest::new(vec![Message::user(text)])
    }
}

#[test]
#[ignore = "needs llama.cpp's server: scripts/check_llama_cpp_server.sh"]
fn it_answers_whole_and_in_pieces_alike() {
    let model = model();
    let whole = block_on(model.chat(ask("What is the capital of France?"))).unwrap();
    // What a small model says is its own; that it is about the question shows that it was read.
    assert!(whole.message.content.contains("France"), "{}", whole.message.content);
    assert!(whole.usage.prompt_tokens > 5 && whole.usage.completion_tokens > 2, "{:?}", whole.usage);
    let (text, pieces, done) = block_on(async {
        let mut stream = model.chat_stream(ask("What is the capital of France?")).await.unwrap();
        let (mut text, mut pieces, mut done) = (String::new(), 0, None);
        while let Some(event) = stream.next().await {
            match event.unwrap() {
                ChatEvent::Text(piece) => (text += &piece, pieces += 1).0,
                ChatEvent::Done(response) => done = Some(response),
                other => panic!("{other:?}"),
            }
        }
        (text, pieces, done.expect("the last event"))
    });
    assert_eq!(text, whole.message.content);
    assert_eq!((&done.message, done.finish_reason), (&whole.message, whole.finish_reason));
    assert!(pieces > 3, "{pieces} pieces");
    let short =
        block_on(model.chat(ChatRequest { max_tokens: Some(3), ..ask("Count to a hundred.") })).unwrap();
    assert_eq!(short.finish_reason, FinishReason::Length);
    println!("chat: {} in {pieces} pieces, {:?}", whole.message.content, whole.usage);
}

#[test]
#[ignore = "needs llama.cpp's server: scripts/check_llama_cpp_server.sh"]
fn it_holds_answers_to_a_schema() {
    let schema = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
        "required": ["city", "population"],
    });
    let format = ResponseFormat::JsonSchema { name: "city".to_owned(), schema };
    let request =
        ChatRequest { response_format: format, max_tokens: Some(60), ..ask("Tell me about Paris.") };
    let answer = block_on(model().chat(request)).unwrap();
    let value: Value = serde_json::from_str(&answer.message.content).unwrap();
    assert!(value["city"].is_string() && value["population"].is_i64(), "{value}");
    println!("schema: {value}");
}

#[test]
#[ignore = "needs llama.cpp's server: scripts/check_llama_cpp_server.sh"]
fn it_calls_the_tool_that_it_is_told_to() {
    let parameters =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let request = ChatRequest {
        tools: vec![ToolDefinition::new("weather", "The weather in a city", parameters)],
        tool_choice: ToolChoice::Tool("weather".to_owned()),
        ..ask("What is the weather in Paris?")
    };
    let answer = block_on(model().chat(request)).unwrap();
    assert_eq!(answer.finish_reason, FinishReason::ToolCalls);
    let call = &answer.message.tool_calls[0];
    assert_eq!(call.name, "weather");
    assert!(call.arguments["city"].is_string(), "{call:?}");
    println!("tool: {call:?}");
}

#[test]
#[ignore = "needs llama.cpp's server: scripts/check_llama_cpp_server.sh"]
fn embeddings_are_vectors_of_texts_or_a_clear_error() {
    let url = address("LLMKIT_LLAMA_CPP_EMBEDDINGS");
    let texts = ["a deep dish", "a shallow dish", "a deep dish"].map(str::to_owned);
    // A model made for embeddings, by its dimensions. Any other gives a vector for each token, which is no vector of a text.
    let Ok(dimensions) = std::env::var("LLMKIT_LLAMA_CPP_DIMENSIONS") else {
        let embedder = OpenAiEmbedder::new(&url, "local", 576).unwrap();
        let error = block_on(embedder.embed(&texts)).unwrap_err().to_string();
        assert!(error.contains("a vector for each token"), "{error}");
        println!("embeddings: {error}");
        return;
    };
    let embedder = OpenAiEmbedder::new(&url, "local", dimensions.parse().unwrap()).unwrap().with_batch(2);
    let vectors = block_on(embedder.embed(&texts)).unwrap();
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    assert!(distance(&vectors[0], &vectors[1]) > 10.0 * distance(&vectors[0], &vectors[2]));
    println!("embeddings: {dimensions} dimensions, {} apart", distance(&vectors[0], &vectors[1]));
}

#[test]
#[ignore = "needs llama.cpp's server: scripts/check_llama_cpp_server.sh"]
fn what_is_remembered_is_not_asked_again() {
    let model = Cached::new(model());
    let timed = || {
        let start = Instant::now();
        (block_on(model.chat(ask("What is the capital of Italy?"))).unwrap().message, start.elapsed())
    };
    let ((first, asked), (second, remembered)) = (timed(), timed());
    assert_eq!(first, second);
    assert!(remembered * 10 < asked, "{asked:?}, then {remembered:?}");
    println!("cache: {asked:?}, then {remembered:?}");
}

#[test]
#[ignore = "needs llama.cpp's server: scripts/check_llama_cpp_server.sh"]
fn its_refusals_are_clear() {
    let long = "word ".repeat(3000);
    let error = block_on(model().chat(ask(&long))).unwrap_err().to_string();
    assert!(error.contains("context") && error.contains("shorten"), "{error}");
    println!("refusal: {error}");
}
