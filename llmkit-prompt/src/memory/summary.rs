use std::fmt::Write;
use std::sync::Arc;

use async_trait::async_trait;
use llmkit_core::{ApproximateTokens, ChatRequest, FinishReason, Message, Role, TokenCounter};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Lost, Memory, Notes, Turn, View};
use crate::{ChatPrompt, Error, Result, Run, builtin};

/// Under which the summary is kept in the notes.
const NOTE: &str = "summary";
/// The longest summary, in tokens, unless set.
const SUMMARY_TOKENS: usize = 256;
/// The most that is summarised by one call, in tokens, unless set.
const PIECE_TOKENS: usize = 2_000;

/// The last turns, and a running summary of those before, which the model writes.
///
/// With `keep` turns to show as they are, the model is asked for a summary only when there are more than twice as many, and then all but
/// the last `keep` go into it: so a call every `keep` turns, between which the beginning of what the model reads stays the same, as its
/// prefix cache likes. The summary is kept in the conversation's notes and brought up to date, never made anew.
///
/// Both prompts are files that can be read and replaced: `memory/summary` asks for the summary, `memory/recap` says it to the model, at the
/// end of the system message.
///
/// ```
/// use llmkit_prompt::memory::{Conversation, Memory, SummaryMemory};
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::Message;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["The user is Ada and likes tea."]);
/// let mut conversation = Conversation::new().with_system("Answer briefly.");
/// conversation.extend([Message::user("I am Ada."), Message::assistant("Hello, Ada.")]);
/// conversation.extend([Message::user("I like tea."), Message::assistant("So do I.")]);
/// conversation.push(Message::user("What do I like?"));
///
/// let recalled = SummaryMemory::new(1).recall(&model, &mut conversation).await?;
/// assert_eq!(recalled.trace.calls().count(), 1);
/// let messages = recalled.value.messages();
/// assert!(messages[0].content.ends_with("The user is Ada and likes tea."));
/// assert_eq!(messages[1..], [Message::user("What do I like?")]);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct SummaryMemory {
    keep: usize,
    max_tokens: usize,
    piece_tokens: usize,
    counter: Arc<dyn TokenCounter>,
    prompt: ChatPrompt,
    recap: ChatPrompt,
}

/// What is kept in the notes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Summary {
    text: String,
    /// The message after the last that it covers, by its place in the conversation.
    covers: usize,
}

impl std::fmt::Debug for SummaryMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SummaryMemory")
            .field("keep", &self.keep)
            .field("max_tokens", &self.max_tokens)
            .field("piece_tokens", &self.piece_tokens)
            .field("prompt", &self.prompt.name())
            .field("recap", &self.recap.name())
            .finish_non_exhaustive()
    }
}

impl SummaryMemory {
    /// Shows at least the last `keep` turns as they are, and at most twice as many. 0 counts as 1.
    pub fn new(keep: usize) -> Self {
        Self {
            keep: keep.max(1),
            max_tokens: SUMMARY_TOKENS,
            piece_tokens: PIECE_TOKENS,
            counter: Arc::new(ApproximateTokens),
            prompt: builtin::prompt("memory/summary"),
            recap: builtin::prompt("memory/recap"),
        }
    }

