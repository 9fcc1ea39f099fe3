use futures_util::stream::{self, StreamExt as _};
use llmkit_core::{ChatRequest, ChatResponse};
use serde::Serialize;

use super::tree::{Thought, ThoughtState, ThoughtTree};
use super::{TreeOfThoughts, evaluate, generate};
use crate::reasoning::answer::stated;
use crate::{Result, Run};

/// How [`TreeOfThoughts`] searches.
///
/// ```
/// use llmkit_prompt::reasoning::{Reasoner, Search, TreeOfThoughts};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// // In depth: the first way looks better, leads nowhere, and is given up for the second.
/// let method = TreeOfThoughts::new(2)
///     .with_breadth(2)
///     .with_search(Search::Depth { threshold: 0.5 })
///     .with_concurrency(1);
/// let model = ScriptedModel::new([
///     "1. Go left.\n2. Go right.",
///     "Score: 9",
///     "Score: 6",
///     "1. A wall. Answer: none\n2. A ditch. Answer: none",
///     "Score: 0",
///     "Score: 1",
///     "1. A door. Answer: right",
///     "Score: 10",
/// ]);
/// let found = pollster::block_on(method.run(&model, "Where is the way out?"))?;
/// assert_eq!(found.value.answer, "right");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Search {
    /// All partial solutions of one step, then of the next; after each the `beam` most valuable stay. The most valuable of the last
    /// step is chosen. A solution that states an answer stays in the beam as it is.
    Breadth {
        /// Partial solutions that are kept, at least 1.
        beam: usize,
    },
    /// The most valuable way first, to its end; one whose value is below the threshold is given up. The first solution that is complete is
    /// chosen.
    Depth {
        /// From 0 to 1.
        threshold: f64,
    },
}

/// A search under way.
pub(super) struct Searcher<'a> {
    method: &'a TreeOfThoughts,
    run: &'a Run<'a>,
    question: &'a str,
    tree: ThoughtTree,
    calls: usize,
}

impl<'a> Searcher<'a> {
    pub(super) fn new(method: &'a TreeOfThoughts, run: &'a Run<'a>, question: &'a str) -> Self {
        Self { method, run, question, tree: ThoughtTree::default(), calls: 0 }
    }

    pub(super) async fn search(mut self) -> Result<ThoughtTree> {
        match self.method.search {
            Search::Breadth { beam } => self.breadth_first(beam).await?,
            Search::Depth { threshold } => self.depth_first(threshold).await?,
        }
        Ok(self.tree)
    }

    async fn breadth_first(&mut self, beam: usize) -> Result<()> {
        // The root is no thought: `None`.
        let mut frontier: Vec<Option<usize>> = vec![None];
        for _ in 0..self.method.depth {
            let (done, open): (Vec<_>, Vec<_>) =
                frontier.iter().copied().partition(|place| self.is_solved(*place));
            if open.is_empty() {
                break;
            }
            let mut next: Vec<usize> = done.into_iter().flatten().collect();
            next.extend(self.expand(&open).await?);
            self.sort(&mut next);
            for pruned in next.split_off(beam.min(next.len())) {
                self.tree.thoughts[pruned].state = ThoughtState::Pruned;
            }
            if next.is_empty() {
                break;
            }
            frontier = next.into_iter().map(Some).collect();
            if self.tree.stopped.is_some() {
                break;
            }
        }
        self.tree.chosen = frontier[0];
        Ok(())
    }

    async fn depth_first(&mut self, threshold: f64) -> Result<()> {
        let mut stack: Vec<Option<usize>> = vec![None];
        while let Some(place) = stack.pop() {
            if self.is_solved(place) {
                self.tree.chosen = place;
                return Ok(());
            }
            let mut next = self.expand(&[place]).await?;
            self.sort(&mut next);
            next.retain(|index| {
                let thought = &mut self.tree.thoughts[*index];
                let promising = thought.value >= threshold;
                if !promising {
                    thought.state = ThoughtState::Pruned;
                }
                promising
            });
            // The most valuable is popped first.
            stack.extend(next.into_iter().rev().map(Some));
            if self.tree.stopped.is_some() {
                break;
            }
        }
        if self.tree.stopped.is_none() {
            self.tree.stopped = Some(format!("no complete solution has a value of at least {threshold}"));
        }
        // The furthest of what there is, complete or not, and of that the most valuable; the first among equals.
        let rank = |thought: &Thought| (thought.state != ThoughtState::Pruned, thought.depth, thought.value);
        let mut best: Option<usize> = None;
        for (index, thought) in self.tree.thoughts.iter().enumerate() {
            if best.is_none_or(|best| rank(thought) > rank(&self.tree.thoughts[best])) {
                best = Some(index);
            }
        }
        self.tree.chosen = best;
        Ok(())
    }

