//! Tree of thoughts: the settings here, one file each for what makes thoughts, judges them, and searches among them.

mod evaluate;
mod generate;
mod search;
mod tree;

use async_trait::async_trait;
use llmkit_core::ChatRequest;
use serde_json::json;

use self::search::Searcher;
use super::chain::{no_answer, written};
use super::{Evidence, Extract, Reasoned, Reasoner};
use crate::{ChatPrompt, Error, Result, Run, builtin};

pub use evaluate::Evaluate;
pub use generate::Generate;
pub use search::Search;
pub use tree::{Thought, ThoughtState, ThoughtTree};

/// Tree of thoughts: partial solutions are extended step by step, judged by the model, and searched for the best.
///
/// Yao et al. 2023, "Tree of Thoughts: Deliberate Problem Solving with Large Language Models". Four choices make the method:
///
/// - into how many steps a solution falls ([`with_depth`](Self::with_depth));
/// - how next steps are made ([`Generate`]): proposed several at once, or sampled one by one;
/// - how partial solutions are judged ([`Evaluate`]): each by a value, or together by votes;
/// - how one searches ([`Search`]): in breadth with a beam, or in depth, turning back below a threshold.
///
/// It is by far the dearest method, so calls and thoughts are limited; where a limit ends the search, the best thought so far gives the
/// answer, and the [`ThoughtTree`] says so. A step that states the answer (`Answer: ..`) ends its branch.
///
/// Prompts: `reasoning/tree_propose` or `reasoning/tree_sample`, `reasoning/tree_value` or `reasoning/tree_vote`, and
/// `reasoning/tree_answer`.
///
/// ```
/// use llmkit_prompt::reasoning::{Extract, Reasoner, Search, TreeOfThoughts};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// let method = TreeOfThoughts::new(2)
///     .with_breadth(2)
///     .with_search(Search::Breadth { beam: 1 })
///     .with_concurrency(1)
///     .with_extract(Extract::Number);
/// let model = ScriptedModel::new([
///     "1. 4 * 6 = 24, left: 24 1\n2. 4 + 6 = 10, left: 10 1",
///     "Both left make 24.\nScore: 9",
///     "10 and 1 don't.\nScore: 1",
///     "1. 24 * 1 = 24. Answer: 24\n2. 24 - 1 = 23",
///     "That is it.\nScore: 10",
///     "Not 24.\nScore: 0",
/// ]);
/// let found = pollster::block_on(method.run(&model, "Make 24 of 4, 6 and 1."))?;
/// assert_eq!(found.value.answer, "24");
/// assert_eq!(found.value.rationale, "4 * 6 = 24, left: 24 1\n24 * 1 = 24. Answer: 24");
/// println!("{}", found.value.tree().expect("it searches a tree"));
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TreeOfThoughts {
    depth: usize,
    breadth: usize,
    generate: Generate,
    evaluate: Evaluate,
    search: Search,
    max_calls: usize,
    max_thoughts: usize,
    temperature: f32,
    seed: u64,
    concurrency: usize,
    extract: Extract,
    prompts: Prompts,
}

#[derive(Debug, Clone)]
struct Prompts {
    propose: ChatPrompt,
    sample: ChatPrompt,
    value: ChatPrompt,
    vote: ChatPrompt,
    answer: ChatPrompt,
}

impl TreeOfThoughts {
    /// Solutions of `depth` steps. Unless set: three thoughts a step, proposed at once, each valued once, in breadth with a beam of 2; at most
    /// 100 calls and 200 thoughts; temperature 0.7 and seeds from 0 on where something is sampled; four calls side by side.
    pub fn new(depth: usize) -> Self {
        Self {
            depth,
            breadth: 3,
            generate: Generate::Propose,
            evaluate: Evaluate::Value { samples: 1 },
            search: Search::Breadth { beam: 2 },
            max_calls: 100,
            max_thoughts: 200,
            temperature: 0.7,
            seed: 0,
            concurrency: 4,
            extract: Extract::Text,
            prompts: Prompts {
                propose: builtin::prompt("reasoning/tree_propose"),
                sample: builtin::prompt("reasoning/tree_sample"),
                value: builtin::prompt("reasoning/tree_value"),
                vote: builtin::prompt("reasoning/tree_vote"),
                answer: builtin::prompt("reasoning/tree_answer"),
            },
        }
    }

    /// The steps of a solution, at least 1.
    pub fn with_depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// The next thoughts of each partial solution, at least 1; 3 unless set.
    pub fn with_breadth(mut self, breadth: usize) -> Self {
        self.breadth = breadth;
        self
    }

    /// How thoughts are made; [`Generate::Propose`] unless set.
    pub fn with_generate(mut self, generate: Generate) -> Self {
        self.generate = generate;
        self
    }

    /// How partial solutions are judged; one [`Evaluate::Value`] each unless set.
    pub fn with_evaluate(mut self, evaluate: Evaluate) -> Self {
        self.evaluate = evaluate;
        self
    }

