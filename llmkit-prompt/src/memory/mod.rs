//! The memory of a conversation: what of it a model is shown once it is too long to be shown whole.
//!
//! A [`Conversation`] keeps every message. A [`Memory`] narrows it down to a [`View`], which says what it dropped and why:
//!
//! | Memory | Shows | Needs |
//! |---|---|---|
//! | [`WindowMemory`] | the last turns | nothing |
//! | [`TokenBudgetMemory`] | the last turns that fit into a number of tokens | a token counter, or an estimate |
//! | [`SummaryMemory`] | the last turns, and a running summary of those before | the model |
//! | [`VectorMemory`] | the last turns, and those before that are most like the question | an [`Embedder`](llmkit_core::Embedder) |
//!
//! They are composed by [`then`](Memory::then). System messages are always shown, and turns are kept or dropped whole: a question with
//! all that follows it, so that no tool call ever loses its result.

mod budget;
mod conversation;
mod file;
mod notes;
mod summary;
mod then;
mod vector;
mod view;
mod window;

use std::sync::Arc;

use async_trait::async_trait;
use llmkit_core::LanguageModel;
use tracing::Instrument;

use crate::run::spans;
use crate::{Result, Run, Traced};

pub use budget::TokenBudgetMemory;
pub use conversation::Conversation;
pub use notes::Notes;
pub use summary::SummaryMemory;
pub use then::Then;
pub use vector::VectorMemory;
pub use view::{Dropped, Lost, Turn, View};
pub use window::WindowMemory;

/// A way to narrow a conversation down to what a model is shown.
///
/// ```
/// use async_trait::async_trait;
/// use llmkit_prompt::memory::{Conversation, Lost, Memory, Notes, View};
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::{Message, Result, Run};
///
/// /// Forgets turns in which a secret was told.
/// struct Discreet;
///
/// #[async_trait]
/// impl Memory for Discreet {
///     fn name(&self) -> &str {
///         "discreet"
///     }
///
///     async fn narrow(&self, _: &Run<'_>, mut view: View, _: &mut Notes) -> Result<View> {
///         view.drop_groups(self.name(), |group| {
///             let secret = group.iter().any(|turn| turn.message.content.contains("secret"));
///             secret.then(|| Lost::Other("a secret was told".to_owned()))
///         });
///         Ok(view)
///     }
/// }
///
/// # fn main() -> Result<()> {
/// # pollster::block_on(async {
/// let mut conversation = Conversation::new();
/// conversation.extend([Message::user("A secret: 42."), Message::assistant("I see."), Message::user("Well?")]);
/// let view = Discreet.recall(&ScriptedModel::new([""; 0]), &mut conversation).await?.value;
/// assert_eq!(view.messages(), [Message::user("Well?")]);
/// assert_eq!(view.dropped()[0].to_string(), "message 0: dropped by discreet: a secret was told");
/// # Ok(())
/// # })
/// # }
/// ```
#[async_trait]
pub trait Memory: Send + Sync {
    /// What the method is called, for traces and reports.
    fn name(&self) -> &str;

    /// What is left of `view`, with a report of what is not. `notes` are kept with the conversation, and saved with it.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory) if what has to be shown cannot be, and whatever the model or the embedder reports.
    async fn narrow(&self, run: &Run<'_>, view: View, notes: &mut Notes) -> Result<View>;

    /// What the model is shown of `conversation`, within a larger run.
    ///
    /// # Errors
    /// As [`narrow`](Self::narrow).
    async fn recall_in(&self, run: &Run<'_>, conversation: &mut Conversation) -> Result<View> {
        let view = View::of(conversation);
        let view = self.narrow(run, view, conversation.notes_mut()).await?;
        run.note(format!("memory {}: {view}", self.name()));
        Ok(view)
    }

    /// What `model` is shown of `conversation`, with a trace of the calls that it took.
    ///
    /// # Errors
    /// As [`narrow`](Self::narrow).
    async fn recall(
        &self,
        model: &dyn LanguageModel,
        conversation: &mut Conversation,
    ) -> Result<Traced<View>> {
        let run = Run::new(self.name(), model);
        let view = self.recall_in(&run, conversation).instrument(run.span().clone()).await;
        let view = spans::ended(run.span(), view)?;
        Ok(run.finish(view))
    }

    /// This memory, and then `next` on what it shows.
    fn then<M: Memory>(self, next: M) -> Then<Self, M>
    where
        Self: Sized,
    {
        Then::new(self, next)
    }
}

#[async_trait]
impl<M: Memory + ?Sized> Memory for Box<M> {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn narrow(&self, run: &Run<'_>, view: View, notes: &mut Notes) -> Result<View> {
        (**self).narrow(run, view, notes).await
    }
}

#[async_trait]
impl<M: Memory + ?Sized> Memory for Arc<M> {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn narrow(&self, run: &Run<'_>, view: View, notes: &mut Notes) -> Result<View> {
        (**self).narrow(run, view, notes).await
    }
}