    fn is_solved(&self, place: Option<usize>) -> bool {
        place.is_some_and(|index| self.tree.thoughts[index].state == ThoughtState::Solved)
    }

    /// The most valuable first; the earlier first among equals.
    fn sort(&self, places: &mut [usize]) {
        let value = |place: &usize| self.tree.thoughts[*place].value;
        places.sort_by(|left, right| value(right).total_cmp(&value(left)).then(left.cmp(right)));
    }

    /// Makes and judges the next thoughts of all `places`. Gives nothing, and says why in the tree, where a limit forbids it.
    async fn expand(&mut self, places: &[Option<usize>]) -> Result<Vec<usize>> {
        let method = self.method;
        let each = method.generate.calls(method.breadth);
        let most = places.len().saturating_mul(method.breadth);
        let calls = each.saturating_mul(places.len()).saturating_add(method.evaluate.calls(most));
        if self.calls.saturating_add(calls) > method.max_calls {
            self.tree.stopped = Some(format!(
                "{} calls were made, and up to {calls} more would pass the limit of {}",
                self.calls, method.max_calls
            ));
            return Ok(Vec::new());
        }
        let mut requests = Vec::new();
        for place in places {
            let path = place.map(|index| self.tree.path(index)).unwrap_or_default();
            for index in 0..each {
                requests.push(generate::request(method, self.question, &path, index)?);
            }
        }
        let replies = self.ask("generate", requests).await?;
        let mut made: Vec<usize> = Vec::new();
        for (place, replies) in places.iter().zip(replies.chunks(each)) {
            for text in generate::read(method, self.run, replies) {
                if self.tree.thoughts.len() == method.max_thoughts {
                    self.tree.stopped =
                        Some(format!("the limit of {} thoughts is reached", method.max_thoughts));
                    break;
                }
                made.push(self.tree.thoughts.len());
                let depth = 1 + place.map_or(0, |place| self.tree.thoughts[place].depth);
                let solved = depth == method.depth || stated(&text).is_some();
                let state = if solved { ThoughtState::Solved } else { ThoughtState::Open };
                self.tree.thoughts.push(Thought { parent: *place, depth, text, value: 0.0, state });
            }
            if let Some(place) = place {
                self.tree.thoughts[*place].state = ThoughtState::Expanded;
            }
        }
        self.judge(&made).await?;
        Ok(made)
    }

    async fn judge(&mut self, made: &[usize]) -> Result<()> {
        let candidates: Vec<Vec<&str>> = made.iter().map(|index| self.tree.path(*index)).collect();
        let requests = evaluate::requests(self.method, self.question, &candidates)?;
        let replies = self.ask("evaluate", requests).await?;
        let values = evaluate::read(self.method.evaluate, self.run, made.len(), &replies);
        for (index, value) in made.iter().zip(values) {
            self.tree.thoughts[*index].value = value;
        }
        Ok(())
    }

    /// The replies' texts, in the requests' order, in which they are recorded too.
    async fn ask(&mut self, step: &str, requests: Vec<ChatRequest>) -> Result<Vec<String>> {
        let parts: Vec<Run<'_>> = (0..requests.len())
            .map(|_| {
                self.run.part(format!("call {}", {
                    self.calls += 1;
                    self.calls
                }))
            })
            .collect();
        let calls: Vec<_> =
            parts.iter().zip(requests).map(|(part, request)| part.chat(step, request)).collect();
        let replies: Vec<Result<ChatResponse>> =
            stream::iter(calls).buffered(self.method.concurrency).collect().await;
        for part in parts {
            self.run.include(part);
        }
        replies.into_iter().map(|reply| Ok(reply?.message.content)).collect()
    }
}
