use llmkit_core::ChatRequest;
use serde::Serialize;
use serde_json::json;

use super::TreeOfThoughts;
use crate::reasoning::list::list;
use crate::{Result, Run};

/// How [`TreeOfThoughts`] makes the next steps of a partial solution.
///
/// ```
/// use llmkit_prompt::reasoning::{Generate, Reasoner, TreeOfThoughts};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let method = TreeOfThoughts::new(1).with_breadth(2).with_generate(Generate::Sample).with_concurrency(1);
/// let model = ScriptedModel::new(["Answer: a rose", "Answer: a tulip", "Score: 2", "Score: 9"]);
/// let found = pollster::block_on(method.run(&model, "Name a flower of Holland."))?;
/// assert_eq!(found.value.answer, "a tulip");
/// assert_eq!(model.requests()[1].seed, Some(1));
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Generate {
    /// One call proposes several. For small steps, where samples would repeat each other (the paper's game of 24).
    Propose,
    /// One call each, with its own seed. For rich steps, such as plans or paragraphs (the paper's creative writing).
    Sample,
}

impl Generate {
    /// The calls that one partial solution takes.
    pub(super) fn calls(self, breadth: usize) -> usize {
        match self {
            Self::Propose => 1,
            Self::Sample => breadth,
        }
    }
}

/// The request for sample `index` of the next step, or for all of them.
pub(super) fn request(
    method: &TreeOfThoughts,
    question: &str,
    thoughts: &[&str],
    index: usize,
) -> Result<ChatRequest> {
    let values = json!({ "question": question, "thoughts": thoughts, "count": method.breadth });
    Ok(match method.generate {
        Generate::Propose => ChatRequest::new(method.prompts.propose.render(values)?),
        Generate::Sample => ChatRequest {
            temperature: Some(method.temperature),
            seed: Some(method.seed.wrapping_add(index as u64)),
            ..ChatRequest::new(method.prompts.sample.render(values)?)
        },
    })
}

/// The thoughts in the replies to those requests, without repetitions, at most as many as wanted.
pub(super) fn read(method: &TreeOfThoughts, run: &Run<'_>, replies: &[String]) -> Vec<String> {
    let found: Vec<String> = match method.generate {
        Generate::Propose => replies.iter().flat_map(|reply| list(reply)).collect(),
        Generate::Sample => replies.iter().map(|reply| reply.trim().to_owned()).collect(),
    };
    let mut thoughts: Vec<String> = Vec::new();
    let mut dropped = 0;
    for thought in found {
        let thought = thought.trim().to_owned();
        if thought.is_empty() || thoughts.contains(&thought) || thoughts.len() == method.breadth {
            dropped += 1;
        } else {
            thoughts.push(thought);
        }
    }
    if dropped > 0 {
        run.note(format!(
            "{dropped} thoughts are passed over: empty, said before, or more than {}",
            method.breadth
        ));
    }
    if thoughts.is_empty() {
        run.note("no next step was found in the reply");
    }
    thoughts
}
