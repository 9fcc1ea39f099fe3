//! Carrying out a plan.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use llmkit_core::Message;
use serde::Serialize;
use serde_json::json;

use super::action::DOCUMENT;
use super::{Argument, Pearl, Plan, Step};
use crate::chunks::cut;
use crate::long::{Reduction, in_order};
use crate::{Error, Result, Run};

/// How often the outcomes of parts are made one, and those again.
const MAX_LEVELS: usize = 8;

/// What came out of each step of `plan`, in order. A step begins as soon as it has what it needs and a place is free.
pub(super) async fn execute(
    pearl: &Pearl,
    run: &Run<'_>,
    document: &str,
    plan: &Plan,
) -> Result<Vec<String>> {
    let count = plan.steps().len();
    let needs: Vec<Vec<usize>> = (0..count).map(|index| plan.needs(index)).collect();
    let mut outputs: Vec<Option<String>> = vec![None; count];
    let mut parts: Vec<Option<Run<'_>>> = (0..count).map(|_| None).collect();
    let mut waiting: Vec<usize> = (0..count).collect();
    let mut working = FuturesUnordered::new();
    let mut failure = None;
    loop {
        let mut index = 0;
        while index < waiting.len() && working.len() < pearl.limits.concurrency.max(1) {
            let step = waiting[index];
            if needs[step].iter().any(|needed| outputs[*needed].is_none()) {
                index += 1;
                continue;
            }
            waiting.remove(index);
            let task = Task::new(pearl, plan, step, &outputs)?;
            let part = run.part(format!(
                "step {}: {} = {}",
                step + 1,
                plan.steps()[step].variable,
                plan.steps()[step].call()
            ));
            working.push(async move {
                let output = task.run(&part, document).await;
                (step, part, output)
            });
        }
        let Some((step, part, output)) = working.next().await else { break };
        parts[step] = Some(part);
        match output {
            Ok(output) => outputs[step] = Some(output),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(working);
    parts.into_iter().flatten().for_each(|part| run.include(part));
    match failure {
        Some(error) => Err(error),
        None => {
            Ok(outputs.into_iter().map(|output| output.expect("each step needs earlier ones only")).collect())
        }
    }
}

/// Answers `question` over the document, without a plan.
pub(super) async fn plain(pearl: &Pearl, run: &Run<'_>, document: &str, question: &str) -> Result<String> {
    let messages = pearl.prompts.plain.render(json!({ "document": document, "question": question }))?;
    if fits(pearl, run, &messages)? {
        return pearl.limits.ask(run, "plain answer", messages).await;
    }
    // Part by part, as a step of a plan.
    let definition = format!("Answer this question from CTX: {question}");
    let task = Task {
        pearl,
        action: "ANSWER".to_owned(),
        definition,
        given: Vec::new(),
        why: String::new(),
        concat: false,
    };
    task.run(run, document).await
}

fn fits(pearl: &Pearl, run: &Run<'_>, messages: &[Message]) -> Result<bool> {
    let Some(context) = pearl.limits.context(run.model()) else { return Ok(true) };
    Ok(pearl.limits.tokens(messages)? + pearl.limits.answer_tokens <= context)
}

/// A step with all that it needs.
struct Task<'a> {
    pearl: &'a Pearl,
    action: String,
    definition: String,
    given: Vec<Given>,
    why: String,
    concat: bool,
}

#[derive(Serialize)]
struct Given {
    name: String,
    value: String,
}

impl<'a> Task<'a> {
    fn new(pearl: &'a Pearl, plan: &Plan, index: usize, outputs: &[Option<String>]) -> Result<Self> {
        let step: &Step = &plan.steps()[index];
        let action = pearl.actions.get(&step.action);
        if action.is_none() && !step.is_concat() {
            let reason =
                "the plan uses it, and it is not among the actions that are carried out here".to_owned();
            return Err(Error::Action { action: step.action.clone(), reason });
        }
        let value = |argument: &Argument| match argument {
            Argument::Document => String::new(),
            Argument::Text(text) => text.clone(),
            Argument::Variable(name) => plan.steps()[..index]
                .iter()
                .position(|earlier| earlier.variable == *name)
                .and_then(|earlier| outputs[earlier].clone())
                .unwrap_or_default(),
        };
        let name = |index: usize| {
            action
                .and_then(|action| action.parameters().get(index))
                .map_or_else(|| format!("X{index}"), Clone::clone)
        };
        let given = step.arguments.iter().enumerate();
        // The document is in the prompt already, under its name.
        let given =
            given.filter(|(index, argument)| **argument != Argument::Document || name(*index) != DOCUMENT);
        let given = given.map(|(index, argument)| Given {
            name: name(index),
            value: if *argument == Argument::Document { "the document".to_owned() } else { value(argument) },
        });
        Ok(Self {
            pearl,
            action: step.call(),
            definition: action.map_or_else(String::new, |action| action.definition().to_owned()),
            given: given.collect(),
            why: step.why.clone(),
            concat: step.is_concat(),
        })
    }

    async fn run(&self, run: &Run<'_>, document: &str) -> Result<String> {
        if self.concat {
            let texts: Vec<&str> = self.given.iter().map(|given| given.value.as_str()).collect();
            return Ok(texts.join("\n\n"));
        }
        let limits = &self.pearl.limits;
        let messages = self.messages(document, 1, 1)?;
        let context = match limits.context(run.model()) {
            Some(context) if !fits(self.pearl, run, &messages)? => context,
            _ => return limits.ask(run, "step", messages).await,
        };
        let room = limits.room(context, &self.messages("", 100, 100)?)?;
        let chunks = cut(document, room, limits.counter.as_ref())?;
        let mut work = Vec::with_capacity(chunks.len());
        for (index, chunk) in chunks.iter().enumerate() {
            let messages = self.messages(chunk.text, index + 1, chunks.len())?;
            let name = format!("part {} of {}, bytes {:?}", index + 1, chunks.len(), chunk.range);
            work.push(async move {
                let part = run.part(name);
                let text = limits.ask(&part, "step", messages).await;
                (part, text)
            });
        }
        let findings = in_order(run, limits.concurrency, work).await?;
        let prompt = |findings: &[String]| {
            self.pearl.prompts.merge.render(json!({
                "findings": findings, "action": self.action, "definition": self.definition, "arguments": self.given,
                "why": self.why
            }))
        };
        let reduction = Reduction {
            limits,
            context,
            branch: usize::MAX,
            max_levels: MAX_LEVELS,
            step: "merge",
            prompt: &prompt,
        };
        Ok(reduction.run(run, findings).await?.0)
    }

    fn messages(&self, document: &str, part: usize, parts: usize) -> Result<Vec<Message>> {
        self.pearl.prompts.execute.render(json!({
            "document": document, "part": part, "parts": parts, "action": self.action, "definition": self.definition,
            "arguments": self.given, "why": self.why
        }))
    }
}
