//! The client against a local server that misbehaves in every way that servers do. Each test has a time limit: nothing may hang.
#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use llmkit_core::{
    ChatEvent, ChatRequest, ChatResponse, Embedder, Error, FinishReason, LanguageModel, Message,
    ResponseFormat, ToolDefinition, Usage,
};
use llmkit_prompt::remote::{OpenAi, OpenAiEmbedder, Provider, RateLimit, Retries, Timeouts};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const WHOLE: &str = r#"{"choices": [{"message": {"role": "assistant", "content": "Grüß dich 🦀"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}"#;

const STREAM: &str = concat!(
    ": hello\n\n",
    "data: {\"choices\": [{\"index\": 0, \"delta\": {\"role\": \"assistant\", \"content\": \"\"}}]}\r\n\r\n",
    "data: {\"choices\": [{\"index\": 0, \"delta\": {\"reasoning_content\": \"hm\"}}]}\n\n",
    "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"Grüß \"}}]}\n\n",
    "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"dich 🦀\"}}]}\n\n",
    "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}]}\n\n",
    "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 7, \"completion_tokens\": 3}}\n\n",
    "data: [DONE]\n\n",
);

/// What the server saw.
#[derive(Default)]
struct Seen {
    headers: HeaderMap,
    body: Value,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// A server that gives `answer(n)` to its request number `n`, from 0.
async fn serve<F>(answer: impl Fn(usize) -> F + Clone + Send + Sync + 'static) -> (String, Log)
where
    F: Future<Output = Response> + Send,
{
    let log = Log::default();
    let (seen, count) = (log.clone(), Arc::new(AtomicUsize::new(0)));
    let app = Router::new().fallback(move |request: Request| {
        let (answer, seen, count) = (answer.clone(), seen.clone(), count.clone());
        async move {
            let headers = request.headers().clone();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap();
            seen.lock().unwrap().push(Seen { headers, body });
            answer(count.fetch_add(1, Ordering::SeqCst)).await
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (format!("http://{address}/v1"), log)
}

fn typed(kind: &str, body: impl Into<Body>) -> Response {
    ([("content-type", kind.to_owned())], body.into()).into_response()
}

fn whole() -> Response {
    typed("application/json", WHOLE)
}

fn sse(body: impl Into<Body>) -> Response {
    typed("text/event-stream; charset=utf-8", body)
}

/// A body that sends these pieces, each as a piece of its own, and then does as `end` says.
fn pieces(pieces: Vec<Vec<u8>>, end: End) -> Body {
    let sent = stream::iter(pieces).then(|piece| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok::<_, std::io::Error>(Bytes::from(piece))
    });
    match end {
        End::Whole => Body::from_stream(sent),
        End::Cut => Body::from_stream(sent.chain(stream::once(async {
            // What was sent is to arrive before the connection breaks.
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(std::io::Error::other("cut"))
        }))),
        End::Hang => Body::from_stream(sent.chain(stream::pending())),
    }
}

enum End {
    Whole,
    Cut,
    Hang,
}

fn ask() -> ChatRequest {
    ChatRequest::new(vec![Message::user("Hello")])
}

/// A client that is quick to try again and to give up.
fn client(url: &str) -> OpenAi {
    let timeouts = Timeouts::default()
        .with_first_byte(Duration::from_millis(1500))
        .with_idle(Duration::from_millis(400))
        .with_total(Duration::from_secs(6));
    OpenAi::new(url, "m")
        .unwrap()
        .with_timeouts(timeouts)
        .with_retries(Retries::default().with_base(Duration::from_millis(5)))
}

async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it hangs")
}

/// All events of a stream, and its error if it ends with one.
async fn read(model: &OpenAi) -> (Vec<ChatEvent>, Option<Error>) {
    let mut events = Vec::new();
    match model.chat_stream(ask()).await {
        Err(error) => return (events, Some(error)),
        Ok(mut stream) => {
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => events.push(event),
                    Err(error) => {
                        assert!(stream.next().await.is_none(), "nothing comes after an error");
                        return (events, Some(error));
                    }
                }
            }
        }
    }
    (events, None)
}

fn expected() -> ChatResponse {
    ChatResponse {
        message: Message::assistant("Grüß dich 🦀"),
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 7, completion_tokens: 3, cached_tokens: 0 },
    }
}

