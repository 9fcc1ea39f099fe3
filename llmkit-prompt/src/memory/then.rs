use async_trait::async_trait;

use super::{Memory, Notes, View};
use crate::{Result, Run};

/// Two memories, one after the other; made by [`Memory::then`].
///
/// ```
/// use llmkit_prompt::memory::{Conversation, Memory, SummaryMemory, TokenBudgetMemory};
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::Message;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// // A summary of what is long ago, and never more than 300 tokens.
/// let memory = SummaryMemory::new(1).then(TokenBudgetMemory::new(300));
/// let model = ScriptedModel::new(["They greeted each other."]);
/// let mut conversation = Conversation::new();
/// conversation.extend([Message::user("Hi!"), Message::assistant("Hello."), Message::user("Well?"), Message::assistant("Well!")]);
/// conversation.push(Message::user("How are you?"));
/// let view = memory.recall(&model, &mut conversation).await?.value;
/// assert!(view.messages()[0].content.contains("They greeted each other."));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Then<A, B> {
    first: A,
    second: B,
    name: String,
}

impl<A: Memory, B: Memory> Then<A, B> {
    pub(super) fn new(first: A, second: B) -> Self {
        let name = format!("{}, then {}", first.name(), second.name());
        Self { first, second, name }
    }
}

#[async_trait]
impl<A: Memory, B: Memory> Memory for Then<A, B> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn narrow(&self, run: &Run<'_>, view: View, notes: &mut Notes) -> Result<View> {
        let view = self.first.narrow(run, view, notes).await?;
        self.second.narrow(run, view, notes).await
    }
}
