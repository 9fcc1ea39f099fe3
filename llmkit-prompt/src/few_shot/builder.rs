use std::fmt;
use std::sync::{Arc, OnceLock};

use llmkit_core::{ApproximateTokens, TokenCounter};
use serde::Serialize;
use tracing::Instrument;

use super::random::draw;
use super::shots::{LeftOut, Reason, Shot, Shots};
use super::{Candidate, Example, ExampleSelector, Examples, LengthSelector, Query, Selected};
use crate::run::spans;
use crate::{Error, PromptTemplate, Result, Run, VariableProblem};

/// What a turn costs beside its text, unless set: `<|im_start|>user`, a line end, `<|im_end|>`, a line end.
const TURN_TOKENS: usize = 5;
/// Between an input and its output, and between a text's examples, unless set.
const SEPARATORS: [&str; 2] = ["\n", "\n\n"];

/// Examples in a prompt: which of them (a [selector](ExampleSelector)), how many (a count and a token budget), in which order, and as what
/// text (two templates).
///
/// The templates are checked against the fields of the examples when this is built. An example is an input and an output, shown as a
/// user's and an assistant's turn or as a text; the query is rendered by the template of the inputs.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot, NgramSelector};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([
///     json!({"text": "hot soup with noodles", "label": "food"}),
///     json!({"text": "a small bird of prey", "label": "animal"}),
///     json!({"text": "a strong feeling of joy", "label": "feeling"}),
/// ])?;
/// let few_shot = FewShot::new(examples, "Definition: {{ text }}", "{{ label }}")?
///     .with_selector(NgramSelector::new(), 2)
///     .with_token_budget(200);
///
/// let shots = few_shot.select(json!({"text": "a small fish"})).await?;
/// // For a chat: the examples as turns, the most alike last, and the query.
/// let said: Vec<String> = shots.conversation().into_iter().map(|message| message.content).collect();
/// assert_eq!(said[2..], ["Definition: a small bird of prey", "animal", "Definition: a small fish"]);
/// // For a slot in a template.
/// assert!(shots.text().ends_with("Definition: a small bird of prey\nanimal"));
///
/// // A slip in a template is an error where it is made.
/// let examples = Examples::new([json!({"text": "hot soup", "label": "food"})])?;
/// let error = FewShot::new(examples, "{{ txet }}", "{{ label }}").unwrap_err();
/// assert!(error.to_string().contains("did you mean `text`?"));
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # How the choice is made
///
/// 1. Examples whose input is the query's are put aside ([`with_query_kept`](Self::with_query_kept) keeps them): they would give the answer
///    away, and a measurement with them would measure nothing.
/// 2. The selector chooses, the best first. Unless one is [set](Self::with_selector), these are all examples as they stand.
/// 3. In that order, examples are taken while the [budget](Self::with_token_budget) lasts, whole ones only; one that does not fit is passed
///    over for a worse one that does.
/// 4. Those taken are put into their [`Order`]. What was left out, and why, is in [`Shots::left_out`].
#[derive(Clone)]
pub struct FewShot {
    examples: Arc<Examples>,
    input: PromptTemplate,
    output: PromptTemplate,
    rendered: Arc<Vec<Rendered>>,
    selector: Arc<dyn ExampleSelector>,
    count: usize,
    order: Order,
    query_kept: bool,
    token_budget: Option<usize>,
    counter: Arc<dyn TokenCounter>,
    turn_tokens: usize,
    separators: [String; 2],
    /// Of each example; counted at the first query.
    tokens: OnceLock<Arc<Vec<usize>>>,
}

/// What an example is in the prompt.
struct Rendered {
    input: String,
    output: String,
    /// What is compared with the query's.
    key: String,
}

