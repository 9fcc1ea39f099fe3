//! Few-shot examples: what is chosen, in which order, within which budget.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use llmkit_core::{Embedder, TokenCounter};
use llmkit_prompt::few_shot::{
    BalancedSelector, Candidate, ExampleSelector, Examples, FewShot, KnnSelector, LengthSelector,
    MmrSelector, NgramSelector, Order, Query, RandomSelector, Reason, Selected, Shots, Why,
};
use llmkit_prompt::testing::{HashEmbedder, ScriptedModel};
use llmkit_prompt::{Error, Message, Result, Run};
use pollster::block_on;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// One token a word, as LangChain counts.
struct Words;

impl TokenCounter for Words {
    fn count(&self, text: &str) -> llmkit_core::Result<usize> {
        Ok(text.split_whitespace().count())
    }
}

/// The vectors that a test gives for its texts.
struct Known {
    vectors: HashMap<String, Vec<f32>>,
    dimensions: usize,
    asked: AtomicUsize,
}

impl Known {
    fn new(vectors: impl IntoIterator<Item = (String, Vec<f32>)>) -> Self {
        let vectors: HashMap<String, Vec<f32>> = vectors.into_iter().collect();
        let dimensions = vectors.values().next().unwrap().len();
        Self { vectors, dimensions, asked: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Embedder for Known {
    fn id(&self) -> &str {
        "known"
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    async fn embed(&self, texts: &[String]) -> llmkit_core::Result<Vec<Vec<f32>>> {
        self.asked.fetch_add(texts.len(), Ordering::Relaxed);
        Ok(texts.iter().map(|text| self.vectors[text].clone()).collect())
    }
}

fn fixture<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/fixtures/few_shot/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn indexes(shots: &Shots) -> Vec<usize> {
    shots.chosen.iter().map(|shot| shot.index).collect()
}

/// Numbered texts, their vectors, and the vector of the text `query`.
fn numbered(vectors: &[Vec<f32>], query: &[f32]) -> (FewShot, Known) {
    let name = |n: usize| format!("text {n}");
    let examples = Examples::new((0..vectors.len()).map(|n| json!({"text": name(n), "label": n}))).unwrap();
    let few_shot = FewShot::new(examples, "{{ text }}", "{{ label }}").unwrap().with_order(Order::BestFirst);
    let known = vectors.iter().enumerate().map(|(n, vector)| (name(n), vector.clone()));
    (few_shot, Known::new(known.chain([("query".to_owned(), query.to_vec())])))
}

#[test]
fn mmr_chooses_what_langchain_chooses() {
    #[derive(Deserialize)]
    struct Case {
        query: Vec<f32>,
        vectors: Vec<Vec<f32>>,
        count: usize,
        lambda: f64,
        chosen: Vec<usize>,
    }
    for case in fixture::<Case>("mmr") {
        let (few_shot, known) = numbered(&case.vectors, &case.query);
        let selector = MmrSelector::new(known).with_lambda(case.lambda).unwrap().with_shortlist(usize::MAX);
        let candidates = candidates(few_shot.examples());
        let candidates: Vec<Candidate<'_>> = candidates.iter().map(Owned::candidate).collect();
        let query = Query { key: "query", tokens: 1 };
        let chosen = block_on(selector.select(&candidates, &query, case.count)).unwrap();
        let places: Vec<usize> = chosen.iter().map(|selected| selected.index).collect();
        assert_eq!(places, case.chosen, "lambda {}", case.lambda);
        // The score is what its explanation says.
        for Selected { score, why, .. } in chosen {
            let Why::Mmr { lambda, similarity, redundancy, .. } = why else { panic!("{why:?}") };
            assert!((score - (lambda * similarity - (1.0 - lambda) * redundancy)).abs() < 1e-12);
        }
    }
}

#[test]
fn length_chooses_what_langchain_chooses() {
    #[derive(Deserialize)]
    struct Case {
        rows: Vec<Value>,
        query: String,
        limit: usize,
        chosen: usize,
    }
    let cases = fixture::<Case>("length");
    assert!(
        cases.iter().any(|case| case.chosen > 2) && cases.iter().any(|case| case.chosen < case.rows.len())
    );
    for Case { rows, query, limit, chosen } in cases {
        let few_shot = FewShot::new(Examples::new(rows).unwrap(), "{{ text }}", "{{ label }}")
            .unwrap()
            .with_counter(Words)
            .with_turn_tokens(0)
            .with_query_kept()
            .with_selector(LengthSelector::new(limit), usize::MAX);
        let shots = block_on(few_shot.select(json!({"text": query}))).unwrap();
        assert_eq!(indexes(&shots), (0..chosen).collect::<Vec<_>>(), "limit {limit}, query {query}");
    }
}

/// A candidate's parts.
struct Owned<'a> {
    index: usize,
    example: &'a llmkit_prompt::few_shot::Example,
    key: String,
}

impl Owned<'_> {
    fn candidate(&self) -> Candidate<'_> {
        Candidate { index: self.index, example: self.example, key: &self.key, tokens: 1 }
    }
}

fn candidates(examples: &Examples) -> Vec<Owned<'_>> {
    let owned = |(index, example): (usize, _)| Owned { index, example, key: example_text(example) };
    examples.as_slice().iter().enumerate().map(owned).collect()
}

