use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_timer::Delay;
use futures_util::future::{Either, select};
use llmkit_core::{ChatEvent, ChatRequest, ChatResponse, Message, Role, ToolCall, Usage};
use serde_json::json;

use super::tool::with_causes;
use super::wire::{OBSERVATION, Read, Reply, Wire};
use super::{Agent, AgentEvent, AgentRun, Limit, Limits, Outcome};
use crate::run::add;
use crate::{Result, Run};

/// One task under way.
pub(super) struct Drive<'a> {
    pub(super) agent: &'a Agent,
    pub(super) run: &'a Run<'a>,
    wire: Wire,
    pub(super) messages: Vec<Message>,
    pub(super) step: usize,
    pub(super) tool_calls: usize,
    /// The calls made so far, and how often.
    pub(super) made: Vec<(ToolCall, usize)>,
    /// Unreadable replies in a row.
    unreadable: usize,
    own_usage: Usage,
    pub(super) tool_usage: Usage,
    pub(super) tool_cost: f64,
    pub(super) watch: Watch<'a>,
}

/// Why work was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    Time,
    Cancelled,
}

/// What may interrupt.
pub(super) struct Watch<'a> {
    deadline: Option<Instant>,
    cancel: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
    /// A future that is over must not be polled again.
    interrupted: Option<Interrupt>,
}

impl Watch<'_> {
    /// Does `work` unless it is interrupted.
    pub(super) async fn over<T>(&mut self, work: impl Future<Output = T> + Send) -> Result<T, Interrupt> {
        if let Some(interrupt) = self.interrupted {
            return Err(interrupt);
        }
        let work = std::pin::pin!(work);
        let deadline = self.deadline;
        let timer = std::pin::pin!(async move {
            match deadline {
                Some(deadline) => Delay::new(deadline.saturating_duration_since(Instant::now())).await,
                None => std::future::pending().await,
            }
        });
        // What is at hand already comes before starting more.
        let stop = select(self.cancel.as_mut(), timer);
        let interrupt = match select(stop, work).await {
            Either::Right((value, _)) => return Ok(value),
            Either::Left((Either::Left(_), _)) => Interrupt::Cancelled,
            Either::Left((Either::Right(_), _)) => Interrupt::Time,
        };
        self.interrupted = Some(interrupt);
        Err(interrupt)
    }

    /// Does `work` for which the clock stands still.
    pub(super) async fn untimed<T>(&mut self, work: impl Future<Output = T> + Send) -> Result<T, Interrupt> {
        let deadline = self.deadline.take();
        let started = Instant::now();
        let value = self.over(work).await;
        self.deadline = deadline.map(|deadline| deadline + started.elapsed());
        value
    }
}

/// How a turn ended that was no answer.
enum Turn {
    GoOn,
    End(Outcome, Option<String>),
}

impl<'a> Drive<'a> {
    pub(super) fn new(
        agent: &'a Agent,
        run: &'a Run<'a>,
        messages: Vec<Message>,
        cancel: impl Future<Output = ()> + Send + 'a,
    ) -> Result<Self> {
        let wire = Wire::choose(agent, run.model())?;
        // A time that no clock reaches is none.
        let deadline = agent.limits.time.and_then(|time| Instant::now().checked_add(time));
        Ok(Self {
            agent,
            run,
            wire,
            messages,
            step: 0,
            tool_calls: 0,
            made: Vec::new(),
            unreadable: 0,
            own_usage: Usage::default(),
            tool_usage: Usage::default(),
            tool_cost: 0.0,
            watch: Watch { deadline, cancel: Box::pin(cancel), interrupted: None },
        })
    }