/// In which order the chosen examples stand; models attend most to what stands last.
///
/// ```
/// use llmkit_prompt::few_shot::{Examples, FewShot, NgramSelector, Order};
/// use serde_json::json;
///
/// # fn main() -> llmkit_prompt::Result<()> {
/// # pollster::block_on(async {
/// let examples = Examples::new([json!({"q": "old boat", "a": "1"}), json!({"q": "a boat", "a": "2"})])?;
/// let few_shot = FewShot::new(examples, "{{ q }}", "{{ a }}")?.with_selector(NgramSelector::new(), 2);
/// for (order, expected) in [(Order::BestLast, ["1", "2"]), (Order::BestFirst, ["2", "1"]), (Order::AsGiven, ["1", "2"])] {
///     let shots = few_shot.clone().with_order(order).select(json!({"q": "a small boat"})).await?;
///     assert_eq!([&shots.chosen[0].output, &shots.chosen[1].output], expected);
/// }
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Order {
    /// By rising score: the best stands next to the query. Equal scores keep the examples' order.
    #[default]
    BestLast,
    /// By falling score.
    BestFirst,
    /// As the examples were given, so that the same choice is the same text.
    AsGiven,
    /// By lot; this seed and the examples' texts decide.
    Shuffled(u64),
}

impl fmt::Debug for FewShot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FewShot")
            .field("examples", &self.examples.len())
            .field("input", &self.input.source())
            .field("output", &self.output.source())
            .field("selector", &self.selector.name())
            .field("count", &self.count)
            .field("order", &self.order)
            .field("token_budget", &self.token_budget)
            .finish_non_exhaustive()
    }
}

impl FewShot {
    /// Examples whose input and output are rendered by these templates, over the examples' fields. All of them are shown, as they stand;
    /// [`with_selector`](Self::with_selector) chooses.
    ///
    /// # Errors
    /// What [`PromptTemplate::new`] reports, except that fields which a template does not use are no fault; [`Error::Setting`] if
    /// `input` uses none, as queries could not differ; [`Error::Render`] if a template fails on an example.
    pub fn new(examples: Examples, input: impl Into<String>, output: impl Into<String>) -> Result<Self> {
        let input = compile("input", input.into(), &examples.fields())?;
        let output = compile("output", output.into(), &examples.fields())?;
        if input.variables().is_empty() {
            return Err(Error::Setting {
                setting: "the template of the inputs",
                expected: "at least one of the examples' fields in it",
                found: format!("`{}`", input.source()),
            });
        }
        let rendered: Result<Vec<Rendered>> = examples
            .as_slice()
            .iter()
            .map(|example| {
                Ok(Rendered {
                    input: input.render(example)?,
                    output: output.render(example)?,
                    key: key(&input, example),
                })
            })
            .collect();
        Ok(Self {
            rendered: Arc::new(rendered?),
            examples: Arc::new(examples),
            input,
            output,
            selector: Arc::new(LengthSelector::unlimited()),
            count: usize::MAX,
            order: Order::default(),
            query_kept: false,
            token_budget: None,
            counter: Arc::new(ApproximateTokens),
            turn_tokens: TURN_TOKENS,
            separators: SEPARATORS.map(str::to_owned),
            tokens: OnceLock::new(),
        })
    }

    /// Has `selector` choose at most `count` examples.
    pub fn with_selector(mut self, selector: impl ExampleSelector + 'static, count: usize) -> Self {
        self.selector = Arc::new(selector);
        self.count = count;
        self
    }

    /// The order of those chosen; [`Order::BestLast`] unless set.
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The most tokens that the examples may take together, without the query; no limit unless set.
    pub fn with_token_budget(mut self, tokens: usize) -> Self {
        self.token_budget = Some(tokens);
        self
    }

    /// Counts tokens with the model's own tokenizer instead of [`ApproximateTokens`]' estimate.
    pub fn with_counter(mut self, counter: impl TokenCounter + 'static) -> Self {
        self.counter = Arc::new(counter);
        self.tokens = OnceLock::new();
        self
    }

