//! Answers that are handed over as they come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use llmkit_core::{ChatEvent, ChatStream, Result};
use serde_json::Value;
use tokio::sync::mpsc;

use super::answer::{Answer, reported};
use super::endpoint::{Call, Endpoint, Opened, content_type};
use super::failure::{Failure, QUOTE};
use super::runtime::{self, Task};
use super::secrets::Secrets;
use super::sse::{Broken, Event, Parser};

/// How many events wait for a reader before the connection is no longer read.
const WAITING: usize = 64;

/// An answer that is on its way. Dropping it aborts the task that reads it.
struct Incoming {
    events: mpsc::Receiver<Result<ChatEvent, Failure>>,
    model: String,
    over: bool,
    _task: Task<()>,
}

/// Sends `call` and hands over its answer. Waits for the first event, so that a refusal is an error here and not out of the stream.
pub(super) async fn start(endpoint: Arc<Endpoint>, call: Call, model: String) -> Result<ChatStream> {
    let (sender, mut events) = mpsc::channel(WAITING);
    let work = async move {
        if let Err(failure) = endpoint.in_time(hand_over(&endpoint, &call, &sender)).await {
            // Nobody listens when the stream has been dropped.
            let _ = sender.send(Err(failure)).await;
        }
    };
    let task = runtime::spawn(work).map_err(|failure| failure.about(&model))?;
    let first = match events.recv().await {
        Some(Ok(event)) => event,
        Some(Err(failure)) => return Err(failure.about(&model)),
        None => return Err(ended().about(&model)),
    };
    let over = matches!(first, ChatEvent::Done(_));
    let rest = Incoming { events, model, over, _task: task };
    Ok(Box::pin(First { first: Some(first), rest }))
}

/// The event that has been waited for, then the rest.
struct First {
    first: Option<ChatEvent>,
    rest: Incoming,
}

impl Stream for First {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.first.take() {
            return Poll::Ready(Some(Ok(event)));
        }
        let rest = &mut self.rest;
        if rest.over {
            return Poll::Ready(None);
        }
        let next = match rest.events.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(next) => next.unwrap_or_else(|| Err(ended())),
        };
        rest.over = !matches!(next, Ok(ChatEvent::Text(_) | ChatEvent::Reasoning(_)));
        Poll::Ready(Some(next.map_err(|failure| failure.about(&rest.model))))
    }
}

/// The task ends without a last event only when its thread does.
fn ended() -> Failure {
    Failure::new("the client's thread has ended")
}

type Sender = mpsc::Sender<Result<ChatEvent, Failure>>;

async fn hand_over(endpoint: &Endpoint, call: &Call, sender: &Sender) -> Result<(), Failure> {
    let mut attempts = endpoint.attempts();
    loop {
        let mut handed_over = false;
        match attempt(endpoint, call, sender, &mut handed_over).await {
            Ok(()) => return Ok(()),
            // What the reader has, it has: the answer cannot begin again.
            Err(failure) if handed_over => return Err(failure),
            Err(failure) => attempts.after(failure).await?,
        }
    }
}

async fn attempt(
    endpoint: &Endpoint,
    call: &Call,
    sender: &Sender,
    handed_over: &mut bool,
) -> Result<(), Failure> {
    let Opened { mut response, pass } = endpoint.open(call).await?;
    let mut reader = Reader::new(endpoint.secrets());
    match content_type(&response).as_str() {
        "text/event-stream" | "" => {
            let mut read = 0;
            while !reader.done {
                let piece =
                    endpoint.piece(&mut response, read).await.map_err(|failure| reader.cut(failure))?;
                let mut events = Vec::new();
                let (result, ended) = match piece {
                    Some(piece) => {
                        read += piece.len();
                        (reader.push(&piece, &mut events), false)
                    }
                    None => (reader.end(&mut events), true),
                };
                // What came before a fault is the reader's.
                for event in events {
                    *handed_over = true;
                    if sender.send(Ok(event)).await.is_err() {
                        return Ok(());
                    }
                }
                result?;
                if ended {
                    break;
                }
            }
        }
        // A server that does not stream, or that refuses with a success.
        "application/json" => {
            for event in reader.answer.add(&endpoint.json(response).await?, endpoint.secrets())? {
                *handed_over = true;
                let _ = sender.send(Ok(event)).await;
            }
        }
        other => return Err(endpoint.wrong_type(response, other, "text/event-stream").await),
    }
    let response = reader.answer.finish()?;
    pass.took(response.usage);
    let _ = sender.send(Ok(ChatEvent::Done(response))).await;
    Ok(())
}