    /// Asks for the summary in other words: a prompt over `summary`, which is empty at first, and `transcript`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] if it wants other variables.
    pub fn with_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompt = prompt.supplied_by(&["summary", "transcript"])?;
        Ok(self)
    }

    /// Says the summary in other words: a prompt over `summary`, whose turns' texts are joined.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] if it wants other variables.
    pub fn with_recap(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.recap = prompt.supplied_by(&["summary"])?;
        Ok(self)
    }

    /// The longest summary, in tokens; 256 unless set.
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// The most that one call summarises, in tokens; 2,000 unless set. A single turn that is longer is given whole.
    pub fn with_piece_tokens(mut self, tokens: usize) -> Self {
        self.piece_tokens = tokens;
        self
    }

    /// Counts with the model's own tokenizer instead of [`ApproximateTokens`]' estimate.
    pub fn with_counter(mut self, counter: impl TokenCounter + 'static) -> Self {
        self.counter = Arc::new(counter);
        self
    }

    /// The transcripts of `groups`, put together while they stay below the limit, each with the message after its last.
    fn pieces(&self, groups: &[Vec<&Turn>]) -> Result<Vec<(String, usize)>> {
        let mut pieces: Vec<(String, usize, usize)> = Vec::new();
        for group in groups {
            let Some(covers) = group.iter().rev().find_map(|turn| turn.index) else { continue };
            let text = transcript(group);
            let tokens = self.counter.count(&text)?;
            match pieces.last_mut() {
                Some((piece, end, sum)) if *sum + tokens <= self.piece_tokens => {
                    piece.push('\n');
                    piece.push_str(&text);
                    (*end, *sum) = (covers + 1, *sum + tokens);
                }
                _ => pieces.push((text, covers + 1, tokens)),
            }
        }
        Ok(pieces.into_iter().map(|(piece, end, _)| (piece, end)).collect())
    }

    async fn update(&self, run: &Run<'_>, before: &str, transcript: &str) -> Result<String> {
        let messages = self.prompt.render(json!({ "summary": before, "transcript": transcript }))?;
        let request = ChatRequest { max_tokens: Some(self.max_tokens), ..ChatRequest::new(messages) };
        let response = run.chat("summary", request).await?;
        if response.finish_reason == FinishReason::Length {
            run.note(format!("the summary was cut off at {} tokens", self.max_tokens));
        }
        let text = response.message.content.trim();
        if text.is_empty() {
            return Err(Error::Memory {
                memory: self.name().to_owned(),
                expected: "a summary from the model".to_owned(),
                found: "an empty answer".to_owned(),
            });
        }
        Ok(text.to_owned())
    }
}

#[async_trait]
impl Memory for SummaryMemory {
    fn name(&self) -> &str {
        NOTE
    }

    async fn narrow(&self, run: &Run<'_>, mut view: View, notes: &mut Notes) -> Result<View> {
        let mut summary: Option<Summary> = notes.get(NOTE)?;
        let covered = summary.as_ref().map_or(0, |summary| summary.covers);
        let is_new =
            |group: &[&Turn]| group.iter().any(|turn| turn.index.is_some_and(|index| index >= covered));
        let groups: Vec<Vec<&Turn>> = view.groups().into_iter().filter(|group| is_new(group)).collect();
        if groups.len() > self.keep.saturating_mul(2) {
            for (transcript, covers) in self.pieces(&groups[..groups.len() - self.keep])? {
                let before = summary.as_ref().map_or("", |summary| summary.text.as_str());
                let text = self.update(run, before, &transcript).await?;
                // Kept piece by piece: what is done is not lost if the next call fails.
                summary = Some(Summary { text, covers });
                notes.set(NOTE, &summary)?;
            }
        }
        if let Some(Summary { text, covers }) = summary {
            view.drop_groups(self.name(), |group| {
                let is_old = group.iter().all(|turn| turn.index.is_none_or(|index| index < covers));
                is_old.then_some(Lost::Summarised)
            });
            let recap = self.recap.render(json!({ "summary": text }))?;
            let recap: Vec<String> = recap.into_iter().map(|message| message.content).collect();
            view.say_first(&recap.join("\n\n"));
        }
        Ok(view)
    }
}

/// The group as a text that a model reads about, not takes part in.
fn transcript(group: &[&Turn]) -> String {
    let mut text = String::new();
    for Turn { message, .. } in group {
        let Message { role, content, tool_calls, name, .. } = message;
        // What is said cannot end the transcript.
        let content = content.replace("</transcript", "< /transcript");
        let speaker = match role {
            Role::System => "System",
            Role::User => "User",
            Role::Assistant => "Assistant",
            Role::Tool => "Result",
        };
        if *role == Role::Tool {
            let name = name.as_deref().unwrap_or("tool");
            let _ = writeln!(text, "{speaker} of {name}: {content}");
        } else if !content.is_empty() {
            let _ = writeln!(text, "{speaker}: {content}");
        }
        for call in tool_calls {
            let arguments = call.arguments.to_string().replace("</transcript", "< /transcript");
            let _ = writeln!(text, "{speaker} calls {}: {arguments}", call.name);
        }
    }
    text.truncate(text.trim_end().len());
    text
}
