//! Writing a plan until nothing is wrong with it.

use llmkit_core::{ChatRequest, FinishReason, Message};
use serde_json::json;

use super::{Pearl, Plan, PlanAttempt, Planning, parse};
use crate::{Result, Run};

/// Asks with `opening` for a plan; a faulty one is shown again, with all its faults.
pub(super) async fn plan(pearl: &Pearl, run: &Run<'_>, opening: Vec<Message>) -> Result<Planning> {
    let mut attempts: Vec<PlanAttempt> = Vec::new();
    while attempts.len() < pearl.attempts {
        let mut messages = opening.clone();
        if let Some(last) = attempts.last() {
            // The number of the attempt makes each request another one, so that a model at temperature 0 does not answer it alike.
            let problems: Vec<String> = last.problems.iter().map(ToString::to_string).collect();
            messages.push(Message::assistant(last.text.clone()));
            messages.extend(pearl.prompts.repair.render(json!({
                "problems": problems, "attempt": attempts.len(), "attempts": pearl.attempts
            }))?);
        }
        let request = ChatRequest { max_tokens: Some(pearl.plan_tokens), ..ChatRequest::new(messages) };
        let response = run.chat(&format!("plan, attempt {}", attempts.len() + 1), request).await?;
        if response.finish_reason == FinishReason::Length {
            run.note(format!("the plan was cut at {} tokens", pearl.plan_tokens));
        }
        let text = response.message.content;
        match parse::plan(&text, &pearl.actions) {
            Ok(plan) => {
                note_skipped(run, &plan);
                return Ok(Planning::Valid { plan, attempts });
            }
            Err(problems) => {
                run.note(format!("the plan has {} faults", problems.len()));
                attempts.push(PlanAttempt { text, problems });
            }
        }
    }
    Ok(Planning::Failed { attempts })
}

fn note_skipped(run: &Run<'_>, plan: &Plan) {
    if !plan.skipped_lines().is_empty() {
        let lines: Vec<String> = plan.skipped_lines().iter().map(ToString::to_string).collect();
        run.note(format!("lines of the plan that are no steps: {}", lines.join(", ")));
    }
}
