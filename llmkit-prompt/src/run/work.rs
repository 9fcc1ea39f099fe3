use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::StreamExt;
use llmkit_core::{ChatEvent, ChatRequest, ChatResponse, LanguageModel, Usage};
use tracing::{Instrument, Span};

use super::{Call, Trace, TraceEvent, Traced, spans};
use crate::Result;

/// The work of one piece: its model, and the record of what it did.
///
/// A piece that is made of others gives each a [`part`](Self::part) and takes its record back by [`include`](Self::include). Everything here takes `&self`, so
/// calls can be made side by side; they are recorded as they end. Where the order must not depend on timing, give each its own part and include the
/// parts in order.
///
/// ```
/// use llmkit_core::{ChatRequest, Message};
/// use llmkit_prompt::Run;
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["A deep dish.", "Eine tiefe Schüssel."]);
/// let run = Run::new("define and translate", &model);
/// let definition = run.chat("define", ChatRequest::new(vec![Message::user("What is a tureen?")])).await?;
/// let prompt = format!("In German: {}", definition.message.content);
/// let german = run.chat("translate", ChatRequest::new(vec![Message::user(prompt)])).await?;
/// let traced = run.finish(german.message.content);
/// assert_eq!(traced.value, "Eine tiefe Schüssel.");
/// assert_eq!(traced.trace.calls().count(), 2);
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
pub struct Run<'a> {
    name: String,
    model: &'a dyn LanguageModel,
    started: Instant,
    events: Mutex<Vec<TraceEvent>>,
    span: Span,
    content: bool,
}

impl<'a> Run<'a> {
    /// A piece called `name` that starts its work on `model` now.
    pub fn new(name: impl Into<String>, model: &'a dyn LanguageModel) -> Self {
        let name = name.into();
        let span = spans::piece(&name);
        let content = spans::content_by_environment();
        Self { name, model, started: Instant::now(), events: Mutex::default(), span, content }
    }

    /// Records what is said in the `tracing` spans of calls too, as `gen_ai.input.messages` and `gen_ai.output.messages`. Without, spans
    /// hold names, settings and counts only, since texts may be private; a [`Trace`] always holds them.
    ///
    /// The environment variable `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`, set to `true`, does the same for all pieces.
    pub fn with_content(mut self) -> Self {
        self.content = true;
        self
    }

    /// The model.
    pub fn model(&self) -> &'a dyn LanguageModel {
        self.model
    }

    /// A piece called `name` within this one, on the same model. Its record is its own until it is [included](Self::include).
    pub fn part(&self, name: impl Into<String>) -> Run<'a> {
        self.part_on(name, self.model)
    }

    /// As [`part`](Self::part), on another model.
    pub fn part_on<'b>(&self, name: impl Into<String>, model: &'b dyn LanguageModel) -> Run<'b> {
        let mut part = self.span.in_scope(|| Run::new(name, model));
        part.content = self.content;
        part
    }

    /// The span of this piece: what runs in it (`future.instrument(run.span().clone())`, `run.span().in_scope(..)`) has its own spans below it. Those of
    /// calls and parts are there anyway.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Takes over what `part` recorded.
    pub fn include(&self, part: Run<'_>) {
        self.push(TraceEvent::Part(part.into_trace()));
    }

    /// Calls the model, inside a span `chat` with the names of OpenTelemetry's conventions for generative AI, and records the call as `step`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when the model fails; the trace then ends before the call.
    pub async fn chat(&self, step: &str, request: ChatRequest) -> Result<ChatResponse> {
        let span = spans::chat(&self.span, self.model, step, &request);
        let started = Instant::now();
        let answer = self.model.chat(request.clone()).instrument(span.clone()).await;
        self.record(&span, &request, &answer);
        let response = answer?;
        self.push(TraceEvent::Call(Call {
            step: step.to_owned(),
            request,
            response: response.clone(),
            elapsed: started.elapsed(),
        }));
        Ok(response)
    }

    /// As [`chat`](Self::chat), with the parts of the answer handed to `tell` as they come.
    ///
    /// ```
    /// use llmkit_core::{ChatEvent, ChatRequest, Message};
    /// use llmkit_prompt::Run;
    /// use llmkit_prompt::testing::ScriptedModel;
    ///
    /// # pollster::block_on(async {
    /// let model = ScriptedModel::new(["A deep dish."]);
    /// let run = Run::new("define", &model);
    /// let mut text = String::new();
    /// let request = ChatRequest::new(vec![Message::user("What is a tureen?")]);
    /// let mut tell = |event: &ChatEvent| {
    ///     if let ChatEvent::Text(more) = event {
    ///         text.push_str(more);
    ///     }
    /// };
    /// let answer = run.chat_streamed("ask", request, &mut tell).await?;
    /// assert_eq!(answer.message.content, text);
    /// # Ok::<(), llmkit_prompt::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`chat`](Self::chat), and [`Error::Model`](crate::Error::Model) if the stream ends without [`ChatEvent::Done`].
    pub async fn chat_streamed(
        &self,
        step: &str,
        request: ChatRequest,
        tell: &mut (dyn FnMut(&ChatEvent) + Send),
    ) -> Result<ChatResponse> {
        let span = spans::chat(&self.span, self.model, step, &request);
        let started = Instant::now();
        let model = self.model;
        let asked = request.clone();
        let answer = async move {
            let mut stream = model.chat_stream(asked).await?;
            while let Some(event) = stream.next().await {
                let event = event?;
                tell(&event);
                if let ChatEvent::Done(response) = event {
                    return Ok(response);
                }
            }
            let reason = "the stream ended before the answer was over".to_owned();
            Err(llmkit_core::Error::Model { model: model.name().to_owned(), reason })
        };
        let answer = answer.instrument(span.clone()).await;
        self.record(&span, &request, &answer);
        let response = answer?;
        self.push(TraceEvent::Call(Call {
            step: step.to_owned(),
            request,
            response: response.clone(),
            elapsed: started.elapsed(),
        }));
        Ok(response)
    }

    fn record(&self, span: &Span, request: &ChatRequest, answer: &llmkit_core::Result<ChatResponse>) {
        spans::answered(span, self.model.name(), answer);
        if self.content {
            spans::said(span, &request.messages, answer.as_ref().ok());
        }
    }

    /// Records something that a reader of the trace should know.
    pub fn note(&self, text: impl Into<String>) {
        self.push(TraceEvent::Note(text.into()));
    }

    /// Records an event that was made elsewhere, such as a call whose answer was streamed.
    pub fn push(&self, event: TraceEvent) {
        self.events().push(event);
    }

    /// The tokens of all calls so far.
    pub fn usage(&self) -> Usage {
        let events = self.events().clone();
        Trace { name: String::new(), events, elapsed: self.started.elapsed() }.usage()
    }

    /// Ends the piece with its result.
    pub fn finish<T>(self, value: T) -> Traced<T> {
        Traced { value, trace: self.into_trace() }
    }

    fn into_trace(self) -> Trace {
        let events = self.events.into_inner().unwrap_or_else(PoisonError::into_inner);
        Trace { name: self.name, events, elapsed: self.started.elapsed() }
    }

    /// A list of events is whole at any moment, so a panic elsewhere leaves it usable.
    fn events(&self) -> MutexGuard<'_, Vec<TraceEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("name", &self.name)
            .field("model", &self.model.name())
            .field("events", &self.events().len())
            .finish_non_exhaustive()
    }
}
