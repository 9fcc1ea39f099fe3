use std::fmt;
use std::ops::Range;

use llmkit_core::{Message, Role};
use serde::Serialize;

use super::Conversation;

/// What a model is shown of a conversation, and what it is not shown.
///
/// ```
/// use llmkit_prompt::memory::{Conversation, Memory, WindowMemory};
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::Message;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let mut conversation = Conversation::new();
/// conversation.extend([Message::user("Hi!"), Message::assistant("Hello."), Message::user("How are you?")]);
/// let view = WindowMemory::new(1).recall(&ScriptedModel::new([""; 0]), &mut conversation).await?.value;
/// assert_eq!(view.messages(), [Message::user("How are you?")]);
/// assert_eq!(view.dropped().len(), 2);
/// assert_eq!(view.to_string(), "1 message shown, 2 dropped (window: 2)");
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct View {
    turns: Vec<Turn>,
    dropped: Vec<Dropped>,
}

/// A message that is shown.
///
/// ```
/// use llmkit_prompt::memory::{Conversation, View};
///
/// let view = View::of(&Conversation::new().with_system("Be brief."));
/// assert_eq!((view.turns()[0].index, view.turns()[0].message.content.as_str()), (Some(0), "Be brief."));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Turn {
    /// Its place in the conversation, from 0; none for what a memory says itself.
    pub index: Option<usize>,
    /// The message.
    pub message: Message,
}

/// A message that is not shown.
///
/// ```
/// use llmkit_prompt::memory::{Dropped, Lost};
///
/// let dropped = Dropped { index: 4, by: "window".to_owned(), why: Lost::Window { turns: 3 } };
/// assert_eq!(dropped.to_string(), "message 4: dropped by window: not among the last 3 turns");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dropped {
    /// Its place in the conversation, from 0.
    pub index: usize,
    /// The memory that dropped it.
    pub by: String,
    /// Why.
    pub why: Lost,
}

/// Why a message is not shown.
///
/// ```
/// use llmkit_prompt::memory::Lost;
///
/// assert_eq!(Lost::Budget { tokens: 80, left: 20 }.to_string(), "its turn takes 80 tokens where 20 were left");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Lost {
    /// It is older than the last turns.
    Window {
        /// How many turns are kept.
        turns: usize,
    },
    /// Its turn did not fit, or is older than one that did not.
    Budget {
        /// What its turn takes, in tokens.
        tokens: usize,
        /// What was left, in tokens.
        left: usize,
    },
    /// The summary covers it.
    Summarised,
    /// Others are more like the question.
    Unlike {
        /// The cosine of its turn and the question.
        similarity: f64,
    },
    /// Something else, in words.
    Other(String),
}

impl View {
    /// The whole conversation.
    pub fn of(conversation: &Conversation) -> Self {
        let turn =
            |(index, message): (usize, &Message)| Turn { index: Some(index), message: message.clone() };
        Self { turns: conversation.messages().iter().enumerate().map(turn).collect(), dropped: Vec::new() }
    }

    /// The messages that are shown.
    pub fn messages(&self) -> Vec<Message> {
        self.turns.iter().map(|turn| turn.message.clone()).collect()
    }

    /// The messages that are shown, with their places.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The messages that are not shown.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// The turns that are kept or dropped as one: a user's message with all that follows it up to the user's next, or what stands before the
    /// first. System messages belong to none.
    pub fn groups(&self) -> Vec<Vec<&Turn>> {
        let groups = self
            .ranges()
            .into_iter()
            .map(|range| self.turns[range].iter().filter(|turn| turn.message.role != Role::System).collect());
        groups.collect()
    }

    /// Drops the groups for which `lost` has a reason, in the name of the memory `by`. System messages between them stay.
    pub fn drop_groups(&mut self, by: &str, mut lost: impl FnMut(&[&Turn]) -> Option<Lost>) {
        let reasons: Vec<Option<Lost>> = self.groups().iter().map(|group| lost(group)).collect();
        let mut reason_of: Vec<Option<Lost>> = vec![None; self.turns.len()];
        for (range, reason) in self.ranges().into_iter().zip(reasons) {
            reason_of[range].fill(reason);
        }
        let mut kept = Vec::with_capacity(self.turns.len());
        for (turn, reason) in std::mem::take(&mut self.turns).into_iter().zip(reason_of) {
            match reason {
                Some(why) if turn.message.role != Role::System => {
                    let dropped = turn.index.map(|index| Dropped { index, by: by.to_owned(), why });
                    self.dropped.extend(dropped);
                }
                _ => kept.push(turn),
            }
        }
        self.turns = kept;
    }

    /// Says `text` to the model before the conversation: at the end of its first system message, or as one where there is none, since many chat
    /// templates take one only.
    pub fn say_first(&mut self, text: &str) {
        match self.turns.first_mut() {
            Some(Turn { message, .. }) if message.role == Role::System => {
                message.content = format!("{}\n\n{text}", message.content);
            }
            _ => self.turns.insert(0, Turn { index: None, message: Message::system(text) }),
        }
    }

    /// The groups, each from its first message to before the next one's, whatever system messages are between.
    fn ranges(&self) -> Vec<Range<usize>> {
        let mut starts: Vec<usize> = Vec::new();
        for (at, turn) in self.turns.iter().enumerate() {
            match turn.message.role {
                Role::User => starts.push(at),
                Role::Assistant | Role::Tool if starts.is_empty() => starts.push(at),
                _ => {}
            }
        }
        let ends = starts.iter().skip(1).copied().chain([self.turns.len()]);
        starts.iter().zip(ends).map(|(start, end)| *start..end).collect()
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.turns.len();
        write!(
            f,
            "{shown} message{} shown, {} dropped",
            if shown == 1 { "" } else { "s" },
            self.dropped.len()
        )?;
        let mut by: Vec<(&str, usize)> = Vec::new();
        for dropped in &self.dropped {
            match by.iter_mut().find(|(name, _)| *name == dropped.by) {
                Some((_, count)) => *count += 1,
                None => by.push((&dropped.by, 1)),
            }
        }
        let by: Vec<String> = by.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        if by.is_empty() { Ok(()) } else { write!(f, " ({})", by.join(", ")) }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {}: dropped by {}: {}", self.index, self.by, self.why)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window { turns } => write!(f, "not among the last {turns} turns"),
            Self::Budget { tokens, left } => {
                write!(f, "its turn takes {tokens} tokens where {left} were left")
            }
            Self::Summarised => f.write_str("in the summary"),
            Self::Unlike { similarity } => {
                write!(f, "others are more like the question than {similarity:.3}")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}
