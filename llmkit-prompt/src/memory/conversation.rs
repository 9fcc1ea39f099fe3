use std::path::Path;

use llmkit_core::{ChatRequest, LanguageModel, Message};
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use super::{Memory, Notes, file};
use crate::run::spans;
use crate::{Result, Run, Traced};

/// A conversation, every message of it. What a model is shown of it is a [`Memory`]'s choice.
///
/// ```
/// use llmkit_prompt::memory::{Conversation, TokenBudgetMemory};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["Hello, Ada.", "Ada."]);
/// let memory = TokenBudgetMemory::new(1_000);
/// let mut conversation = Conversation::new().with_system("Answer briefly.");
/// conversation.ask(&model, &memory, "Hi, I am Ada.").await?;
///
/// // Saved and loaded, with whatever the memories keep.
/// let folder = tempfile::tempdir().unwrap();
/// conversation.save(folder.path().join("chat.json"))?;
/// let mut conversation = Conversation::load(folder.path().join("chat.json"))?;
/// let answer = conversation.ask(&model, &memory, "What is my name?").await?;
/// assert_eq!(answer.value.content, "Ada.");
/// assert_eq!(conversation.messages().len(), 5);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    messages: Vec<Message>,
    #[serde(default)]
    notes: Notes,
}

impl Conversation {
    /// An empty conversation.
    pub fn new() -> Self {
        Self::default()
    }

    /// The conversation with a system message at its end.
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.push(Message::system(text));
        self
    }

    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Adds messages, such as an agent's tool calls and their results.
    pub fn extend(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.messages.extend(messages);
    }

    /// All messages, in order.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Goes back to the first `length` messages. What memories kept is forgotten, as it may be about the others.
    pub fn truncate(&mut self, length: usize) {
        if length < self.messages.len() {
            self.messages.truncate(length);
            self.notes.clear();
        }
    }

    /// What memories keep with it.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    pub(super) fn notes_mut(&mut self) -> &mut Notes {
        &mut self.notes
    }

    /// Says `text`, has `model` answer to what `memory` shows it, and adds both to the conversation; if that fails or is given up half way,
    /// neither.
    ///
    /// # Errors
    /// What the memory and the model report.
    pub async fn ask(
        &mut self,
        model: &dyn LanguageModel,
        memory: &dyn Memory,
        text: impl Into<String> + Send,
    ) -> Result<Traced<Message>> {
        let run = Run::new("conversation", model);
        let answer = self.ask_in(&run, memory, text).instrument(run.span().clone()).await;
        let answer = spans::ended(run.span(), answer)?;
        Ok(run.finish(answer))
    }

    /// As [`ask`](Self::ask), within a larger run.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_in(
        &mut self,
        run: &Run<'_>,
        memory: &dyn Memory,
        text: impl Into<String> + Send,
    ) -> Result<Message> {
        let question = Question::put(self, text.into());
        let view = memory.recall_in(run, question.conversation).await?;
        let answer = run.chat("answer", ChatRequest::new(view.messages())).await?.message;
        question.answered(answer.clone());
        Ok(answer)
    }

    /// Writes the conversation as JSON: beside the file first, then renamed, so that a crash leaves the old file or the new one.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        file::write(path.as_ref(), self)
    }

    /// Reads what [`save`](Self::save) wrote; files larger than 64 MiB are refused.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Memory`](crate::Error::Memory) if it is no conversation.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        file::read(path.as_ref())
    }
}

/// A question that is taken back unless it is answered, also where the future of the answer is dropped.
struct Question<'a> {
    conversation: &'a mut Conversation,
    at: usize,
}

impl<'a> Question<'a> {
    fn put(conversation: &'a mut Conversation, text: String) -> Self {
        let at = conversation.messages.len();
        conversation.push(Message::user(text));
        Self { conversation, at }
    }

    fn answered(mut self, answer: Message) {
        self.conversation.push(answer);
        self.at = usize::MAX;
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        // The notes stay: a summary is of earlier turns.
        self.conversation.messages.truncate(self.at);
    }
}