    /// What each turn costs beside its text, in tokens, by the model's chat template; 5 unless set. An example is two turns.
    pub fn with_turn_tokens(mut self, tokens: usize) -> Self {
        self.turn_tokens = tokens;
        self.tokens = OnceLock::new();
        self
    }

    /// What stands between an input and its output, and between one example and the next, where they are shown as a
    /// [text](Shots::text): a line end and an empty line unless set.
    pub fn with_separators(mut self, within: impl Into<String>, between: impl Into<String>) -> Self {
        self.separators = [within.into(), between.into()];
        self
    }

    /// Leaves examples whose input is the query's among those that may be chosen.
    pub fn with_query_kept(mut self) -> Self {
        self.query_kept = true;
        self
    }

    /// All the examples.
    pub fn examples(&self) -> &Examples {
        &self.examples
    }

    /// The examples for `query`: a struct or a map with the fields that the template of the inputs uses.
    ///
    /// # Errors
    /// [`Error::MissingValues`] and [`Error::NotAMap`] for the query, what the selector and the token counter report, and
    /// [`Error::Selection`] if the selector breaks its contract.
    pub async fn select(&self, query: impl Serialize + Send) -> Result<Shots> {
        let text = self.input.render(&query)?;
        let query = Example::from_value(&query)
            .map_err(|found| Error::NotAMap { prompt: self.input.name().to_owned(), found })?;
        let query_key = key(&self.input, &query);
        let tokens = self.tokens()?;
        let query_tokens = self.counter.count(&text)? + self.turn_tokens;

        let mut left_out = Vec::new();
        let mut candidates = Vec::with_capacity(self.examples.len());
        let same = folded(&query_key);
        for (index, (example, rendered)) in self.examples.as_slice().iter().zip(&*self.rendered).enumerate() {
            if !self.query_kept && folded(&rendered.key) == same {
                left_out.push(LeftOut { index, reason: Reason::SameAsQuery });
            } else {
                candidates.push(Candidate { index, example, key: &rendered.key, tokens: tokens[index] });
            }
        }
        let compared = Query { key: &query_key, tokens: query_tokens };
        let span = spans::select(self.selector.name(), candidates.len(), self.count);
        let chosen = self.selector.select(&candidates, &compared, self.count).instrument(span.clone()).await;
        let chosen = chosen.and_then(|chosen| self.check(&chosen, &candidates).map(|()| chosen));
        let chosen = spans::ended(&span, chosen)?;

        let shots = chosen.into_iter().map(|selected| self.shot(selected, tokens)).collect();
        let shots = self.within_budget(shots, &mut left_out)?;
        let mut shots = Shots::new(shots, left_out, text, self.separators.clone());
        shots.tokens = self.cost(&shots.chosen)?;
        self.arrange(&mut shots.chosen);
        tracing::debug!(
            selector = self.selector.name(),
            chosen = shots.chosen.len(),
            left_out = shots.left_out.len(),
            tokens = shots.tokens,
            "examples chosen"
        );
        Ok(shots)
    }

