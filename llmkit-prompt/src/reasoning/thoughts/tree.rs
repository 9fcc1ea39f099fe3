use std::fmt;

use serde::Serialize;

/// The partial solutions that [`TreeOfThoughts`](super::TreeOfThoughts) has looked at, in the order in which they were made.
///
/// ```
/// use llmkit_prompt::reasoning::{Reasoner, TreeOfThoughts};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let method = TreeOfThoughts::new(1).with_breadth(2).with_concurrency(1);
/// let model = ScriptedModel::new(["- Answer: blue\n- Answer: green", "Score: 8", "Score: 3"]);
/// let found = pollster::block_on(method.run(&model, "Which colour has the sky?"))?;
/// let tree = found.value.tree().expect("it searches a tree");
/// assert_eq!(tree.to_string(), "* 0.80 Answer: blue\n- 0.30 Answer: green\n");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ThoughtTree {
    /// The thoughts; a thought comes after its parent.
    pub thoughts: Vec<Thought>,
    /// The thought with which the chosen solution ends; none where no thought was made.
    pub chosen: Option<usize>,
    /// What ended the search before its time.
    pub stopped: Option<String>,
}

/// One step of a partial solution.
///
/// ```
/// use llmkit_prompt::reasoning::{Reasoner, ThoughtState, TreeOfThoughts};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let method = TreeOfThoughts::new(1).with_breadth(1).with_concurrency(1);
/// let model = ScriptedModel::new(["1. Look up. Answer: blue", "Score: 8"]);
/// let found = pollster::block_on(method.run(&model, "Which colour has the sky?"))?;
/// let thought = &found.value.tree().expect("it searches a tree").thoughts[0];
/// assert_eq!((thought.depth, thought.value, thought.state), (1, 0.8, ThoughtState::Solved));
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Thought {
    /// The thought before it; none for a first step.
    pub parent: Option<usize>,
    /// Which step it is, from 1.
    pub depth: usize,
    /// What it says.
    pub text: String,
    /// How promising the solution up to here is, from 0 to 1.
    pub value: f64,
    /// What became of it.
    pub state: ThoughtState,
}

/// What became of a [`Thought`].
///
/// ```
/// use llmkit_prompt::reasoning::ThoughtState;
///
/// assert_ne!(ThoughtState::Pruned, ThoughtState::Expanded);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThoughtState {
    /// Nothing yet: it has no next steps, and the search did not come back to it.
    Open,
    /// It was taken further.
    Expanded,
    /// It was given up: outside the beam or below the threshold.
    Pruned,
    /// It states an answer or is the last step.
    Solved,
}

impl ThoughtTree {
    /// The texts from the first step to thought `index`. Empty where there is no such thought.
    pub fn path(&self, index: usize) -> Vec<&str> {
        let mut texts = Vec::new();
        let mut next = Some(index);
        while let Some(thought) = next.and_then(|index| self.thoughts.get(index)) {
            texts.push(thought.text.as_str());
            next = thought.parent;
        }
        texts.reverse();
        texts
    }

    /// The steps of the chosen solution.
    pub fn chosen_path(&self) -> Vec<&str> {
        self.chosen.map(|chosen| self.path(chosen)).unwrap_or_default()
    }
}

/// One line a thought, indented by its depth, with its value; `*` marks the chosen solution, `x` what was given up.
impl fmt::Display for ThoughtTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chosen = vec![false; self.thoughts.len()];
        let mut next = self.chosen;
        while let Some(index) = next.filter(|index| *index < chosen.len()) {
            chosen[index] = true;
            next = self.thoughts[index].parent;
        }
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.thoughts.len()];
        let mut stack = Vec::new();
        for (index, thought) in self.thoughts.iter().enumerate().rev() {
            match thought.parent.and_then(|parent| children.get_mut(parent)) {
                Some(siblings) => siblings.push(index),
                None => stack.push(index),
            }
        }
        while let Some(index) = stack.pop() {
            let thought = &self.thoughts[index];
            let mark = match thought.state {
                _ if chosen[index] => '*',
                ThoughtState::Pruned => 'x',
                _ => '-',
            };
            let text = thought.text.split_whitespace().collect::<Vec<_>>().join(" ");
            writeln!(
                f,
                "{:indent$}{mark} {:.2} {text}",
                "",
                thought.value,
                indent = 2 * (thought.depth - 1)
            )?;
            stack.append(&mut children[index]);
        }
        if let Some(stopped) = &self.stopped {
            writeln!(f, "({stopped})")?;
        }
        Ok(())
    }
}