    /// How the tree is searched; in breadth with a beam of 2 unless set.
    pub fn with_search(mut self, search: Search) -> Self {
        self.search = search;
        self
    }

    /// The most calls of the model, the last one for the answer not counted; 100 unless set.
    pub fn with_max_calls(mut self, max_calls: usize) -> Self {
        self.max_calls = max_calls;
        self
    }

    /// The most thoughts; 200 unless set.
    pub fn with_max_thoughts(mut self, max_thoughts: usize) -> Self {
        self.max_thoughts = max_thoughts;
        self
    }

    /// The temperature of what is sampled several times; 0.7 unless set.
    pub fn with_temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// The seed of the first of several samples; 0 unless set.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many calls run side by side, at least 1; 4 unless set. The outcome does not depend on it.
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// How the answer is found; [`Extract::Text`] unless set.
    pub fn with_extract(mut self, extract: Extract) -> Self {
        self.extract = extract;
        self
    }

    /// Other prompts for making thoughts: one that proposes several (`question`, `thoughts`, `count`) and one that takes a single step
    /// (`question`, `thoughts`).
    ///
    /// # Errors
    /// [`Error::NotSupplied`] where one wants something else.
    pub fn with_generate_prompts(mut self, propose: ChatPrompt, sample: ChatPrompt) -> Result<Self> {
        self.prompts.propose = propose.supplied_by(&["question", "thoughts", "count"])?;
        self.prompts.sample = sample.supplied_by(&["question", "thoughts"])?;
        Ok(self)
    }

    /// Other prompts for judging: one that rates a partial solution (`question`, `thoughts`), whose replies must give a score from 0 to 10,
    /// and one that chooses among several (`question`, `candidates`), whose replies must give the number of one.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] where one wants something else.
    pub fn with_evaluate_prompts(mut self, value: ChatPrompt, vote: ChatPrompt) -> Result<Self> {
        self.prompts.value = value.supplied_by(&["question", "thoughts"])?;
        self.prompts.vote = vote.supplied_by(&["question", "candidates"])?;
        Ok(self)
    }

    /// Another prompt that draws the answer from the chosen steps (`question`, `thoughts`, `kind`, `detail`).
    ///
    /// # Errors
    /// [`Error::NotSupplied`] where it wants something else.
    pub fn with_answer_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.prompts.answer = prompt.supplied_by(&["question", "thoughts", "kind", "detail"])?;
        Ok(self)
    }

    fn validate(&self) -> Result<()> {
        let beam = match self.search {
            Search::Breadth { beam } => beam,
            Search::Depth { threshold } if !(0.0..=1.0).contains(&threshold) => {
                return Err(Error::Setting {
                    setting: "threshold",
                    expected: "from 0 to 1",
                    found: threshold.to_string(),
                });
            }
            Search::Depth { .. } => 1,
        };
        let judgements = match self.evaluate {
            Evaluate::Value { samples } => samples,
            Evaluate::Vote { votes } => votes,
        };
        let counts = [
            ("depth", self.depth),
            ("breadth", self.breadth),
            ("beam", beam),
            ("evaluate", judgements),
            ("concurrency", self.concurrency),
            ("max_calls", self.max_calls),
            ("max_thoughts", self.max_thoughts),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            None => Ok(()),
            Some((setting, _)) => {
                Err(Error::Setting { setting, expected: "at least 1", found: "0".to_owned() })
            }
        }
    }
}

#[async_trait]
impl Reasoner for TreeOfThoughts {
    fn name(&self) -> &str {
        "tree-of-thoughts"
    }

    async fn run_in(&self, run: &Run<'_>, question: &str) -> Result<Reasoned> {
        self.validate()?;
        let tree = Searcher::new(self, run, question).search().await?;
        if let Some(limit) = &tree.stopped {
            run.note(format!("the search ended early: {limit}"));
        }
        let thoughts = tree.chosen_path();
        let stated = thoughts.last().filter(|thought| super::answer::stated(thought).is_some());
        if let Some(answer) = stated.and_then(|thought| self.extract.answer(thought)) {
            return Ok(Reasoned::new(answer, thoughts.join("\n")).with_evidence(Evidence::Tree(tree)));
        }
        let messages = self.prompts.answer.render(json!({
            "question": question,
            "thoughts": thoughts,
            "kind": self.extract.kind(),
            "detail": self.extract.detail(),
        }))?;
        let reply = run.chat("answer", ChatRequest::new(messages)).await?;
        let Some(answer) = self.extract.answer(&reply.message.content) else {
            return Err(no_answer(self.name(), self.extract.expected(), &reply));
        };
        let mut rationale = thoughts;
        let last = written(&reply);
        rationale.push(&last);
        let rationale = rationale.join("\n");
        Ok(Reasoned::new(answer, rationale).with_evidence(Evidence::Tree(tree)))
    }
}