fn example_text(example: &llmkit_prompt::few_shot::Example) -> String {
    example.text("text").unwrap()
}

/// MMR by the formula, without shortcuts: every candidate against every one chosen, at every step.
fn mmr_by_definition(
    vectors: &[Vec<f32>],
    query: &[f32],
    count: usize,
    lambda: f64,
    shortlist: usize,
) -> Vec<usize> {
    let cosine = |a: &[f32], b: &[f32]| {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let mut near: Vec<usize> = (0..vectors.len()).collect();
    near.sort_by(|a, b| cosine(query, &vectors[*b]).total_cmp(&cosine(query, &vectors[*a])));
    near.truncate(shortlist.max(count));
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < count.min(vectors.len()) {
        let value = |e: usize| {
            let similar = chosen.iter().map(|c| cosine(&vectors[e], &vectors[*c])).reduce(f64::max);
            lambda * cosine(query, &vectors[e]) - (1.0 - lambda) * similar.unwrap_or(0.0)
        };
        let next = near.iter().filter(|e| !chosen.contains(e)).copied().max_by(|a, b| {
            value(*a).total_cmp(&value(*b)).then(near_rank(&near, *b).cmp(&near_rank(&near, *a)))
        });
        chosen.push(next.unwrap());
    }
    chosen
}

fn near_rank(near: &[usize], index: usize) -> usize {
    near.iter().position(|e| *e == index).unwrap()
}

fn vectors() -> impl Strategy<Value = (Vec<Vec<f32>>, Vec<f32>)> {
    let vector = || {
        prop::collection::vec(-1.0_f32..1.0, 4).prop_filter("not zero", |v| v.iter().any(|x| x.abs() > 0.05))
    };
    (prop::collection::vec(vector(), 1..40), vector())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn nearest_and_mmr_agree_with_their_definitions(
        (vectors, query) in vectors(), count in 1_usize..10, lambda in 0.0_f64..1.0, shortlist in 1_usize..50,
    ) {
        let (few_shot, known) = numbered(&vectors, &query);
        let owned = candidates(few_shot.examples());
        let pool: Vec<Candidate<'_>> = owned.iter().map(Owned::candidate).collect();
        let asked = Query { key: "query", tokens: 1 };
        let known = std::sync::Arc::new(known);
        let place = |selected: Vec<Selected>| selected.into_iter().map(|s| s.index).collect::<Vec<_>>();

        let selector = KnnSelector::new(Shared(known.clone()));
        let chosen = place(block_on(selector.select(&pool, &asked, count)).unwrap());
        prop_assert_eq!(&chosen, &mmr_by_definition(&vectors, &query, count, 1.0, usize::MAX));
        // Once more: only the query is new.
        block_on(selector.select(&pool, &asked, count)).unwrap();
        prop_assert_eq!(known.asked.load(Ordering::Relaxed), vectors.len() + 2);

        let selector = MmrSelector::new(Shared(known)).with_lambda(lambda).unwrap().with_shortlist(shortlist);
        let chosen = place(block_on(selector.select(&pool, &asked, count)).unwrap());
        prop_assert_eq!(chosen, mmr_by_definition(&vectors, &query, count, lambda, shortlist));
    }

    /// The order of the examples is no reason to choose one, unless two are equally good.
    #[test]
    fn the_choice_does_not_depend_on_the_order_of_the_examples(seed in any::<u64>(), count in 1_usize..9) {
        let rows = rows();
        let mut shuffled = rows.clone();
        shuffled.rotate_left(seed as usize % rows.len());
        shuffled.reverse();
        for selector in selectors(seed) {
            let chosen = |rows: &[Value]| {
                let few_shot = few_shot(rows).with_selector(selector.clone(), count).with_order(Order::BestFirst);
                let query = json!({"text": "a large grey bird of the northern sea"});
                block_on(few_shot.select(query)).unwrap().chosen
            };
            let (given, other) = (chosen(&rows), chosen(&shuffled));
            prop_assert_eq!(given.len(), other.len());
            let lowest = given.last().unwrap().score;
            for (a, b) in given.iter().zip(&other) {
                prop_assert_eq!(a.score, b.score, "{}", selector.name());
                // Below it, or at it, another may be as good.
                let tied = a.score == lowest || given.iter().filter(|shot| shot.score == a.score).count() > 1;
                prop_assert!(tied || a.input == b.input, "{}", selector.name());
            }
        }
    }

    #[test]
    fn the_budget_is_kept_and_everything_chosen_is_accounted_for(
        budget in 0_usize..120, count in 1_usize..20, turn in 0_usize..6, between in "[ \\na-z]{0,12}", seed in any::<u64>(),
    ) {
        for selector in selectors(seed) {
            let few_shot = few_shot(&rows())
                .with_counter(Words)
                .with_turn_tokens(turn)
                .with_separators(" is ", between.as_str())
                .with_selector(selector.clone(), count);
            let query = || json!({"text": "a large grey bird of the northern sea"});
            let all = block_on(few_shot.select(query())).unwrap();
            let shots = block_on(few_shot.with_token_budget(budget).select(query())).unwrap();
            let turns: usize = shots.chosen.iter().map(|shot| shot.tokens).sum();
            prop_assert!(shots.tokens <= budget && turns <= budget);
            prop_assert!(Words.count(&shots.text()).unwrap() <= budget);
            let mut seen: Vec<usize> = indexes(&shots);
            seen.extend(shots.left_out.iter().map(|left_out| left_out.index));
            seen.sort_unstable();
            let mut expected = indexes(&all);
            expected.sort_unstable();
            prop_assert_eq!(seen, expected, "{}", selector.name());
        }
    }
}

/// One embedder for several selectors.
struct Shared(std::sync::Arc<Known>);

#[async_trait]
impl Embedder for Shared {
    fn id(&self) -> &str {
        self.0.id()
    }

    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    async fn embed(&self, texts: &[String]) -> llmkit_core::Result<Vec<Vec<f32>>> {
        self.0.embed(texts).await
    }
}

fn rows() -> Vec<Value> {
    [
        ("a large grey bird", "animal"),
        ("a small grey fish of the northern sea", "animal"),
        ("soup of fish with grey pepper", "food"),
        ("bread", "food"),
        ("a large feeling of joy", "feeling"),
        ("the sea at night", "place"),
        ("a northern town by the sea with a large harbour and many birds", "place"),
        ("grey", "colour"),
    ]
    .map(|(text, label)| json!({"text": text, "label": label}))
    .to_vec()
}

fn few_shot(rows: &[Value]) -> FewShot {
    FewShot::new(Examples::new(rows).unwrap(), "{{ text }}", "{{ label }}").unwrap()
}

fn selectors(seed: u64) -> Vec<std::sync::Arc<dyn ExampleSelector>> {
    let embedder = || HashEmbedder::new(128);
    vec![
        std::sync::Arc::new(RandomSelector::new(seed)),
        std::sync::Arc::new(RandomSelector::new(seed).per_query()),
        std::sync::Arc::new(NgramSelector::new()),
        std::sync::Arc::new(KnnSelector::new(embedder())),
        std::sync::Arc::new(MmrSelector::new(embedder())),
        std::sync::Arc::new(BalancedSelector::new(NgramSelector::new(), "label")),
    ]
}

#[test]
fn the_query_itself_is_put_aside_unless_it_is_wanted() {
    let few_shot = few_shot(&rows()).with_selector(NgramSelector::new(), 8);
    let query = json!({"text": " A large  grey BIRD"});
    let shots = block_on(few_shot.select(&query)).unwrap();
    assert!(!indexes(&shots).contains(&0));
    assert_eq!(shots.left_out.len(), 1);
    assert_eq!((shots.left_out[0].index, &shots.left_out[0].reason), (0, &Reason::SameAsQuery));
    let shots = block_on(few_shot.with_query_kept().select(&query)).unwrap();
    assert_eq!(indexes(&shots).last(), Some(&0));
}

#[test]
fn a_threshold_leaves_out_what_has_nothing_in_common() {
    let select = |selector: NgramSelector| {
        let few_shot = few_shot(&rows()).with_selector(selector, 8);
        indexes(&block_on(few_shot.select(json!({"text": "warm bread"}))).unwrap())
    };
    assert_eq!(select(NgramSelector::new().with_threshold(0.0)), [3]);
    assert_eq!(select(NgramSelector::new()).len(), 8);
    assert!(select(NgramSelector::new().with_threshold(1.0)).is_empty());
    let embedder = HashEmbedder::new(512);
    let few_shot = few_shot(&rows()).with_selector(KnnSelector::new(embedder).with_threshold(0.6), 8);
    assert_eq!(indexes(&block_on(few_shot.select(json!({"text": "warm bread"}))).unwrap()), [3]);
}

#[test]
fn orders_are_what_they_say() {
    let select = |order: Order| {
        let few_shot = few_shot(&rows()).with_selector(NgramSelector::new(), 4).with_order(order);
        let shots = block_on(few_shot.select(json!({"text": "a large grey bird of prey"}))).unwrap();
        let scores: Vec<f64> = shots.chosen.iter().map(|shot| shot.score).collect();
        (indexes(&shots), scores)
    };
    let (best_last, scores) = select(Order::BestLast);
    assert!(scores.is_sorted() && scores[0] < scores[3], "{scores:?}");
    assert_eq!(best_last[3], 0);
    let (mut best_first, _) = select(Order::BestFirst);
    let (as_given, _) = select(Order::AsGiven);
    let (shuffled, _) = select(Order::Shuffled(3));
    assert!(as_given.is_sorted());
    assert_eq!(select(Order::Shuffled(3)).0, shuffled);
    assert!((0..9).any(|seed| select(Order::Shuffled(seed)).0 != shuffled));
    best_first.reverse();
    assert_eq!(best_first, best_last);
    let set = |places: &[usize]| places.iter().copied().collect::<HashSet<_>>();
    assert!(set(&as_given) == set(&best_last) && set(&shuffled) == set(&best_last));
}

#[test]
fn one_more_example_changes_at_most_one_of_those_drawn() {
    let all: Vec<Value> = (0..200).map(|n| json!({"text": format!("text {n}"), "label": n})).collect();
    let drawn = |rows: &[Value], seed| {
        let few_shot = few_shot(rows).with_selector(RandomSelector::new(seed), 10);
        let shots = block_on(few_shot.select(json!({"text": "x"}))).unwrap();
        shots.chosen.into_iter().map(|shot| shot.input).collect::<HashSet<_>>()
    };
    for seed in 0..20 {
        let (before, after) = (drawn(&all[..199], seed), drawn(&all, seed));
        assert!(before.intersection(&after).count() >= 9);
    }
    assert_ne!(drawn(&all, 1), drawn(&all, 2));
}

#[test]
fn an_example_too_long_for_the_budget_does_not_keep_out_those_after_it() {
    let rows = [("one two three four five six", "x"), ("one two", "x"), ("one", "x")]
        .map(|(text, label)| json!({"text": text, "label": label}));
    let few_shot = few_shot(&rows).with_counter(Words).with_turn_tokens(0).with_token_budget(5);
    let shots = block_on(few_shot.select(json!({"text": "?"}))).unwrap();
    assert_eq!((indexes(&shots), shots.tokens), (vec![1, 2], 5));
    assert_eq!(shots.left_out[0].reason, Reason::Budget { tokens: 7, left: 5 });
    assert_eq!(
        shots.to_string(),
        "2 chosen, 1 left out, 5 tokens\n  example 1: 0.000 = 3 tokens, next in order\n  \
         example 2: 0.000 = 2 tokens, next in order\n  without example 0: it takes 7 tokens where 5 were left"
    );
}

#[test]
fn every_class_is_there_when_balanced() {
    let few_shot = few_shot(&rows()).with_selector(BalancedSelector::new(NgramSelector::new(), "label"), 5);
    let shots = block_on(few_shot.select(json!({"text": "a large grey bird of prey"}))).unwrap();
    let labels: HashSet<&str> = shots.chosen.iter().map(|shot| shot.output.as_str()).collect();
    assert_eq!(labels.len(), 5);
    let few_shot = few_shot_with_class("kind");
    let error = block_on(few_shot.select(json!({"text": "x"}))).unwrap_err();
    assert_eq!(error.to_string(), "the field of the classes: expected a field of the examples, found `kind`");
}

fn few_shot_with_class(field: &str) -> FewShot {
    few_shot(&rows()).with_selector(BalancedSelector::new(NgramSelector::new(), field), 5)
}

/// Says whatever a test wants.
struct Says(Mutex<Vec<Selected>>);

#[async_trait]
impl ExampleSelector for Says {
    fn name(&self) -> &str {
        "says"
    }

    async fn select(&self, _: &[Candidate<'_>], _: &Query<'_>, _: usize) -> Result<Vec<Selected>> {
        Ok(self.0.lock().unwrap().clone())
    }
}

#[test]
fn a_selector_that_breaks_its_promise_is_an_error() {
    let chosen = |index, score| Selected::new(index, score, Why::Other("so".to_owned()));
    for (choice, message) in [
        (vec![chosen(8, 1.0)], "expected each candidate at most once, found example 8"),
        (vec![chosen(1, 1.0), chosen(1, 1.0)], "expected each candidate at most once, found example 1"),
        // It is the query, and no candidate.
        (vec![chosen(3, 1.0)], "expected each candidate at most once, found example 3"),
        (vec![chosen(1, f64::NAN)], "expected a score that is a number, found NaN for example 1"),
        ((0..3).map(|n| chosen(n, 1.0)).collect(), "expected at most 2 examples, found 3"),
    ] {
        let few_shot = few_shot(&rows()).with_selector(Says(Mutex::new(choice)), 2);
        let error = block_on(few_shot.select(json!({"text": "bread"}))).unwrap_err();
        assert!(matches!(error, Error::Selection { .. }), "{error:?}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn faults_of_templates_and_queries_are_errors() {
    let rows = || Examples::new(rows()).unwrap();
    let error = FewShot::new(rows(), "{{ text }} {{ colour }}", "{{ label }}").unwrap_err();
    assert!(error.to_string().contains("`colour` is not declared"), "{error}");
    assert!(!error.to_string().contains("never used"), "{error}");
    let error = FewShot::new(rows(), "Sort this.", "{{ label }}").unwrap_err();
    assert!(matches!(error, Error::Setting { .. }), "{error:?}");
    let few_shot = FewShot::new(rows(), "{{ text }}", "{{ label }}").unwrap();
    assert!(matches!(block_on(few_shot.select(json!({"txt": "x"}))), Err(Error::MissingValues { .. })));
    assert!(matches!(block_on(few_shot.select(json!(["x"]))), Err(Error::NotAMap { .. })));
    assert!(matches!(MmrSelector::new(HashEmbedder::new(8)).with_lambda(1.5), Err(Error::Setting { .. })));
    assert!(matches!(
        MmrSelector::new(HashEmbedder::new(8)).with_lambda(f64::NAN),
        Err(Error::Setting { .. })
    ));
}

#[test]
fn shots_go_before_the_last_question() {
    let few_shot = few_shot(&rows()[..1]);
    let shots = block_on(few_shot.select(json!({"text": "bread"}))).unwrap();
    let prompt = vec![Message::system("Sort."), Message::user("bread"), Message::assistant("It is")];
    let inserted = shots.insert_into(prompt);
    assert_eq!(
        inserted,
        [
            Message::system("Sort."),
            Message::user("a large grey bird"),
            Message::assistant("animal"),
            Message::user("bread"),
            Message::assistant("It is"),
        ]
    );
    assert_eq!(shots.insert_into(vec![Message::system("Sort.")]).len(), 3);
    assert_eq!(shots.query(), "bread");
}

#[test]
fn the_choice_and_its_reasons_are_in_the_trace() {
    let model = ScriptedModel::new([""; 0]);
    let run = Run::new("sort", &model);
    let few_shot = few_shot(&rows()).with_selector(NgramSelector::new(), 1);
    block_on(few_shot.select_in(&run, json!({"text": "warm bread"}))).unwrap();
    let trace = run.finish(()).trace.to_string();
    assert!(trace.contains("examples by n-gram overlap: 1 chosen, 0 left out"), "{trace}");
    assert!(trace.contains("example 3: 0.224 = 1-grams 0.500, 2-grams 0.100, brevity 1.000"), "{trace}");
}
