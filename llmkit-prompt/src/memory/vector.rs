use std::collections::HashMap;

use async_trait::async_trait;
use llmkit_core::{Embedder, Role};

use super::{Lost, Memory, Notes, Turn, View};
use crate::Result;
use crate::embeddings::{Embeddings, cosine};
use crate::run::Run;

/// The last turns, and those before them that are most like the question, in their order.
///
/// The question is the user's last message. Turns are compared as a whole, what was asked and what was answered, by the cosine of their
/// vectors; each turn's vector is computed once.
///
/// ```
/// use llmkit_prompt::memory::{Conversation, Memory, VectorMemory};
/// use llmkit_prompt::testing::{HashEmbedder, ScriptedModel};
/// use llmkit_prompt::Message;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let mut conversation = Conversation::new();
/// for fact in ["My cat is called Tom.", "The weather is bad.", "I like tea."] {
///     conversation.extend([Message::user(fact), Message::assistant("I see.")]);
/// }
/// conversation.push(Message::user("What is my cat called?"));
///
/// let memory = VectorMemory::new(HashEmbedder::new(256)).with_recent(1).with_count(1);
/// let view = memory.recall(&ScriptedModel::new([""; 0]), &mut conversation).await?.value;
/// assert_eq!(view.messages()[0].content, "My cat is called Tom.");
/// assert_eq!(view.messages().len(), 3);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct VectorMemory {
    embeddings: Embeddings,
    recent: usize,
    count: usize,
    threshold: Option<f64>,
}

impl VectorMemory {
    /// Compares by the vectors of `embedder`. The last 3 turns are always shown, and 3 of those before.
    pub fn new(embedder: impl Embedder + 'static) -> Self {
        Self { embeddings: Embeddings::new(embedder), recent: 3, count: 3, threshold: None }
    }

    /// How many of the last turns are always shown, the one that is being answered among them. 0 counts as 1.
    pub fn with_recent(mut self, turns: usize) -> Self {
        self.recent = turns.max(1);
        self
    }

    /// How many of the turns before are shown at most.
    pub fn with_count(mut self, turns: usize) -> Self {
        self.count = turns;
        self
    }

    /// Only turns whose cosine with the question is more than `threshold`, from -1 to 1.
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = Some(threshold);
        self
    }
}

#[async_trait]
impl Memory for VectorMemory {
    fn name(&self) -> &str {
        "vector"
    }

    async fn narrow(&self, _: &Run<'_>, mut view: View, _: &mut Notes) -> Result<View> {
        let texts: Vec<String> = view.groups().iter().map(|group| text(group)).collect();
        let old = texts.len().saturating_sub(self.recent);
        let question = view.turns().iter().rfind(|turn| turn.message.role == Role::User);
        let (Some(question), true) = (question, old > 0) else { return Ok(view) };

        let vectors = self.embeddings.of(texts[..old].iter().map(String::as_str)).await?;
        let question = self.embeddings.of_query(&question.message.content).await?;
        let mut ranked: Vec<(usize, f64)> =
            vectors.iter().map(|vector| cosine(&question, vector)).enumerate().collect();
        // Of equals, the later one: it is nearer to what is being talked about.
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
        let lost: HashMap<usize, f64> = ranked
            .into_iter()
            .enumerate()
            .filter(|(rank, (_, cosine))| {
                *rank >= self.count || self.threshold.is_some_and(|threshold| *cosine <= threshold)
            })
            .map(|(_, scored)| scored)
            .collect();
        let mut places = 0..;
        view.drop_groups(self.name(), |_| {
            let similarity = *lost.get(&places.next()?)?;
            Some(Lost::Unlike { similarity })
        });
        Ok(view)
    }
}

fn text(group: &[&Turn]) -> String {
    let texts: Vec<&str> =
        group.iter().map(|turn| turn.message.content.as_str()).filter(|text| !text.is_empty()).collect();
    texts.join("\n")
}