/// Turns the bytes of an event stream into events of an answer.
pub(super) struct Reader<'a> {
    parser: Parser,
    pub(super) answer: Answer,
    secrets: &'a Secrets,
    /// Whether the server has said that nothing more comes.
    pub(super) done: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(secrets: &'a Secrets) -> Self {
        Self { parser: Parser::default(), answer: Answer::default(), secrets, done: false }
    }

    /// Reads more of the stream and adds what it says to `events`, up to a fault.
    pub(super) fn push(&mut self, bytes: &[u8], events: &mut Vec<ChatEvent>) -> Result<(), Failure> {
        let mut read = Vec::new();
        let result = self.parser.push(bytes, &mut read);
        for event in read {
            events.extend(self.event(event)?);
            if self.done {
                return Ok(());
            }
        }
        result.map_err(|broken| self.broken(broken))
    }

    /// The stream has ended; adds what its last event says to `events`.
    pub(super) fn end(&mut self, events: &mut Vec<ChatEvent>) -> Result<(), Failure> {
        match std::mem::take(&mut self.parser).finish() {
            Ok(Some(event)) if event.data.trim() == "[DONE]" => self.done = true,
            // The end of an event that is cut off is no JSON, and that the stream is cut off says more.
            Ok(Some(event)) => {
                if let Ok(value) = serde_json::from_str::<Value>(&event.data) {
                    events.extend(self.answer.add(&value, self.secrets)?);
                }
            }
            Ok(None) => {}
            Err(broken) => return Err(self.broken(broken)),
        }
        // Some servers leave the last line out.
        if self.done || self.answer.is_finished() {
            return Ok(());
        }
        Err(self.cut(Failure::new("the server ended the stream").transient()))
    }

    fn event(&mut self, event: Event) -> Result<Vec<ChatEvent>, Failure> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.done = true;
            return Ok(Vec::new());
        }
        if data.is_empty() {
            return Ok(Vec::new());
        }
        let value: Value = serde_json::from_str(data).map_err(|error| {
            let words = self.secrets.quote(data, QUOTE);
            Failure::new(format!(
                "after {}, the stream holds an event that is not JSON ({error}): {words}",
                self.answer.so_far()
            ))
        })?;
        if event.name == "error" && value.get("error").is_none() {
            return Err(reported(&value, self.secrets));
        }
        self.answer.add(&value, self.secrets)
    }

    /// A failure to read on, with how much had come.
    fn cut(&self, failure: Failure) -> Failure {
        let reason = format!("the answer was cut off after {}: {}", self.answer.so_far(), failure.reason);
        Failure { reason, ..failure }
    }

    fn broken(&self, broken: Broken) -> Failure {
        let what = match broken {
            Broken::TooLong => "an event that is too long",
            Broken::NotUtf8 => "text that is not UTF-8",
        };
        Failure::new(format!("after {}, the stream holds {what}", self.answer.so_far()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rand::{RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use serde_json::json;

    use super::*;
    use crate::remote::embedder::read_vectors;

    fn damage(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=random.next_u32() % 3 {
            let place = random.next_u32() as usize % bytes.len().max(1);
            let length = (random.next_u32() as usize % 30).min(bytes.len() - place);
            match random.next_u32() % 4 {
                0 => drop(bytes.drain(place..place + length)),
                1 => bytes.insert(place, random.next_u32() as u8),
                2 => bytes.insert(place, b"{}[]\",:\n\r0"[random.next_u32() as usize % 10]),
                _ => {
                    let piece = bytes[place..place + length].to_vec();
                    bytes.splice(place..place, piece);
                }
            }
        }
        bytes
    }

    #[test]
    fn ten_thousand_damaged_answers_end_in_an_answer_or_an_error() {
        let call = |piece: Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]});
        let stream: String = [
            json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Gr\u{fc}\u{df}", "reasoning": "hm"}}]}),
            call(json!({"index": 0, "id": "a", "function": {"name": "add", "arguments": "{\"x\": "}})),
            call(json!({"index": 0, "function": {"arguments": "1}"}})),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 7}}),
        ]
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .chain(["data: [DONE]\n\n".to_owned()])
        .collect();
        let whole = json!({"choices": [{"message": {"content": [{"type": "text", "text": "Hi"}], "refusal": null}, "finish_reason": "stop"}]}).to_string();
        let vectors =
            json!({"data": [{"index": 1, "embedding": [1, 2]}, {"index": 0, "embedding": "AACAPwAAAMA="}]})
                .to_string();

        let secrets = Secrets::default();
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let (mut good, mut bad) = (0, 0);
        let mut slowest = Duration::ZERO;
        for number in 0..10_000 {
            let start = Instant::now();
            let result = match number % 3 {
                0 => {
                    let bytes = damage(stream.as_bytes(), &mut random);
                    let mut reader = Reader::new(&secrets);
                    let mut events = Vec::new();
                    let size = 1 + random.next_u32() as usize % 40;
                    let pushed = bytes.chunks(size).try_for_each(|piece| reader.push(piece, &mut events));
                    pushed
                        .and_then(|()| reader.end(&mut events))
                        .and_then(|()| reader.answer.finish())
                        .map(|_| ())
                }
                1 => serde_json::from_slice(&damage(whole.as_bytes(), &mut random))
                    .map_err(|_| Failure::new("not JSON"))
                    .and_then(|value| {
                        let mut answer = Answer::default();
                        answer.add_whole(&value, &secrets)?;
                        answer.finish().map(|_| ())
                    }),
                _ => serde_json::from_slice(&damage(vectors.as_bytes(), &mut random))
                    .map_err(|_| Failure::new("not JSON"))
                    .and_then(|value| read_vectors(&value, 2, 2, &secrets).map(|_| ())),
            };
            *if result.is_ok() { &mut good } else { &mut bad } += 1;
            slowest = slowest.max(start.elapsed());
        }
        assert!(good > 500 && bad > 3000, "{good} answers and {bad} errors");
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    }
}
