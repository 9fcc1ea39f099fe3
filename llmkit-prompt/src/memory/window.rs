use async_trait::async_trait;

use super::{Lost, Memory, Notes, View};
use crate::{Result, Run};

/// The last turns, the one that is being answered among them.
///
/// ```
/// use llmkit_prompt::memory::{Conversation, WindowMemory};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["Hello.", "Fine.", "Yes."]);
/// let (mut conversation, memory) = (Conversation::new().with_system("Be brief."), WindowMemory::new(2));
/// for question in ["Hi!", "How are you?", "Really?"] {
///     conversation.ask(&model, &memory, question).await?;
/// }
/// // The last request: the system message and two turns.
/// let shown: Vec<String> = model.requests()[2].messages.iter().map(|message| message.content.clone()).collect();
/// assert_eq!(shown, ["Be brief.", "How are you?", "Fine.", "Really?"]);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowMemory {
    turns: usize,
}

impl WindowMemory {
    /// Shows the last `turns` turns: a user's message each, with all that follows it. 0 counts as 1, as there would be nothing to
    /// answer.
    pub fn new(turns: usize) -> Self {
        Self { turns: turns.max(1) }
    }
}

#[async_trait]
impl Memory for WindowMemory {
    fn name(&self) -> &str {
        "window"
    }

    async fn narrow(&self, _: &Run<'_>, mut view: View, _: &mut Notes) -> Result<View> {
        let mut too_old = view.groups().len().saturating_sub(self.turns);
        view.drop_groups(self.name(), |_| {
            let old = too_old > 0;
            too_old = too_old.saturating_sub(1);
            old.then_some(Lost::Window { turns: self.turns })
        });
        Ok(view)
    }
}
