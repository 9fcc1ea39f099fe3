use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use llmkit_core::{ApproximateTokens, Message, Role, TokenCounter};

use super::{Lost, Memory, Notes, View};
use crate::{Error, Result, Run};

/// What a message costs beside its text, unless set.
const MESSAGE_TOKENS: usize = 5;

/// The last turns that fit into a number of tokens, together with the system messages.
///
/// ```
/// use llmkit_prompt::memory::{Conversation, Memory, TokenBudgetMemory};
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::Message;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let mut conversation = Conversation::new().with_system("Be brief.");
/// for n in 0..20 {
///     conversation.extend([Message::user(format!("Question {n}?")), Message::assistant(format!("Answer {n}."))]);
/// }
/// conversation.push(Message::user("And now?"));
/// let memory = TokenBudgetMemory::new(100);
/// let view = memory.recall(&ScriptedModel::new([""; 0]), &mut conversation).await?.value;
/// assert!(memory.tokens(&view.messages())? <= 100);
/// assert_eq!(view.messages()[0], Message::system("Be brief."));
/// assert_eq!(view.messages().last(), Some(&Message::user("And now?")));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct TokenBudgetMemory {
    tokens: usize,
    message_tokens: usize,
    counter: Arc<dyn TokenCounter>,
}

impl fmt::Debug for TokenBudgetMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBudgetMemory")
            .field("tokens", &self.tokens)
            .field("message_tokens", &self.message_tokens)
            .finish_non_exhaustive()
    }
}

impl TokenBudgetMemory {
    /// Shows at most `tokens` tokens. Leave room for the answer: the model's context holds both.
    pub fn new(tokens: usize) -> Self {
        Self { tokens, message_tokens: MESSAGE_TOKENS, counter: Arc::new(ApproximateTokens) }
    }

    /// Counts with the model's own tokenizer instead of [`ApproximateTokens`]' estimate.
    pub fn with_counter(mut self, counter: impl TokenCounter + 'static) -> Self {
        self.counter = Arc::new(counter);
        self
    }

    /// What each message costs beside its text, in tokens, by the model's chat template; 5 unless set.
    pub fn with_message_tokens(mut self, tokens: usize) -> Self {
        self.message_tokens = tokens;
        self
    }

    /// What `messages` take, in tokens: their texts, thoughts and tool calls, and what each costs beside them.
    ///
    /// # Errors
    /// What the counter reports.
    pub fn tokens(&self, messages: &[Message]) -> Result<usize> {
        messages.iter().try_fold(0, |sum, message| Ok(sum + self.cost(message)?))
    }

    fn cost(&self, message: &Message) -> Result<usize> {
        let mut tokens = self.message_tokens + self.counter.count(&message.content)?;
        if let Some(reasoning) = &message.reasoning {
            tokens += self.counter.count(reasoning)?;
        }
        for call in &message.tool_calls {
            tokens += self.counter.count(&call.name)? + self.counter.count(&call.arguments.to_string())?;
        }
        Ok(tokens)
    }
}

#[async_trait]
impl Memory for TokenBudgetMemory {
    fn name(&self) -> &str {
        "token budget"
    }

    async fn narrow(&self, _: &Run<'_>, mut view: View, _: &mut Notes) -> Result<View> {
        let mut needed = 0;
        for turn in view.turns().iter().filter(|turn| turn.message.role == Role::System) {
            needed += self.cost(&turn.message)?;
        }
        let costs: Vec<usize> = view
            .groups()
            .iter()
            .map(|group| {
                group.iter().try_fold(0, |sum, turn| Ok::<_, Error>(sum + self.cost(&turn.message)?))
            })
            .collect::<Result<_>>()?;
        needed += costs.last().copied().unwrap_or_default();
        let Some(mut left) = self.tokens.checked_sub(needed) else {
            return Err(Error::Memory {
                memory: self.name().to_owned(),
                expected: format!(
                    "the system messages and the last turn to fit into {} tokens: raise the budget or shorten them",
                    self.tokens
                ),
                found: format!("{needed} tokens"),
            });
        };
        let mut lost: Vec<Option<Lost>> = vec![None; costs.len()];
        let mut full = None;
        for (place, tokens) in costs.iter().enumerate().rev().skip(1) {
            // Without gaps: what is older than a turn that does not fit is dropped too.
            if full.is_none() && *tokens <= left {
                left -= tokens;
            } else {
                let left = *full.get_or_insert(left);
                lost[place] = Some(Lost::Budget { tokens: *tokens, left });
            }
        }
        let mut lost = lost.into_iter();
        view.drop_groups(self.name(), |_| lost.next().flatten());
        Ok(view)
    }
}
