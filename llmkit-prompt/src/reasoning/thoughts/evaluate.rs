use llmkit_core::ChatRequest;
use serde::Serialize;
use serde_json::json;

use super::TreeOfThoughts;
use crate::reasoning::Extract;
use crate::{Result, Run};

/// How [`TreeOfThoughts`] judges partial solutions.
///
/// ```
/// use llmkit_prompt::reasoning::{Evaluate, Reasoner, TreeOfThoughts};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let method = TreeOfThoughts::new(1).with_breadth(2).with_evaluate(Evaluate::Vote { votes: 3 }).with_concurrency(1);
/// let model = ScriptedModel::new(["1. Answer: left\n2. Answer: right", "Best choice: 2", "Best choice: 1", "It is 2."]);
/// let found = pollster::block_on(method.run(&model, "Left or right?"))?;
/// assert_eq!(found.value.answer, "right");
/// assert_eq!(found.value.tree().expect("it searches a tree").thoughts[1].value, 2.0 / 3.0);
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Evaluate {
    /// Each by itself gets a score from 0 to 10, the mean of this many samples; its value is a tenth of that.
    Value {
        /// Calls a partial solution, at least 1.
        samples: usize,
    },
    /// The model compares all that stand next to each other and names the best, this many times; a value is the share of the votes.
    Vote {
        /// Calls a comparison, at least 1.
        votes: usize,
    },
}

impl Evaluate {
    /// The calls that `candidates` partial solutions take.
    pub(super) fn calls(self, candidates: usize) -> usize {
        match self {
            Self::Value { samples } => samples.saturating_mul(candidates),
            Self::Vote { votes } => votes,
        }
    }
}

/// The requests that judge the candidates, each given by its thoughts.
pub(super) fn requests(
    method: &TreeOfThoughts,
    question: &str,
    candidates: &[Vec<&str>],
) -> Result<Vec<ChatRequest>> {
    let sampled = |messages, index: usize, count: usize| {
        let mut request = ChatRequest::new(messages);
        if count > 1 {
            request.temperature = Some(method.temperature);
            request.seed = Some(method.seed.wrapping_add(index as u64));
        }
        request
    };
    let mut requests = Vec::new();
    match method.evaluate {
        Evaluate::Value { samples } => {
            for candidate in candidates {
                let messages =
                    method.prompts.value.render(json!({ "question": question, "thoughts": candidate }))?;
                requests.extend((0..samples).map(|index| sampled(messages.clone(), index, samples)));
            }
        }
        // A single candidate needs no votes.
        Evaluate::Vote { .. } if candidates.len() < 2 => {}
        Evaluate::Vote { votes } => {
            let messages =
                method.prompts.vote.render(json!({ "question": question, "candidates": candidates }))?;
            requests.extend((0..votes).map(|index| sampled(messages.clone(), index, votes)));
        }
    }
    Ok(requests)
}

/// The number behind the last line's `Score:` or `Choice:`; without one, the number that the reply comes to.
fn rating(reply: &str) -> Option<f64> {
    let marked = reply.lines().rev().find_map(|line| {
        let line = line.to_lowercase();
        let at = line.rfind("score").or_else(|| line.rfind("choice"))?;
        let (_, behind) = line[at..].split_once([':', '：'])?;
        let digits = behind.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(digits.len());
        digits[..end].trim_end_matches('.').parse().ok()
    });
    marked.or_else(|| Extract::Number.answer(reply)?.parse().ok())
}

/// The candidates' values by the replies to those requests, in their order. A reply without a usable number counts as the worst, or as no
/// vote, and is noted.
pub(super) fn read(evaluate: Evaluate, run: &Run<'_>, candidates: usize, replies: &[String]) -> Vec<f64> {
    match evaluate {
        Evaluate::Value { samples } => replies
            .chunks(samples)
            .map(|scores| {
                let score = |reply: &String| match rating(reply).filter(|score| (0.0..=10.0).contains(score))
                {
                    Some(score) => score / 10.0,
                    None => {
                        run.note("a judgement without a score from 0 to 10 counts as 0");
                        0.0
                    }
                };
                scores.iter().map(score).sum::<f64>() / samples as f64
            })
            .collect(),
        Evaluate::Vote { .. } if candidates < 2 => vec![1.0; candidates],
        Evaluate::Vote { votes } => {
            let mut counts = vec![0_usize; candidates];
            for reply in replies {
                let choice =
                    rating(reply).and_then(|choice| (1..=candidates).find(|place| *place as f64 == choice));
                match choice {
                    Some(place) => counts[place - 1] += 1,
                    None => run.note(format!("a vote for none of the {candidates} choices is not counted")),
                }
            }
            counts.into_iter().map(|count| count as f64 / votes as f64).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rating_is_what_the_last_line_says() {
        assert_eq!(rating("The result is 24, as needed.\nScore: 9"), Some(9.0));
        assert_eq!(rating("Step 3 is right.\n**Score:** 8/10"), Some(8.0));
        assert_eq!(rating("In choice 2 the answer is 1.\nBest choice: 2."), Some(2.0));
        assert_eq!(rating("7"), Some(7.0));
        assert_eq!(rating("Good."), None);
    }
}
