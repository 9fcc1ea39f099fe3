//! Running the tools that a turn asks for.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_timer::Delay;
use futures_util::future::{BoxFuture, Either, FutureExt, select};
use futures_util::stream::{self, StreamExt};
use llmkit_core::{Message, ToolCall, Usage};
use serde_json::{Value, json};
use tracing::{Instrument, Span};

use super::drive::Drive;
use super::toolbox::Entry;
use super::{AgentEvent, Decision, Limit, Outcome, Question, ToolOutput, ToolPolicy, ToolResult, ToolRun};
use crate::run::{TraceEvent, add, spans};
use crate::{Result, Trace, mark_untrusted};

/// A call, before it runs.
struct Planned<'a> {
    call: ToolCall,
    decision: Option<Decision>,
    plan: Plan<'a>,
}

enum Plan<'a> {
    /// The tool runs on these arguments.
    Go(&'a Entry, Value),
    /// It doesn't, and this is said in its place.
    Not(ToolResult),
}

/// What a tool's run took and gave.
struct Ran {
    result: ToolResult,
    part: Option<Trace>,
    usage: Usage,
    cost: f64,
    elapsed: Duration,
}

impl Ran {
    fn nothing(result: ToolResult) -> Self {
        Self { result, part: None, usage: Usage::default(), cost: 0.0, elapsed: Duration::ZERO }
    }
}

impl<'a> Drive<'a> {
    /// Runs the calls side by side and puts a result for each into the conversation, in the order of the calls. Gives the outcome if the
    /// agent ends with them.
    pub(super) async fn run_tools(&mut self, calls: Vec<ToolCall>) -> Result<Option<Outcome>> {
        let (planned, mut end) = self.plan(calls).await;
        let (agent, span) = (self.agent, self.run.span());
        let mut results: Vec<Option<Ran>> = planned.iter().map(|_| None).collect();
        let work = planned.iter().enumerate().map(|(index, planned)| {
            let run = async move {
                let ran = match &planned.plan {
                    Plan::Not(result) => Ran::nothing(result.clone()),
                    Plan::Go(entry, arguments) => {
                        agent.tell(|| AgentEvent::ToolStarted(planned.call.clone()));
                        run_one(span, entry, &planned.call, arguments.clone()).await
                    }
                };
                (index, ran)
            };
            run.boxed()
        });
        let work: Vec<BoxFuture<'_, (usize, Ran)>> = work.collect();
        let mut running = stream::iter(work).buffer_unordered(agent.limits.side_by_side.max(1));
        loop {
            match self.watch.over(running.next()).await {
                Ok(None) => break,
                Ok(Some((index, ran))) => {
                    agent.tell(|| AgentEvent::ToolFinished(tool_run(&planned[index], &ran)));
                    results[index] = Some(ran);
                }
                Err(interrupt) => {
                    end = Some(self.interrupted(interrupt));
                    break;
                }
            }
        }
        drop(running);
        for (planned, ran) in planned.iter().zip(results) {
            let ran = ran.unwrap_or_else(|| {
                let ran = Ran::nothing(not_run("it was interrupted before it was done"));
                agent.tell(|| AgentEvent::ToolFinished(tool_run(planned, &ran)));
                ran
            });
            self.tool_usage = add(self.tool_usage, ran.usage);
            self.tool_cost += ran.cost;
            let run = tool_run(planned, &ran);
            let message = self.message(planned, &run.result)?;
            self.messages.push(message);
            self.run.push(TraceEvent::Tool(run));
        }
        Ok(end)
    }

    /// What is to become of each call.
    async fn plan(&mut self, calls: Vec<ToolCall>) -> (Vec<Planned<'a>>, Option<Outcome>) {
        let agent = self.agent;
        let mut planned: Vec<Planned<'a>> = Vec::with_capacity(calls.len());
        let mut end = None;
        for call in calls {
            let not = |call, result| Planned { call, decision: None, plan: Plan::Not(result) };
            if let Some(outcome) = &end {
                planned.push(not(call, not_run(&format!("the agent ended before it: {outcome}"))));
                continue;
            }
            let allowed = agent.limits.tool_calls;
            if self.tool_calls >= allowed {
                let limit = Limit::ToolCalls { allowed };
                planned.push(not(call, not_run(&limit.to_string())));
                end = Some(Outcome::Limit(limit));
                continue;
            }
            self.tool_calls += 1;
            if self.times(&call) > agent.limits.same_call {
                let limit = Limit::SameCall { tool: call.name.clone(), allowed: agent.limits.same_call };
                planned.push(not(call, not_run(&limit.to_string())));
                end = Some(Outcome::Limit(limit));
                continue;
            }
            let Some(entry) = agent.tools.find(&call.name) else {
                let reason = agent.tools.unknown(&call.name);
                planned.push(not(call, ToolResult::Failed { reason }));
                continue;
            };
            let decision = match self.decide(entry, &call).await {
                Ok(decision) => decision,
                Err(outcome) => {
                    planned.push(not(call, not_run("it was interrupted before it was decided on")));
                    end = Some(outcome);
                    continue;
                }
            };
            let plan = match &decision {
                None | Some(Decision::Allow) => Plan::Go(entry, call.arguments.clone()),
                Some(Decision::Edit { arguments }) => Plan::Go(entry, arguments.clone()),
                Some(Decision::Deny { reason }) => Plan::Not(not_run(&format!("it was denied: {reason}"))),
                Some(Decision::Stop) => {
                    end = Some(Outcome::Denied { tool: call.name.clone() });
                    Plan::Not(not_run("the agent was stopped at it"))
                }
            };
            planned.push(Planned { call, decision, plan });
        }
        // What was decided on before doesn't run either when somebody says stop, or time is over.
        let halted = matches!(&end, Some(outcome) if !matches!(outcome, Outcome::Limit(Limit::ToolCalls { .. } | Limit::SameCall { .. })));
        if halted {
            for planned in &mut planned {
                if let Plan::Go(..) = planned.plan {
                    planned.plan = Plan::Not(not_run("the agent ended before it"));
                }
            }
        }
        (planned, end)
    }