    /// As [`select`](Self::select), with the choice and its reasons noted in the trace of `run`.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub async fn select_in(&self, run: &Run<'_>, query: impl Serialize + Send) -> Result<Shots> {
        let shots = self.select(query).instrument(run.span().clone()).await?;
        run.note(format!("examples by {}: {shots}", self.selector.name()));
        Ok(shots)
    }

    fn tokens(&self) -> Result<&Arc<Vec<usize>>> {
        if let Some(tokens) = self.tokens.get() {
            return Ok(tokens);
        }
        let count = |shot: &Rendered| {
            Ok(self.counter.count(&shot.input)? + self.counter.count(&shot.output)? + 2 * self.turn_tokens)
        };
        let tokens: Result<Vec<usize>> = self.rendered.iter().map(count).collect();
        let tokens = Arc::new(tokens?);
        Ok(self.tokens.get_or_init(|| tokens))
    }

    fn shot(&self, Selected { index, score, why }: Selected, tokens: &[usize]) -> Shot {
        let Rendered { input, output, .. } = &self.rendered[index];
        Shot { index, input: input.clone(), output: output.clone(), tokens: tokens[index], score, why }
    }

    /// The choice must be what [`ExampleSelector::select`] promises.
    fn check(&self, chosen: &[Selected], candidates: &[Candidate<'_>]) -> Result<()> {
        let error = |expected: String, found: String| {
            Err(Error::Selection { selector: self.selector.name().to_owned(), expected, found })
        };
        if chosen.len() > self.count {
            return error(format!("at most {} examples", self.count), chosen.len().to_string());
        }
        let mut seen = vec![true; self.examples.len()];
        for candidate in candidates {
            seen[candidate.index] = false;
        }
        for Selected { index, score, .. } in chosen {
            match seen.get_mut(*index) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return error("each candidate at most once".to_owned(), format!("example {index}"));
                }
            }
            if score.is_nan() {
                return error("a score that is a number".to_owned(), format!("NaN for example {index}"));
            }
        }
        Ok(())
    }

    /// The shots, in order of preference, that fit together.
    fn within_budget(&self, shots: Vec<Shot>, left_out: &mut Vec<LeftOut>) -> Result<Vec<Shot>> {
        let Some(budget) = self.token_budget else { return Ok(shots) };
        let (mut kept, mut sum): (Vec<Shot>, usize) = (Vec::new(), 0);
        for shot in shots {
            if sum + shot.tokens <= budget {
                sum += shot.tokens;
                kept.push(shot);
            } else {
                let reason = Reason::Budget { tokens: shot.tokens, left: budget - sum };
                left_out.push(LeftOut { index: shot.index, reason });
            }
        }
        // As one text they may take more than one by one, with long separators.
        while self.cost(&kept)? > budget {
            let Some(shot) = kept.pop() else { break };
            let left = budget.saturating_sub(self.cost(&kept)?);
            left_out
                .push(LeftOut { index: shot.index, reason: Reason::Budget { tokens: shot.tokens, left } });
        }
        Ok(kept)
    }

    /// What the shots take, as turns or as a text, whichever is more.
    fn cost(&self, shots: &[Shot]) -> Result<usize> {
        let turns = shots.iter().map(|shot| shot.tokens).sum();
        Ok(self.counter.count(&super::shots::text(shots, &self.separators))?.max(turns))
    }

    fn arrange(&self, shots: &mut [Shot]) {
        match self.order {
            Order::BestLast => {
                shots.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.index.cmp(&b.index)));
            }
            Order::BestFirst => {
                shots.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
            }
            Order::AsGiven => shots.sort_by_key(|shot| shot.index),
            Order::Shuffled(seed) => {
                let place = |shot: &Shot| draw(seed, &shot.input, &shot.output);
                shots.sort_by(|a, b| place(a).total_cmp(&place(b)).then(a.index.cmp(&b.index)));
            }
        }
    }
}

/// The template over those of the fields that it uses.
fn compile(name: &str, source: String, fields: &[&str]) -> Result<PromptTemplate> {
    match PromptTemplate::new(name, source.as_str(), fields.iter().copied()) {
        Err(Error::Variables { prompt, mut problems }) => {
            let mut used = fields.to_vec();
            problems.retain(|problem| match problem {
                VariableProblem::Unused { name } => {
                    used.retain(|field| field != name);
                    false
                }
                _ => true,
            });
            if problems.is_empty() {
                PromptTemplate::new(name, source, used)
            } else {
                Err(Error::Variables { prompt, problems })
            }
        }
        other => other,
    }
}

/// What is compared: the values of the fields that the template of the inputs uses.
fn key(input: &PromptTemplate, example: &Example) -> String {
    let values: Vec<String> = input.variables().iter().filter_map(|name| example.text(name)).collect();
    values.join("\n")
}

/// The text without what is no difference between two questions.
fn folded(key: &str) -> String {
    key.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}