    pub(super) async fn finish(mut self) -> Result<AgentRun> {
        let (outcome, text) = loop {
            if let Turn::End(outcome, text) = self.turn().await? {
                break (outcome, text);
            }
        };
        let text = match &outcome {
            Outcome::Limit(limit) if text.is_none() && self.agent.last_answer => {
                self.last_answer(limit).await?
            }
            _ => text,
        };
        self.run.note(format!("ended: {outcome}"));
        self.agent.tell(|| AgentEvent::Finished(outcome.clone()));
        Ok(AgentRun {
            outcome,
            text,
            usage: self.usage(),
            cost: self.cost(),
            steps: self.step,
            tool_calls: self.tool_calls,
            messages: self.messages,
        })
    }

    /// One turn of the model, and the tools that it asks for.
    async fn turn(&mut self) -> Result<Turn> {
        let pending = self.pending();
        if !pending.is_empty() {
            return self.run_tools(pending).await.map(after_tools);
        }
        if let Some(limit) = self.limit() {
            return Ok(Turn::End(Outcome::Limit(limit), None));
        }
        self.step += 1;
        let step = self.step;
        self.agent.tell(|| AgentEvent::Step { step });
        let request = self.wire.request(self.agent, &self.messages, false)?;
        let response = match self.ask(&format!("step {step}"), request).await {
            Ok(response) => response,
            Err(outcome) => return Ok(Turn::End(outcome, None)),
        };
        let Read { turn, reply, notes } = self.wire.read(response, &self.agent.tools, step);
        notes.into_iter().for_each(|note| self.run.note(note));
        if let Reply::Unreadable(reason) = reply {
            return self.ask_again(turn, reason);
        }
        self.unreadable = 0;
        self.messages.push(turn);
        match reply {
            Reply::Calls(calls) => self.run_tools(calls).await.map(after_tools),
            Reply::Answer(answer) => Ok(Turn::End(Outcome::Answered, Some(answer))),
            Reply::Cut(part) => Ok(Turn::End(Outcome::Limit(Limit::AnswerLength), Some(part))),
            Reply::Cancelled => Ok(Turn::End(Outcome::Cancelled, None)),
            Reply::Withheld => {
                let reason = "its server withheld the answer".to_owned();
                Ok(Turn::End(Outcome::Failed { reason }, None))
            }
            Reply::Unreadable(_) => unreachable!("it is dealt with above"),
        }
    }

    /// The calls at the end of the conversation that have no result.
    fn pending(&self) -> Vec<ToolCall> {
        let results = self.messages.iter().rev().take_while(|message| message.role == Role::Tool).count();
        let Some(at) = self.messages.len().checked_sub(results + 1) else { return Vec::new() };
        let calls = &self.messages[at].tool_calls;
        let answers = &self.messages[at + 1..];
        let has_result = |(index, call): (usize, &ToolCall)| match &call.id {
            Some(id) => answers.iter().any(|answer| answer.tool_call_id.as_ref() == Some(id)),
            None => index < answers.len(),
        };
        let open = calls.iter().enumerate().filter(|(index, call)| !has_result((*index, call)));
        open.map(|(_, call)| call.clone()).collect()
    }

    /// The limit that forbids another turn.
    fn limit(&self) -> Option<Limit> {
        let Limits { steps, tokens, cost, .. } = self.agent.limits;
        let usage = self.usage();
        let used = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        if let Some(allowed) = tokens
            && used >= allowed
        {
            return Some(Limit::Tokens { allowed, used });
        }
        let spent = self.cost();
        if let Some(allowed) = cost
            && spent >= allowed
        {
            return Some(Limit::Cost { allowed, spent });
        }
        (self.step >= steps).then_some(Limit::Steps { allowed: steps })
    }