    /// How often the call was made, this time counted.
    fn times(&mut self, call: &ToolCall) -> usize {
        let same =
            |(made, _): &&mut (ToolCall, usize)| made.name == call.name && made.arguments == call.arguments;
        if let Some((_, times)) = self.made.iter_mut().find(same) {
            *times += 1;
            return *times;
        }
        self.made.push((call.clone(), 1));
        1
    }

    async fn decide(&mut self, entry: &Entry, call: &ToolCall) -> Result<Option<Decision>, Outcome> {
        let agent = self.agent;
        if !agent.ask.covers(&entry.policy) {
            return Ok(None);
        }
        let question = Question { call, policy: &entry.policy, step: self.step, messages: &self.messages };
        match self.watch.untimed(agent.approval.decide(&question)).await {
            Ok(decision) => Ok(Some(decision)),
            Err(interrupt) => Err(self.interrupted(interrupt)),
        }
    }

    /// The turn that tells the model the result.
    fn message(&self, planned: &Planned<'_>, result: &ToolResult) -> Result<Message> {
        let mut text = result.to_string();
        // What a tool says when it fails may repeat what a stranger sent it.
        if let Plan::Go(entry, _) = &planned.plan
            && matches!(
                result,
                ToolResult::Output { .. } | ToolResult::Failed { .. } | ToolResult::Panicked { .. }
            )
            && entry.policy.untrusted
        {
            text = self.marked(&planned.call, &text)?;
        }
        if let Some(Decision::Edit { arguments }) = &planned.decision {
            text = format!("(The arguments were changed to {arguments} before the call.)\n{text}");
        }
        Ok(Message::tool(&planned.call, text))
    }

    /// The output as text from a stranger.
    fn marked(&self, call: &ToolCall, output: &str) -> Result<String> {
        let marked = mark_untrusted(&call.name, output);
        if marked.cleaned.total() > 0 {
            self.run.note(format!("in the output of `{}`, {} made harmless", call.name, marked.cleaned));
        }
        let values = json!({ "tool": call.name, "output": marked.text });
        let turns = self.agent.prompts.untrusted.render(values)?;
        Ok(turns.into_iter().map(|turn| turn.content).collect::<Vec<_>>().join("\n"))
    }
}

fn tool_run(planned: &Planned<'_>, ran: &Ran) -> ToolRun {
    ToolRun {
        call: planned.call.clone(),
        decision: planned.decision.clone(),
        result: ran.result.clone(),
        part: ran.part.clone(),
        elapsed: ran.elapsed,
    }
}

fn not_run(reason: &str) -> ToolResult {
    ToolResult::NotRun { reason: reason.to_owned() }
}

/// Runs the tool within its time; whatever it does, there is a result.
async fn run_one(parent: &Span, entry: &Entry, call: &ToolCall, arguments: Value) -> Ran {
    let span = parent.in_scope(|| spans::tool(&call.name, call.id.as_deref()));
    let started = Instant::now();
    // Entered inside the block, so that a panic before the first await is caught too. What a tool leaves half done is its own.
    let work = AssertUnwindSafe(async { entry.tool.call(arguments).await }).catch_unwind();
    let work = std::pin::pin!(work.instrument(span.clone()));
    let finished = match entry.policy.timeout {
        None => Some(work.await),
        Some(timeout) => match select(work, Delay::new(timeout)).await {
            Either::Left((finished, _)) => Some(finished),
            Either::Right(_) => None,
        },
    };
    let mut ran = match finished {
        Some(Ok(Ok(output))) => shown(output, &entry.policy),
        Some(Ok(Err(error))) => {
            Ran::nothing(ToolResult::Failed { reason: cut(error.to_string(), entry.policy.output_limit) })
        }
        Some(Err(panic)) => Ran::nothing(ToolResult::Panicked {
            reason: cut(message_of(panic.as_ref()), entry.policy.output_limit),
        }),
        None => Ran::nothing(ToolResult::TimedOut { after: entry.policy.timeout.unwrap_or_default() }),
    };
    spans::tool_done(&span, &ran.result);
    ran.elapsed = started.elapsed();
    ran
}

/// The first `limit` characters.
fn cut(mut text: String, limit: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(limit) {
        text.truncate(end);
    }
    text
}

fn shown(output: ToolOutput, policy: &ToolPolicy) -> Ran {
    let ToolOutput { text, trace, usage, cost } = output;
    let characters = text.chars().count();
    Ran {
        result: ToolResult::Output { text: cut(text, policy.output_limit), characters },
        part: trace,
        usage,
        cost: if cost.is_finite() { cost.max(0.0) } else { 0.0 },
        elapsed: Duration::ZERO,
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}
