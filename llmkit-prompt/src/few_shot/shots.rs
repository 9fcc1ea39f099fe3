use std::fmt;

use llmkit_core::{Message, Role};
use serde::Serialize;

use super::Why;

/// The examples that were chosen for a query, ready for a prompt.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot};
/// use llmkit_prompt::{ChatPrompt, Role};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([json!({"q": "2 + 2", "a": "4"}), json!({"q": "3 + 5", "a": "8"})])?;
/// let few_shot = FewShot::new(examples, "Q: {{ q }}", "A: {{ a }}")?;
/// let shots = few_shot.select(json!({"q": "1 + 6"})).await?;
///
/// // In a slot of a template ...
/// let prompt = ChatPrompt::new("sums", [(Role::User, "{{ examples }}\n\nQ: {{ q }}\nA:")], ["examples", "q"])?;
/// let messages = prompt.render(json!({"examples": shots.text(), "q": "1 + 6"}))?;
/// assert_eq!(messages[0].content, "Q: 2 + 2\nA: 4\n\nQ: 3 + 5\nA: 8\n\nQ: 1 + 6\nA:");
///
/// // ... or as turns before the last question of a prompt.
/// let prompt = ChatPrompt::new("sums", [(Role::System, "Calculate."), (Role::User, "Q: {{ q }}")], ["q"])?;
/// let messages = shots.insert_into(prompt.render(json!({"q": "1 + 6"}))?);
/// assert_eq!(messages.len(), 6);
/// assert_eq!((messages[2].role, messages[2].content.as_str()), (Role::Assistant, "A: 4"));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Shots {
    /// The chosen examples, in the order of the prompt.
    pub chosen: Vec<Shot>,
    /// Examples that would have been chosen, or might have been, and are not there.
    pub left_out: Vec<LeftOut>,
    /// What the chosen ones take together, as turns or as a text, whichever is more, in tokens.
    pub tokens: usize,
    query: String,
    #[serde(skip)]
    separators: [String; 2],
}

/// An example in a prompt.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot, RandomSelector};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([json!({"q": "2 + 2", "a": "4"})])?;
/// let few_shot = FewShot::new(examples, "{{ q }} =", "{{ a }}")?.with_selector(RandomSelector::new(1), 1);
/// let shot = &few_shot.select(json!({"q": "3 + 3"})).await?.chosen[0];
/// assert_eq!((shot.index, shot.input.as_str(), shot.output.as_str()), (0, "2 + 2 =", "4"));
/// assert_eq!(shot.why.to_string(), "drawn with seed 1");
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Shot {
    /// Its place among all examples, from 0.
    pub index: usize,
    /// The user's turn.
    pub input: String,
    /// The assistant's turn.
    pub output: String,
    /// What the two turns take, in tokens.
    pub tokens: usize,
    /// The selector's score; higher is better.
    pub score: f64,
    /// What the score is made of.
    pub why: Why,
}

/// An example that is not in the prompt for a reason that its user may want to know.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([json!({"q": "2 + 2", "a": "4"}), json!({"q": "3 + 5", "a": "8"})])?;
/// let few_shot = FewShot::new(examples, "{{ q }} =", "{{ a }}")?;
/// let shots = few_shot.select(json!({"q": "3 + 5"})).await?;
/// assert_eq!(shots.left_out[0].to_string(), "example 1: its input is the query");
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its place among all examples, from 0.
    pub index: usize,
    /// Why it is not there.
    pub reason: Reason,
}

/// Why an example is not in the prompt.
///
/// ```
/// use llmkit_prompt::few_shot::Reason;
///
/// let reason = Reason::Budget { tokens: 40, left: 12 };
/// assert_eq!(reason.to_string(), "it takes 40 tokens where 12 were left");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Its input is the query's, up to case and spaces.
    SameAsQuery,
    /// It was chosen and did not fit.
    Budget {
        /// What it takes, in tokens.
        tokens: usize,
        /// What was left of the budget, in tokens.
        left: usize,
    },
}

impl Shots {
    pub(super) fn new(
        chosen: Vec<Shot>,
        left_out: Vec<LeftOut>,
        query: String,
        separators: [String; 2],
    ) -> Self {
        Self { chosen, left_out, tokens: 0, query, separators }
    }

    /// The query as the template of the inputs renders it.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The examples as turns of user and assistant.
    pub fn messages(&self) -> Vec<Message> {
        let turns = |shot: &Shot| [Message::user(&shot.input), Message::assistant(&shot.output)];
        self.chosen.iter().flat_map(turns).collect()
    }

    /// The examples as turns, and the query as the user's last.
    pub fn conversation(&self) -> Vec<Message> {
        let mut messages = self.messages();
        messages.push(Message::user(&self.query));
        messages
    }

    /// The turns of a prompt with the examples before the last turn of the user's, or at the end where there is none.
    pub fn insert_into(&self, mut prompt: Vec<Message>) -> Vec<Message> {
        let at = prompt.iter().rposition(|message| message.role == Role::User).unwrap_or(prompt.len());
        prompt.splice(at..at, self.messages());
        prompt
    }

    /// The examples as one text, for a slot in a template.
    pub fn text(&self) -> String {
        text(&self.chosen, &self.separators)
    }
}

/// One line an example.
impl fmt::Display for Shots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} chosen, {} left out, {} tokens", self.chosen.len(), self.left_out.len(), self.tokens)?;
        for Shot { index, score, why, .. } in &self.chosen {
            write!(f, "\n  example {index}: {score:.3} = {why}")?;
        }
        for left_out in &self.left_out {
            write!(f, "\n  without {left_out}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "example {}: {}", self.index, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameAsQuery => f.write_str("its input is the query"),
            Self::Budget { tokens, left } => write!(f, "it takes {tokens} tokens where {left} were left"),
        }
    }
}

pub(super) fn text(shots: &[Shot], [within, between]: &[String; 2]) -> String {
    let shots: Vec<String> =
        shots.iter().map(|shot| format!("{}{within}{}", shot.input, shot.output)).collect();
    shots.join(between)
}
