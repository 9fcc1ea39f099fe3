use std::fmt;
use std::time::Duration;

use llmkit_core::{ChatRequest, ChatResponse, Usage};
use serde::{Deserialize, Serialize};

use crate::agent::ToolRun;

/// A value and how it came about.
///
/// ```
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::{Run, Traced};
///
/// let model = ScriptedModel::new(["never asked"]);
/// let Traced { value, trace } = Run::new("nothing", &model).finish(42);
/// assert_eq!((value, trace.calls().count()), (42, 0));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traced<T> {
    /// What came out.
    pub value: T,
    /// Every call that was made for it.
    pub trace: Trace,
}

impl<T> Traced<T> {
    /// The same trace with another value, made from this one.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Traced<U> {
        Traced { value: change(self.value), trace: self.trace }
    }
}

/// What a piece did, in order; the pieces that it is made of have traces of their own inside it.
///
/// Written with `{}` it is a text to read; serialised it is complete.
///
/// ```
/// use llmkit_core::{ChatRequest, Message};
/// use llmkit_prompt::Run;
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["A deep dish."]);
/// let run = Run::new("define", &model);
/// let answer = run.chat("ask", ChatRequest::new(vec![Message::user("What is a tureen?")])).await?;
/// let trace = run.finish(answer).trace;
/// assert!(trace.to_string().contains("What is a tureen?"));
/// assert_eq!(trace.calls().next().unwrap().step, "ask");
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The piece's name.
    pub name: String,
    /// What happened, in order.
    pub events: Vec<TraceEvent>,
    /// From the piece's start to its end.
    pub elapsed: Duration,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TraceEvent {
    /// A model was called and answered.
    Call(Call),
    /// A piece within the piece did its work.
    Part(Trace),
    /// A tool was asked for.
    Tool(ToolRun),
    /// Something that a reader should know: what was cut, skipped, repaired or decided.
    Note(String),
}

/// One call of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// What the call was for, in the words of the piece that made it.
    pub step: String,
    /// What was sent.
    pub request: ChatRequest,
    /// What came back.
    pub response: ChatResponse,
    /// How long it took.
    pub elapsed: Duration,
}

impl Trace {
    /// All calls, those of the parts among them, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        // A stack of iterators rather than recursion, so that the iterator has one type.
        let mut stack = vec![self.events.iter()];
        std::iter::from_fn(move || {
            loop {
                match stack.last_mut()?.next() {
                    None => drop(stack.pop()),
                    Some(TraceEvent::Call(call)) => return Some(call),
                    Some(TraceEvent::Part(part) | TraceEvent::Tool(ToolRun { part: Some(part), .. })) => {
                        stack.push(part.events.iter());
                    }
                    Some(TraceEvent::Tool(_) | TraceEvent::Note(_)) => {}
                }
            }
        })
    }

    /// All calls of tools, those of the parts among them, in order.
    pub fn tools(&self) -> impl Iterator<Item = &ToolRun> {
        let mut stack = vec![self.events.iter()];
        std::iter::from_fn(move || {
            loop {
                match stack.last_mut()?.next() {
                    None => drop(stack.pop()),
                    Some(TraceEvent::Tool(run)) => {
                        stack.extend(run.part.as_ref().map(|part| part.events.iter()));
                        return Some(run);
                    }
                    Some(TraceEvent::Part(part)) => stack.push(part.events.iter()),
                    Some(TraceEvent::Call(_) | TraceEvent::Note(_)) => {}
                }
            }
        })
    }

    /// The tokens of all calls together.
    pub fn usage(&self) -> Usage {
        self.calls().fold(Usage::default(), |sum, call| add(sum, call.response.usage))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let usage = self.usage();
        let pad = "  ".repeat(depth);
        writeln!(
            f,
            "{pad}{} ({} calls, {} + {} tokens, {:.1} s)",
            self.name,
            self.calls().count(),
            usage.prompt_tokens,
            usage.completion_tokens,
            self.elapsed.as_secs_f64()
        )?;
        for event in &self.events {
            match event {
                TraceEvent::Part(part) => part.write(f, depth + 1)?,
                TraceEvent::Tool(run) => {
                    let arguments = run.call.arguments.to_string();
                    let seconds = run.elapsed.as_secs_f64();
                    block(f, depth + 1, &format!("tool {} ({seconds:.1} s)", run.call.name), &arguments)?;
                    if let Some(decision) = &run.decision {
                        let decision = serde_json::to_string(decision).map_err(|_| fmt::Error)?;
                        block(f, depth + 2, "decision", &decision)?;
                    }
                    if let Some(part) = &run.part {
                        part.write(f, depth + 2)?;
                    }
                    block(f, depth + 2, "->", &run.result.to_string())?;
                }
                TraceEvent::Note(note) => block(f, depth + 1, "note", note)?,
                TraceEvent::Call(call) => {
                    writeln!(f, "{pad}  {}", call.step)?;
                    for message in &call.request.messages {
                        let role = serde_json::to_value(message.role).map_err(|_| fmt::Error)?;
                        block(f, depth + 2, role.as_str().unwrap_or_default(), &message.content)?;
                    }
                    block(f, depth + 2, "->", &call.response.message.content)?;
                    for tool in &call.response.message.tool_calls {
                        block(f, depth + 2, &format!("-> {}", tool.name), &tool.arguments.to_string())?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// `text` with a label before its first line, the others indented under it.
fn block(f: &mut fmt::Formatter<'_>, depth: usize, label: &str, text: &str) -> fmt::Result {
    let pad = "  ".repeat(depth);
    let mut lines = text.lines();
    writeln!(f, "{pad}{label}: {}", lines.next().unwrap_or_default())?;
    lines.try_for_each(|line| writeln!(f, "{pad}  {line}"))
}

pub(crate) fn add(a: Usage, b: Usage) -> Usage {
    Usage {
        prompt_tokens: a.prompt_tokens.saturating_add(b.prompt_tokens),
        completion_tokens: a.completion_tokens.saturating_add(b.completion_tokens),
        cached_tokens: a.cached_tokens.saturating_add(b.cached_tokens),
    }
}
