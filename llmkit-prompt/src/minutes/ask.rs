//! Asking for a draft.

use llmkit_core::{ChatRequest, FinishReason, Message, ResponseFormat};
use serde_json::json;

use super::draft::Draft;
use crate::long::Limits;
use crate::parse::json_with_repairs;
use crate::{ChatPrompt, Error, Result, Run};

/// How often the model may answer.
const ATTEMPTS: usize = 3;
/// The longest answer that is shown to the model again, in characters.
const MAX_SHOWN: usize = 4_000;

/// The draft that the model gives for `messages`: held to the schema where the model can be, else told of it, and asked again with the error.
pub(super) async fn ask(
    run: &Run<'_>,
    limits: &Limits,
    again: &ChatPrompt,
    schema_prompt: &ChatPrompt,
    mut messages: Vec<Message>,
) -> Result<Draft> {
    let schema = schemars::schema_for!(Draft).to_value();
    let mut format = ResponseFormat::Text;
    if run.model().capabilities().json_schema {
        format = ResponseFormat::JsonSchema { name: "minutes".to_owned(), schema };
    } else {
        messages.extend(schema_prompt.render(json!({ "schema": schema.to_string() }))?);
    }
    let first = messages.len();
    let mut attempt = 1;
    loop {
        let request = ChatRequest { response_format: format.clone(), ..limits.request(messages.clone()) };
        let response = run.chat(&format!("draft, attempt {attempt}"), request).await?;
        let text = response.message.content;
        let reason = match json_with_repairs::<Draft>(&text) {
            Ok(read) => {
                let (value, repairs) = (read.value, read.repairs);
                repairs.iter().for_each(|repair| run.note(format!("the JSON was mended: {repair}")));
                return Ok(value);
            }
            Err(_) if response.finish_reason == FinishReason::Length => {
                format!("the answer was cut at {} tokens", limits.answer_tokens)
            }
            Err(error) => error.to_string(),
        };
        run.note(format!("attempt {attempt} is no draft: {reason}"));
        if attempt == ATTEMPTS {
            return Err(Error::NoMinutes { attempts: ATTEMPTS, reason });
        }
        messages.truncate(first);
        messages.push(Message::assistant(text.chars().take(MAX_SHOWN).collect::<String>()));
        messages.extend(again.render(json!({ "error": reason, "attempt": attempt, "attempts": ATTEMPTS }))?);
        attempt += 1;
    }
}
