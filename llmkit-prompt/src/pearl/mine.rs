use llmkit_core::{ChatRequest, FinishReason, LanguageModel};
use serde_json::json;

use super::action::shortened;
use super::{Action, Actions};
use crate::long::in_order;
use crate::{ChatPrompt, Result, Run, Traced, builtin};

/// Finds actions in questions: for each, the model says which are missing; those of one name are made one, and the model shortens the
/// list in shards.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Miner};
/// use llmkit_prompt::testing::ScriptedModel;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new([
///     "- FIND_RHYME(CTX, X): Find what rhymes with X in CTX.", // for the first question
///     "NONE",                                                  // for the second
///     "FIND_RHYME(CTX, X): Find what rhymes with X in CTX.",   // the shorter list
/// ]);
/// let questions = ["What rhymes with \"sea\"?", "Who speaks?"];
/// let actions = Miner::new().with_known(Actions::new()).run(&model, &questions).await?.value;
/// assert_eq!(actions.get("FIND_RHYME").unwrap().parameters(), ["CTX", "X"]);
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Miner {
    known: Actions,
    shard: usize,
    concurrency: usize,
    answer_tokens: usize,
    mine: ChatPrompt,
    simplify: ChatPrompt,
}

impl Default for Miner {
    fn default() -> Self {
        Self::new()
    }
}

impl Miner {
    /// A miner that knows the [built-in](Actions::builtin) actions.
    pub fn new() -> Self {
        Self {
            known: Actions::builtin(),
            shard: 80,
            concurrency: 4,
            answer_tokens: 4_096,
            mine: builtin::prompt("pearl/mine"),
            simplify: builtin::prompt("pearl/simplify"),
        }
    }

    /// Begins with these actions.
    pub fn with_known(mut self, actions: Actions) -> Self {
        self.known = actions;
        self
    }

    /// How many actions the model is given at a time to shorten their list; default 80, as in the paper.
    pub fn with_shard(mut self, actions: usize) -> Self {
        self.shard = actions.max(1);
        self
    }

    /// How many calls are made at a time; default 4.
    pub fn with_concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls;
        self
    }

    /// The longest answer, in tokens; default 4,096.
    pub fn with_answer_tokens(mut self, tokens: usize) -> Self {
        self.answer_tokens = tokens;
        self
    }

    /// Takes another prompt in place of `prompts/pearl/mine.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `actions` and `question`.
    pub fn with_mine_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.mine = prompt.supplied_by(&["actions", "question"])?;
        Ok(self)
    }

    /// Takes another prompt in place of `prompts/pearl/simplify.md`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) if it wants more than `actions`.
    pub fn with_simplify_prompt(mut self, prompt: ChatPrompt) -> Result<Self> {
        self.simplify = prompt.supplied_by(&["actions"])?;
        Ok(self)
    }

    /// The actions for questions like these.
    ///
    /// Lines that are meant as actions and are none, names that come twice with other parameters, and shards of which nothing came back (they
    /// are kept as they are) are in the trace's notes.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when the model fails; [`Error::Action`](crate::Error::Action) if there are more than 10,000
    /// actions.
    pub async fn run<Q: AsRef<str>>(
        &self,
        model: &dyn LanguageModel,
        questions: &[Q],
    ) -> Result<Traced<Actions>> {
        let run = Run::new("pearl mine", model);
        let questions: Vec<&str> = questions.iter().map(AsRef::as_ref).collect();
        let actions = self.run_in(&run, &questions).await?;
        Ok(run.finish(actions))
    }

    /// As [`run`](Self::run), within another piece.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_in(&self, run: &Run<'_>, questions: &[&str]) -> Result<Actions> {
        let known = self.known.to_string();
        let mut work = Vec::with_capacity(questions.len());
        for (index, question) in questions.iter().enumerate() {
            let prompt = self.mine.render(json!({ "actions": known.trim_end(), "question": question }))?;
            work.push(self.ask(run, format!("question {}", index + 1), prompt));
        }
        let mut all = self.known.clone();
        for found in in_order(run, self.concurrency, work).await? {
            for action in found {
                merge(run, &mut all, action)?;
            }
        }
        let list: Vec<&Action> = all.iter().collect();
        let mut work = Vec::new();
        for (index, shard) in list.chunks(self.shard).enumerate() {
            let lines: Vec<String> = shard.iter().map(ToString::to_string).collect();
            let prompt = self.simplify.render(json!({ "actions": lines.join("\n") }))?;
            work.push(self.ask(run, format!("simplify shard {}", index + 1), prompt));
        }
        let mut simplified = Actions::new();
        let answers = in_order(run, self.concurrency, work).await?;
        for (index, (answer, shard)) in answers.into_iter().zip(list.chunks(self.shard)).enumerate() {
            if answer.is_empty() {
                run.note(format!(
                    "of shard {} nothing came back: its actions are kept as they are",
                    index + 1
                ));
                for action in shard {
                    merge(run, &mut simplified, (*action).clone())?;
                }
            }
            for action in answer {
                merge(run, &mut simplified, action)?;
            }
        }
        Ok(simplified)
    }

    async fn ask<'a>(
        &self,
        run: &Run<'a>,
        name: String,
        messages: Vec<llmkit_core::Message>,
    ) -> (Run<'a>, Result<Vec<Action>>) {
        let part = run.part(name);
        let request = ChatRequest { max_tokens: Some(self.answer_tokens), ..ChatRequest::new(messages) };
        let actions = match part.chat("actions", request).await {
            Err(error) => Err(error),
            Ok(response) => {
                if response.finish_reason == FinishReason::Length {
                    part.note(format!("the answer was cut at {} tokens", self.answer_tokens));
                }
                Ok(actions_in(&part, &response.message.content))
            }
        };
        (part, actions)
    }
}

/// The actions in a text; what is meant as one and is none goes into a note.
fn actions_in(run: &Run<'_>, text: &str) -> Vec<Action> {
    let mut actions = Vec::new();
    for line in text.lines() {
        let line = line.trim_start_matches(|letter: char| {
            letter.is_whitespace() || letter.is_ascii_digit() || matches!(letter, '-' | '*' | '.' | ')' | '`')
        });
        let line = line.replace(['*', '`'], "");
        let name = line
            .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .map_or("", |end| &line[..end]);
        if name.is_empty()
            || name.chars().any(char::is_lowercase)
            || !line[name.len()..].trim_start().starts_with('(')
        {
            continue;
        }
        match line.parse() {
            Ok(action) => actions.push(action),
            Err(error) => run.note(format!("passed over `{}`: {error}", shortened(&line))),
        }
    }
    actions
}

/// Adds the action unless there is one of its name.
fn merge(run: &Run<'_>, actions: &mut Actions, action: Action) -> Result<()> {
    match actions.get(action.name()) {
        None => actions.insert(action),
        Some(there) => {
            if there.parameters() != action.parameters() {
                run.note(format!("kept `{there}` and dropped `{action}`"));
            }
            Ok(())
        }
    }
}