    fn ask_again(&mut self, turn: Message, reason: String) -> Result<Turn> {
        self.unreadable += 1;
        self.agent.tell(|| AgentEvent::Unreadable { reason: reason.clone() });
        let text = turn.content.trim().to_owned();
        let prompt = json!({ "reason": &reason, "format": self.wire.name() });
        let mut feedback = self.agent.prompts.retry.render(prompt)?;
        // By this the turn before it is known as one that was not taken.
        if let (Wire::ReAct, Some(first)) = (self.wire, feedback.first_mut())
            && !first.content.starts_with(OBSERVATION)
        {
            first.content.insert_str(0, "Observation: ");
        }
        // Many servers refuse an assistant's turn without text.
        if !text.is_empty() {
            self.messages.push(turn);
        }
        self.messages.extend(feedback);
        let allowed = self.agent.limits.unreadable;
        if self.unreadable < allowed {
            return Ok(Turn::GoOn);
        }
        Ok(Turn::End(Outcome::Limit(Limit::Unreadable { allowed, reason }), None))
    }

    /// One call more, for what can be said without tools.
    async fn last_answer(&mut self, limit: &Limit) -> Result<Option<String>> {
        if !matches!(
            limit,
            Limit::Steps { .. } | Limit::ToolCalls { .. } | Limit::SameCall { .. } | Limit::Unreadable { .. }
        ) {
            return Ok(None);
        }
        let question = self.agent.prompts.last_answer.render(json!({ "limit": limit.to_string() }))?;
        self.messages.extend(question);
        let request = self.wire.request(self.agent, &self.messages, true)?;
        let response = match self.ask("last answer", request).await {
            Ok(response) => response,
            Err(outcome) => {
                self.run.note(format!("there is no last answer: {outcome}"));
                return Ok(None);
            }
        };
        let content = response.message.content.clone();
        let Read { mut turn, reply, .. } = self.wire.read(response, &self.agent.tools, self.step + 1);
        let text = match reply {
            Reply::Answer(text) | Reply::Cut(text) => text,
            // Here a text without labels is what was asked for; a call is not.
            Reply::Unreadable(_) => content,
            Reply::Calls(_) | Reply::Cancelled | Reply::Withheld => turn.content.clone(),
        };
        let text = text.trim().to_owned();
        if text.is_empty() {
            self.run.note("the last answer was empty");
            return Ok(None);
        }
        turn.content = text.clone();
        turn.tool_calls = Vec::new();
        self.messages.push(turn);
        Ok(Some(text))
    }

    async fn ask(&mut self, step: &str, request: ChatRequest) -> Result<ChatResponse, Outcome> {
        let (run, agent) = (self.run, self.agent);
        let answer = self.watch.over(async move {
            if agent.listener.is_none() {
                return run.chat(step, request).await;
            }
            let mut tell = |event: &ChatEvent| match event {
                ChatEvent::Text(text) => agent.tell(|| AgentEvent::Text(text.clone())),
                ChatEvent::Reasoning(text) => agent.tell(|| AgentEvent::Reasoning(text.clone())),
                _ => {}
            };
            run.chat_streamed(step, request, &mut tell).await
        });
        match answer.await {
            Ok(Ok(response)) => {
                self.own_usage = add(self.own_usage, response.usage);
                Ok(response)
            }
            Ok(Err(error)) => Err(Outcome::Failed { reason: with_causes(&error) }),
            Err(interrupt) => Err(self.interrupted(interrupt)),
        }
    }

    pub(super) fn interrupted(&self, interrupt: Interrupt) -> Outcome {
        match interrupt {
            Interrupt::Cancelled => Outcome::Cancelled,
            Interrupt::Time => {
                Outcome::Limit(Limit::Time { allowed: self.agent.limits.time.unwrap_or(Duration::ZERO) })
            }
        }
    }

    fn usage(&self) -> Usage {
        add(self.own_usage, self.tool_usage)
    }

    fn cost(&self) -> f64 {
        self.agent.limits.prices.map_or(0.0, |prices| prices.of(self.own_usage)) + self.tool_cost
    }
}

fn after_tools(end: Option<Outcome>) -> Turn {
    match end {
        Some(outcome) => Turn::End(outcome, None),
        None => Turn::GoOn,
    }
}