fn parts(error: &Error) -> (String, Option<u16>, Option<Duration>) {
    match error {
        Error::Remote { reason, status, retry_after, .. } => (reason.clone(), *status, *retry_after),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_comes_whole_or_in_pieces_wherever_they_are_cut() {
    bounded(async {
        let (url, log) = serve(|_| async { whole() }).await;
        assert_eq!(client(&url).with_api_key("sk-123456").chat(ask()).await.unwrap(), expected());
        {
            let log = log.lock().unwrap();
            assert_eq!(log[0].headers["authorization"], "Bearer sk-123456");
            assert_eq!(
                log[0].body,
                json!({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
            );
        }
        // Pieces of three bytes cut every character of more in half.
        for size in [1, 3, 50, 10_000] {
            let (url, log) = serve(move |_| async move {
                sse(pieces(STREAM.as_bytes().chunks(size).map(<[u8]>::to_vec).collect(), End::Whole))
            })
            .await;
            let (events, error) = read(&client(&url)).await;
            assert!(error.is_none(), "{error:?}");
            let text = |text: &str| ChatEvent::Text(text.to_owned());
            let mut done = expected();
            done.message.reasoning = Some("hm".to_owned());
            let all = [
                ChatEvent::Reasoning("hm".to_owned()),
                text("Grüß "),
                text("dich 🦀"),
                ChatEvent::Done(done),
            ];
            assert_eq!(events, all, "pieces of {size}");
            assert_eq!(log.lock().unwrap()[0].body["stream"], true);
        }
    })
    .await;
}

#[test]
fn it_works_without_any_runtime() {
    let (url, _log) = {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async move {
                sender.send(serve(|_| async { whole() }).await).unwrap();
                tokio::time::sleep(Duration::from_secs(30)).await;
            });
        });
        receiver.recv().unwrap()
    };
    assert_eq!(pollster::block_on(client(&url).chat(ask())).unwrap(), expected());
}

#[tokio::test]
async fn a_stream_that_is_cut_says_how_much_had_come_and_is_not_begun_again() {
    bounded(async {
        let half: Vec<u8> = STREAM.as_bytes()[..STREAM.find("dich").unwrap()].to_vec();
        for (end, words) in
            [(0, "connection broke"), (1, "ended the stream"), (2, "has sent nothing for 400ms")]
        {
            let half = half.clone();
            let (url, log) = serve(move |_| {
                let end = [End::Cut, End::Whole, End::Hang].into_iter().nth(end).unwrap();
                let half = half.clone();
                async move { sse(pieces(vec![half], end)) }
            })
            .await;
            let (events, error) = read(&client(&url)).await;
            let (reason, ..) = parts(&error.unwrap());
            assert!(reason.contains("cut off after 5 characters") && reason.contains(words), "{reason}");
            assert_eq!(events.last(), Some(&ChatEvent::Text("Grüß ".to_owned())));
            assert_eq!(log.lock().unwrap().len(), 1);
        }
        // Before anything has been handed over, it is.
        let (url, log) = serve(|n| async move {
            if n == 0 { sse(pieces(vec![b": x\n".to_vec()], End::Cut)) } else { sse(STREAM) }
        })
        .await;
        let (events, error) = read(&client(&url)).await;
        assert!(error.is_none() && events.len() == 4, "{error:?}");
        assert_eq!(log.lock().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_the_servers_pause_is_kept() {
    bounded(async {
        let (url, log) = serve(|n| async move {
            match n {
                0 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "slow").into_response(),
                1 => (StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response(),
                _ => whole(),
            }
        })
        .await;
        let start = Instant::now();
        assert_eq!(client(&url).chat(ask()).await.unwrap(), expected());
        assert!(start.elapsed() >= Duration::from_secs(1));
        let log = log.lock().unwrap();
        assert_eq!(log.len(), 3);
        let keys: Vec<_> = log.iter().map(|seen| &seen.headers["idempotency-key"]).collect();
        assert!(keys.iter().all(|key| *key == keys[0]), "all attempts are one request: {keys:?}");
    })
    .await;
}

#[tokio::test]
async fn what_will_not_pass_is_an_error_that_says_what_to_do() {
    bounded(async {
        let refuse = |status: u16, body: &'static str| async move {
            let (url, log) = serve(move |_| async move {
                (StatusCode::from_u16(status).unwrap(), [("retry-after", "900")], body).into_response()
            })
            .await;
            let error = client(&url).chat(ask()).await.unwrap_err();
            let requests = log.lock().unwrap().len();
            assert_eq!(requests, 1, "{error}");
            parts(&error)
        };
        let (reason, status, _) = refuse(401, r#"{"error": {"message": "who are you?"}}"#).await;
        assert!(reason.contains("who are you?") && reason.contains("with_api_key"), "{reason}");
        assert_eq!(status, Some(401));
        let (reason, ..) =
            refuse(400, r#"{"error": {"message": "too long", "code": "context_length_exceeded"}}"#).await;
        assert!(reason.contains("longer than the model's context"), "{reason}");
        assert!(refuse(404, "").await.0.contains("base URL"));
        // A server that wants to be left alone for a quarter of an hour.
        let (reason, status, after) = refuse(429, r#"{"error": {"message": "slow down"}}"#).await;
        assert!(reason.contains("with_rate_limit"), "{reason}");
        assert_eq!((status, after), (Some(429), Some(Duration::from_secs(900))));
        let (url, log) = serve(|_| async { StatusCode::BAD_GATEWAY.into_response() }).await;
        let error = client(&url).chat(ask()).await.unwrap_err();
        assert!(
            error.to_string().contains("HTTP status 502") && error.to_string().contains("(3 attempts)"),
            "{error}"
        );
        assert_eq!(log.lock().unwrap().len(), 3);
        // Nobody listens.
        let error = client("http://127.0.0.1:9/v1").chat(ask()).await.unwrap_err();
        assert!(error.to_string().contains("cannot connect"), "{error}");
        assert!(error.source().is_some());
    })
    .await;
}

#[tokio::test]
async fn nonsense_is_a_clear_error_and_never_a_hang() {
    bounded(async {
        let event = |data: &str| format!("data: {data}\n\n").into_bytes();
        let first = event(r#"{"choices": [{"delta": {"content": "Hi"}}]}"#);
        let streams: Vec<(Vec<Vec<u8>>, &str)> = vec![
            (
                vec![first.clone(), event("{oops")],
                "after 2 characters of text, the stream holds an event that is not JSON",
            ),
            (vec![first.clone(), b"data: \xff\xfe\n\n".to_vec()], "not UTF-8"),
            (vec![first.clone(), event(r#"{"error": {"message": "overloaded"}}"#)], "overloaded"),
            (vec![first.clone(), event("[1]")], "no `choices`"),
            (vec![event("[DONE]")], "no choices"),
        ];
        for (body, words) in streams {
            let (url, _) = serve(move |_| {
                let body = body.clone();
                async move { sse(pieces(body, End::Whole)) }
            })
            .await;
            let error = read(&client(&url)).await.1.expect(words);
            assert!(error.to_string().contains(words), "{error}");
        }
        let wholes: Vec<(&str, Vec<u8>, &str)> = vec![
            ("text/html", b"<html>It works!</html>".to_vec(), "`text/html`, expected `application/json`"),
            ("application/json", b"{\"choices\": [".to_vec(), "not JSON"),
            ("application/json", b"\xff\xfe".to_vec(), "not JSON"),
            ("application/json", vec![b'['; 100_000], "not JSON"),
            ("application/json", vec![b' '; 300_000], "longer than 200000 bytes"),
            ("application/json", b"{\"choices\": []}".to_vec(), "no choices"),
        ];
        for (kind, body, words) in wholes {
            let (url, _) = serve(move |_| {
                let body = body.clone();
                async move { typed(kind, body) }
            })
            .await;
            let error = client(&url).with_max_body_bytes(200_000).chat(ask()).await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.to_string().chars().count() < 1000);
        }
    })
    .await;
}

#[tokio::test]
async fn slow_and_endless_answers_end() {
    bounded(async {
        let endless = |piece: &'static [u8], pause: u64| {
            let ticks = stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok::<_, Infallible>(Bytes::from_static(piece))
            });
            sse(Body::from_stream(ticks))
        };
        // Signs of life without end meet the limit of the whole.
        let (url, _) = serve(move |_| async move { endless(b": alive\n\n", 50) }).await;
        let quick = Timeouts::default().with_total(Duration::from_millis(700));
        let error = read(&client(&url).with_timeouts(quick)).await.1.unwrap();
        assert!(error.to_string().contains("not done within 700ms"), "{error}");
        // Text without end meets the limit of bytes.
        let text = b"data: {\"choices\": [{\"delta\": {\"content\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}}]}\n\n";
        let (url, _) = serve(move |_| async move { endless(text, 0) }).await;
        let (events, error) = read(&client(&url).with_max_body_bytes(5000)).await;
        assert!(events.len() > 10 && error.unwrap().to_string().contains("longer than 5000 bytes"));
        // A line without end meets it too.
        let (url, _) = serve(move |_| async move { endless(&[b'x'; 1000], 0) }).await;
        let error = read(&client(&url).with_max_body_bytes(50_000)).await.1.unwrap();
        assert!(error.to_string().contains("longer than 50000 bytes"), "{error}");
        // No head, and a body that dawdles.
        let (url, log) = serve(|_| async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            whole()
        })
        .await;
        let error = client(&url).chat(ask()).await.unwrap_err();
        assert!(error.to_string().contains("within 1.5s: raise `Timeouts::first_byte`"), "{error}");
        assert_eq!(log.lock().unwrap().len(), 1, "what may still be worked on is not asked again");
        let (url, _) = serve(|_| async { typed("application/json", pieces(vec![b"{".to_vec()], End::Hang)) }).await;
        let error = client(&url).chat(ask()).await.unwrap_err();
        assert!(error.to_string().contains("raise `Timeouts::idle`"), "{error}");
    })
    .await;
}

/// Tells when it is dropped.
struct Tell(Option<oneshot::Sender<()>>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[tokio::test]
async fn dropping_an_answer_closes_its_connection() {
    bounded(async {
        let gone = Arc::new(Mutex::new(None));
        let place = gone.clone();
        let (url, log) = serve(move |_| {
            let (sender, receiver) = oneshot::channel();
            *place.lock().unwrap() = Some(receiver);
            let tell = Tell(Some(sender));
            async move {
                let ticks = stream::repeat(tell.0.is_some()).then(|_| async {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let text = "data: {\"choices\": [{\"delta\": {\"content\": \"x\"}}]}\n\n";
                    Ok::<_, Infallible>(Bytes::from_static(text.as_bytes()))
                });
                // The body owns `tell`, so it is dropped with it.
                let ticks = ticks.inspect(move |_| assert!(tell.0.is_some()));
                sse(Body::from_stream(ticks))
            }
        })
        .await;
        let mut stream = client(&url).chat_stream(ask()).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok());
        drop(stream);
        let receiver = gone.lock().unwrap().take().unwrap();
        receiver.await.expect("the server saw the connection close");
        // The same for a whole answer that is still being read.
        let model = client(&url);
        let chat = tokio::time::timeout(Duration::from_millis(200), model.chat(ask()));
        let _ = chat.await;
        while log.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let receiver = gone.lock().unwrap().take().unwrap();
        receiver.await.expect("the server saw the connection close");
    })
    .await;
}

#[tokio::test]
async fn no_secret_comes_back_out() {
    bounded(async {
        let (key, header) = ("sk-very/secret\"key", "another-secret");
        let echoes: Vec<Response> = vec![
            (StatusCode::UNAUTHORIZED, format!("bad key: {key} and {header}")).into_response(),
            (
                StatusCode::UNAUTHORIZED,
                json!({"error": {"message": format!("bad key: Bearer {key}")}}).to_string(),
            )
                .into_response(),
            typed("text/html", format!("<p>{key}{header}</p>")),
            typed("application/json", format!("{{\"a\": \"{header}\" {key}")),
            typed("application/json", json!({"you sent": key}).to_string()),
            sse(format!("data: {{{key} {header}\n\n")),
        ];
        let count = echoes.len();
        let echoes = Arc::new(Mutex::new(echoes));
        let (url, _) = serve(move |_| {
            let echo = echoes.lock().unwrap().remove(0);
            async move { echo }
        })
        .await;
        let model = client(&url).with_api_key(key).with_header("x-key", header);
        let mut said = vec![format!("{model:?}"), format!("{model:#?}")];
        for number in 0..count {
            let error = match number + 1 == count {
                false => model.chat(ask()).await.unwrap_err(),
                true => read(&model).await.1.unwrap(),
            };
            said.extend([error.to_string(), format!("{error:?}")]);
        }
        for text in said {
            assert!(!text.contains("secret"), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_more_requests_run_at_once_than_allowed() {
    bounded(async {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = most.clone();
        let (url, log) = serve(move |_| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                whole()
            }
        })
        .await;
        let model = client(&url).with_rate_limit(RateLimit::default().with_concurrent(3));
        let answers = join_all((0..20).map(|_| model.chat(ask()))).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!((log.lock().unwrap().len(), seen.load(Ordering::SeqCst)), (20, 3));
        // Two a minute: the third is still waiting when its time is up.
        let limit = RateLimit::default().with_requests_per_minute(2);
        let model = client(&url)
            .with_rate_limit(limit)
            .with_timeouts(Timeouts::default().with_total(Duration::from_millis(300)));
        let answers = join_all((0..3).map(|_| model.chat(ask()))).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
        assert_eq!(log.lock().unwrap().len(), 22);
    })
    .await;
}

#[tokio::test]
async fn embeddings_keep_the_order_of_their_texts() {
    bounded(async {
        // The vector of a text is its length, in whatever order and encoding.
        let log = Log::default();
        let app = Router::new().fallback({
            let log = log.clone();
            move |headers: HeaderMap, body: Bytes| async move {
                let body: Value = serde_json::from_slice(&body).unwrap();
                let vector = |text: &Value| json!([text.as_str().unwrap().len(), 1]);
                let texts = body["input"].as_array().unwrap().iter().enumerate();
                let mut data: Vec<Value> =
                    texts.map(|(i, text)| json!({"index": i, "embedding": vector(text)})).collect();
                data.reverse();
                log.lock().unwrap().push(Seen { headers, body });
                typed("application/json", json!({"data": data}).to_string())
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let embedder = OpenAiEmbedder::new(&url, "m", 2).unwrap().with_batch(3);
        let texts: Vec<String> = (0..10).map(|n| "x".repeat(n)).collect();
        let vectors = embedder.embed(&texts).await.unwrap();
        assert_eq!(vectors, (0..10).map(|n| vec![n as f32, 1.0]).collect::<Vec<_>>());
        assert_eq!(log.lock().unwrap().len(), 4);
        assert!(embedder.embed(&[]).await.unwrap().is_empty());
        let error = OpenAiEmbedder::new(&url, "m", 3).unwrap().embed(&texts).await.unwrap_err();
        assert!(error.to_string().contains("expected vectors of 3 dimensions, found 2"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn what_a_server_would_ignore_is_refused_before_it_is_asked() {
    bounded(async {
        let (url, log) = serve(|_| async { whole() }).await;
        let tool = ToolDefinition::new("f", "", json!({"type": "object"}));
        let with_tools = ChatRequest { tools: vec![tool], ..ask() };
        let schema = ResponseFormat::JsonSchema { name: "s".to_owned(), schema: json!({"type": "object"}) };
        let with_schema = ChatRequest { response_format: schema, ..ask() };
        let with_adapter = ChatRequest { adapter: Some("cooking".to_owned()), ..ask() };
        for request in [&with_tools, &with_schema, &with_adapter] {
            let error = client(&url).chat(request.clone()).await.unwrap_err();
            assert!(matches!(error, Error::Generation { .. }), "{error}");
        }
        assert!(client(&url).with_provider(Provider::DeepSeek).chat(with_schema.clone()).await.is_err());
        assert!(log.lock().unwrap().is_empty());
        let vllm = client(&url).with_provider(Provider::Vllm);
        for request in [with_tools, with_schema, with_adapter.clone()] {
            vllm.chat(request).await.unwrap();
        }
        client(&url).with_adapter("cooking", "m-cooking").chat(with_adapter).await.unwrap();
        let log = log.lock().unwrap();
        assert_eq!((&log[2].body["model"], &log[3].body["model"]), (&json!("cooking"), &json!("m-cooking")));
    })
    .await;
}

/// Random numbers without a dependency (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    /// `bytes` with up to eight bytes changed, removed, doubled or put in.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(8) {
            let place = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[place] = self.below(256) as u8,
                1 => bytes[place] ^= 1 << self.below(8),
                2 => drop(bytes.drain(place..(place + self.below(40)).min(bytes.len()))),
                3 => bytes.insert(place, b"{}[]\",:\n\r\0"[self.below(10)]),
                4 => bytes.truncate(place.max(1)),
                _ => {
                    let piece = bytes[place..(place + 20).min(bytes.len())].to_vec();
                    bytes.splice(place..place, piece);
                }
            }
            if bytes.is_empty() {
                bytes.push(b' ');
            }
        }
        bytes
    }
}

#[tokio::test]
async fn damaged_answers_over_a_socket_end_in_an_answer_or_an_error() {
    bounded(async {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let damaged: Vec<Vec<u8>> = (0..400)
            .map(|n| random.damage(if n % 2 == 0 { WHOLE.as_bytes() } else { STREAM.as_bytes() }))
            .collect();
        let bodies = Arc::new(damaged);
        let (url, _) = serve(move |n| {
            let body = bodies[n].clone();
            async move { if n % 2 == 0 { typed("application/json", body) } else { sse(body) } }
        })
        .await;
        let model = client(&url).with_retries(Retries::never());
        let (mut answers, mut errors) = (0, 0);
        for n in 0..400 {
            let failed =
                if n % 2 == 0 { model.chat(ask()).await.is_err() } else { read(&model).await.1.is_some() };
            *if failed { &mut errors } else { &mut answers } += 1;
        }
        assert!(answers > 20 && errors > 100, "{answers} answers and {errors} errors");
    })
    .await;
}
