//! The methods of reasoning on models with known answers: which calls they make, with which messages, and what they make of the replies.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use llmkit_core::{ChatRequest, ChatResponse, FinishReason, LanguageModel, Usage};
use llmkit_prompt::reasoning::{
    EarlyStop, Evaluate, Evidence, Extract, FewShotCot, Generate, LeastToMost, PlanAndSolve, Reasoned,
    Reasoner, Search, SelfConsistency, StepBack, ThoughtState, TreeOfThoughts, Verdict, VerifiedReasoner,
    WorkedExample, ZeroShotCot,
};
use llmkit_prompt::testing::ScriptedModel;
use llmkit_prompt::{ChatPrompt, Error, Message, Result, Role, Run, Trace, TraceEvent, Traced};
use pollster::block_on;

const QUESTION: &str = "How many legs have 3 cats?";

fn run(method: &dyn Reasoner, model: &ScriptedModel) -> Result<Traced<Reasoned>> {
    block_on(method.run(model, QUESTION))
}

fn roles(request: &ChatRequest) -> Vec<Role> {
    request.messages.iter().map(|message| message.role).collect()
}

fn last(request: &ChatRequest) -> &str {
    &request.messages.last().unwrap().content
}

fn steps(trace: &Trace) -> Vec<&str> {
    trace.calls().map(|call| call.step.as_str()).collect()
}

fn notes(trace: &Trace) -> Vec<&str> {
    let mut notes = Vec::new();
    for event in &trace.events {
        match event {
            TraceEvent::Note(note) => notes.push(note.as_str()),
            TraceEvent::Part(part) => notes.extend(self::notes(part)),
            _ => {}
        }
    }
    notes
}

fn response(text: &str, finish_reason: FinishReason) -> ChatResponse {
    ChatResponse { message: Message::assistant(text), finish_reason, usage: Usage::default() }
}

fn number() -> ZeroShotCot {
    ZeroShotCot::new().with_extract(Extract::Number)
}

fn failure() -> llmkit_core::Error {
    llmkit_core::Error::Model { model: "scripted".to_owned(), reason: "it fell asleep".to_owned() }
}

#[test]
fn zero_shot_asks_once_and_says_which_form_it_wants() {
    let model = ScriptedModel::new(["4 legs each, 3 * 4 = 12.\nAnswer: 12"]);
    let found = run(&number(), &model).unwrap();
    assert_eq!(found.value, Reasoned::new("12", "4 legs each, 3 * 4 = 12.\nAnswer: 12"));
    let requests = model.requests();
    assert_eq!(roles(&requests[0]), [Role::User]);
    assert!(last(&requests[0]).starts_with(QUESTION));
    assert!(
        last(&requests[0]).ends_with("Answer: your answer, one number in digits without a unit"),
        "{}",
        last(&requests[0])
    );
    assert_eq!((requests[0].temperature, requests[0].seed), (None, None), "the method samples nothing");
    assert_eq!((found.trace.name.as_str(), steps(&found.trace)), ("zero-shot-cot", vec!["reason"]));

    for (extract, end) in [
        (Extract::letters('D'), "Answer: your answer, one letter from A to D"),
        (Extract::tagged("sum"), "<sum>your answer</sum>"),
        (Extract::Text, "Answer: your answer and nothing else"),
    ] {
        let model = ScriptedModel::new(["Answer: B <sum>B</sum>"]);
        run(&ZeroShotCot::new().with_extract(extract), &model).unwrap();
        assert!(last(&model.requests()[0]).ends_with(end), "{}", last(&model.requests()[0]));
    }
}

#[test]
fn zero_shot_in_two_calls_shows_the_reasoning_to_the_second() {
    let model = ScriptedModel::new(["Each has 4, so 12.", " 12 "]);
    let found = run(&ZeroShotCot::two_calls().with_extract(Extract::Number), &model).unwrap();
    assert_eq!(found.value, Reasoned::new("12", "Each has 4, so 12."));
    let requests = model.requests();
    assert_eq!(last(&requests[0]), format!("{QUESTION}\n\nLet's think step by step."));
    assert_eq!(roles(&requests[1]), [Role::User, Role::Assistant, Role::User]);
    assert_eq!(requests[1].messages[0], requests[0].messages[0]);
    assert_eq!(requests[1].messages[1].content, "Each has 4, so 12.");
    assert_eq!(steps(&found.trace), ["reason", "extract"]);
}

#[test]
fn a_reply_without_an_answer_is_an_error_that_says_why() {
    let model = ScriptedModel::new([""]);
    let error = run(&number(), &model).unwrap_err();
    assert!(matches!(&error, Error::NoAnswer { cut_off: false, .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "zero-shot-cot: expected a number in the model's reply, found none; the reply ends: (it is empty)"
    );

    let model = ScriptedModel::with_responses([response("First, let us consider", FinishReason::Length)]);
    let error = run(&number(), &model).unwrap_err().to_string();
    assert!(error.contains("raise `max_tokens`") && error.ends_with("First, let us consider"), "{error}");
}

#[test]
fn a_model_that_fails_in_the_middle_is_the_error() {
    let good = || Ok(response("1. How many legs has a cat?", FinishReason::Stop));
    let model = ScriptedModel::with_results([good(), Err(failure())]);
    let error = run(&LeastToMost::new(), &model).unwrap_err();
    assert!(
        matches!(&error, Error::Model(llmkit_core::Error::Model { reason, .. }) if reason == "it fell asleep"),
        "{error:?}"
    );
    assert_eq!(model.requests().len(), 2);
}

#[test]
fn thoughts_of_a_thinking_model_are_part_of_the_rationale() {
    let message = Message::assistant("Answer: 12").with_reasoning("4 + 4 + 4");
    let reply = ChatResponse { message, finish_reason: FinishReason::Stop, usage: Usage::default() };
    let found = run(&number(), &ScriptedModel::with_responses([reply])).unwrap();
    assert_eq!(found.value.rationale, "4 + 4 + 4\n\nAnswer: 12");
}

#[test]
fn a_prompt_that_wants_more_than_it_is_given_is_refused_and_another_replaces_it() {
    let wants =
        ChatPrompt::new("mine", [(Role::User, "{{ question }}{{ mood }}")], ["question", "mood"]).unwrap();
    let error = ZeroShotCot::new().with_prompt(wants.clone()).unwrap_err().to_string();
    assert!(error.contains("`mood`"), "{error}");
    assert!(StepBack::new().with_answer_prompt(wants.clone()).is_err());
    assert!(LeastToMost::new().with_solve_prompt(wants.clone()).is_err());
    assert!(TreeOfThoughts::new(1).with_answer_prompt(wants).is_err());

    let mine = ChatPrompt::new(
        "mine",
        [(Role::System, "Be brief."), (Role::User, "Q: {{ question }}")],
        ["question"],
    )
    .unwrap();
    let model = ScriptedModel::new(["Answer: 12", "Answer: 12"]);
    run(&ZeroShotCot::new().with_prompt(mine.clone()).unwrap(), &model).unwrap();
    let examples = FewShotCot::new([WorkedExample::new("1 + 1?", "One more.", "2")]).unwrap();
    run(&examples.with_prompt(mine).unwrap(), &model).unwrap();
    let requests = model.requests();
    assert_eq!(last(&requests[0]), format!("Q: {QUESTION}"));
    assert_eq!(roles(&requests[1]), [Role::System, Role::User, Role::Assistant, Role::User]);
}

#[test]
fn few_shot_shows_its_examples_as_turns() {
    let examples = [
        WorkedExample::new("Legs of 2 birds?", "2 * 2 = 4", "4"),
        WorkedExample::new("Of a fish?", "None.", "0"),
    ];
    let model = ScriptedModel::new(["3 * 4 = 12\nAnswer: 12", "12"]);
    let found = run(&FewShotCot::new(examples).unwrap().with_extract(Extract::Number), &model).unwrap();
    assert_eq!(found.value.answer, "12");
    let said: Vec<(Role, String)> =
        model.requests()[0].messages.iter().map(|message| (message.role, message.content.clone())).collect();
    let expected = [
        (Role::User, "Legs of 2 birds?"),
        (Role::Assistant, "2 * 2 = 4\nAnswer: 4"),
        (Role::User, "Of a fish?"),
        (Role::Assistant, "None.\nAnswer: 0"),
        (Role::User, QUESTION),
    ];
    assert_eq!(said, expected.map(|(role, text)| (role, text.to_owned())));

    let turns = [Message::user("Legs of a spider?"), Message::assistant("8")];
    run(&FewShotCot::from_messages(turns).with_extract(Extract::Number), &model).unwrap();
    assert_eq!(roles(&model.requests()[1]), [Role::User, Role::Assistant, Role::User]);
}

#[test]
fn plan_and_solve_asks_for_a_plan() {
    let model = ScriptedModel::new(["1. Legs.\nAnswer: 12", "1. Legs. It is 12.", "12"]);
    assert_eq!(run(&PlanAndSolve::new().with_extract(Extract::Number), &model).unwrap().value.answer, "12");
    let found = run(&PlanAndSolve::two_calls().with_extract(Extract::Number), &model).unwrap();
    assert_eq!((found.value.rationale.as_str(), found.trace.calls().count()), ("1. Legs. It is 12.", 2));
    assert!(last(&model.requests()[0]).contains("Make a short plan"));
}

#[test]
fn least_to_most_carries_each_answer_to_the_next_question() {
    let list = format!("Sure:\n1. How many legs has a cat?\n2) How many cats are there?\n3. {QUESTION}");
    let model = ScriptedModel::new([list.as_str(), "Four.", "Three.", "3 * 4\nAnswer: 12"]);
    let found = run(&LeastToMost::new().with_extract(Extract::Number), &model).unwrap();
    assert_eq!(found.value.answer, "12");
    let solved: Vec<(&str, &str)> =
        found.value.steps().iter().map(|step| (step.question.as_str(), step.answer.as_str())).collect();
    assert_eq!(solved, [("How many legs has a cat?", "Four."), ("How many cats are there?", "Three.")]);
    assert_eq!(steps(&found.trace), ["decompose", "solve", "solve", "answer"]);
    let requests = model.requests();
    assert!(!last(&requests[1]).contains("What we know"));
    assert!(last(&requests[2]).contains("Q: How many legs has a cat?\nA: Four."), "{}", last(&requests[2]));
    assert!(last(&requests[2]).ends_with("Answer this in one or two sentences: How many cats are there?"));
    assert!(
        last(&requests[3]).contains("A: Three.") && last(&requests[3]).contains("the question at the top")
    );
}

#[test]
fn least_to_most_says_what_it_leaves_out() {
    let model = ScriptedModel::new(["1. a?\n2. b?\n3. c?", "A", "Answer: 12"]);
    let found = run(&LeastToMost::new().with_limit(1), &model).unwrap();
    assert_eq!(notes(&found.trace), ["3 easier questions were found; the first 1 are asked"]);

    let model = ScriptedModel::new(["", "Answer: 12"]);
    let found = run(&LeastToMost::new(), &model).unwrap();
    assert_eq!(notes(&found.trace), ["no easier question was found, so the question is asked at once"]);
    assert_eq!(found.value.evidence, Evidence::Steps(vec![]));
}

#[test]
fn step_back_answers_the_general_question_first() {
    let model = ScriptedModel::new(["How many legs has a cat?", "Four.", "3 * 4\nAnswer: 12"]);
    let found = run(&StepBack::new().with_extract(Extract::Number), &model).unwrap();
    assert_eq!(
        (found.value.answer.as_str(), steps(&found.trace)),
        ("12", vec!["step back", "principles", "answer"])
    );
    let requests = model.requests();
    assert!(
        last(&requests[1]).starts_with("How many legs has a cat?") && !last(&requests[1]).contains(QUESTION)
    );
    assert!(
        last(&requests[2]).contains("How many legs has a cat?\nFour.")
            && last(&requests[2]).contains(QUESTION)
    );

    let error = run(&StepBack::new(), &ScriptedModel::new([" "])).unwrap_err().to_string();
    assert!(error.contains("a more general question"), "{error}");
}

#[test]
fn samples_have_different_seeds_and_the_majority_wins() {
    let model = ScriptedModel::from_fn(|request| match request.seed {
        Some(10 | 12) => "Answer: 12".to_owned(),
        other => format!("Answer: 1{}", other.unwrap() % 10),
    });
    let method = SelfConsistency::new(number(), 5).with_seed(10).with_temperature(0.5).with_concurrency(2);
    let found = run(&method, &model).unwrap();
    // Seeds 10 to 14: 12, 11, 12, 13, 14.
    assert_eq!(found.value.answer, "12");
    let vote = found.value.vote().unwrap();
    assert_eq!(vote.to_string(), "12: 2, 11: 1, 13: 1, 14: 1");
    assert_eq!(vote.agreement(), 0.4);
    let mut seeds: Vec<u64> = model.requests().iter().map(|request| request.seed.unwrap()).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [10, 11, 12, 13, 14]);
    assert!(model.requests().iter().all(|request| request.temperature == Some(0.5)));
    let parts: Vec<&str> = found
        .trace
        .events
        .iter()
        .filter_map(|event| match event {
            TraceEvent::Part(part) => Some(part.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(parts, ["sample 1", "sample 2", "sample 3", "sample 4", "sample 5"]);
    assert!(notes(&found.trace).contains(&"seed 11, and temperature 0.5 where a request sets none"));
}

/// Answers late where it is asked early, and counts how many answers are under way.
struct Slow {
    under_way: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl LanguageModel for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn chat(&self, request: ChatRequest) -> llmkit_core::Result<ChatResponse> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let seed = request.seed.unwrap();
        futures_timer::Delay::new(std::time::Duration::from_millis(5 * (6 - seed))).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(response(&format!("Answer: {seed}"), FinishReason::Stop))
    }
}

#[test]
fn the_outcome_does_not_depend_on_which_sample_is_done_first_and_no_more_run_than_allowed() {
    for concurrency in [1, 3, 6] {
        let model = Slow { under_way: AtomicUsize::new(0), most: AtomicUsize::new(0) };
        let method = SelfConsistency::new(number(), 6).with_concurrency(concurrency);
        let found = block_on(method.run(&model, QUESTION)).unwrap();
        // All differ: a tie, which the first sample wins.
        assert_eq!(found.value.answer, "0");
        assert!(notes(&found.trace).contains(&"the vote is a tie; 0 came first"));
        assert_eq!(model.most.load(Ordering::SeqCst), concurrency);
    }
}

#[test]
fn samples_that_fail_are_counted_and_all_failing_is_an_error() {
    let results = || {
        [Err(failure()), Ok(response("no idea", FinishReason::Stop)), Ok(response("12", FinishReason::Stop))]
    };
    let method = SelfConsistency::new(number(), 3).with_concurrency(1);
    let found = run(&method, &ScriptedModel::with_results(results())).unwrap();
    assert_eq!(found.value.answer, "12");
    let vote = found.value.vote().unwrap();
    assert_eq!((vote.samples, vote.failed, vote.agreement()), (3, 2, 1.0));
    assert!(
        notes(&found.trace)
            .iter()
            .any(|note| note.starts_with("sample 1 gave no answer") && note.contains("fell asleep"))
    );

    let error = run(&method, &ScriptedModel::with_results(results().into_iter().take(2))).unwrap_err();
    let Error::AllSamplesFailed { reasons, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(reasons.len(), 3);
    assert!(
        matches!(**source, Error::Model(_)) && error.to_string().contains("none of 3 samples"),
        "{error}"
    );
}

#[test]
fn a_clear_majority_ends_the_sampling() {
    let method = |stop| SelfConsistency::new(number(), 9).with_concurrency(2).with_early_stop(stop);
    let model = ScriptedModel::from_fn(|_| "12");
    let found = run(&method(EarlyStop::Decided), &model).unwrap();
    // After 2, 4 of 9 the others could still win; not after 6.
    let vote = found.value.vote().unwrap();
    assert_eq!((vote.samples, vote.spared, model.requests().len()), (6, 3, 6));

    let model = ScriptedModel::from_fn(|_| "12");
    let found = run(&method(EarlyStop::Confident(0.95)), &model).unwrap();
    assert_eq!((found.value.vote().unwrap().samples, model.requests().len()), (4, 4));
}

#[test]
fn answers_are_the_same_as_the_user_says() {
    let replies = ["Answer: a dog", "Answer: the cat", "Answer: cat"];
    let article = |answer: &str| answer.rsplit(' ').next().unwrap().to_owned();
    let method = SelfConsistency::new(ZeroShotCot::new(), 3).with_normaliser(article);
    assert_eq!(run(&method, &ScriptedModel::new(replies)).unwrap().value.answer, "the cat");
    let method =
        SelfConsistency::new(ZeroShotCot::new(), 3).with_equivalence(|left, right| left.len() == right.len());
    assert_eq!(run(&method, &ScriptedModel::new(replies)).unwrap().value.answer, "a dog");
}

#[test]
fn settings_that_make_no_sense_are_refused_before_any_call() {
    let model = ScriptedModel::new([""; 0]);
    let wrong: [(&str, Box<dyn Reasoner>); 8] = [
        ("samples", Box::new(SelfConsistency::new(number(), 0))),
        ("concurrency", Box::new(SelfConsistency::new(number(), 2).with_concurrency(0))),
        ("temperature", Box::new(SelfConsistency::new(number(), 2).with_temperature(0.0))),
        (
            "early_stop",
            Box::new(SelfConsistency::new(number(), 2).with_early_stop(EarlyStop::Confident(1.5))),
        ),
        ("depth", Box::new(TreeOfThoughts::new(0))),
        ("beam", Box::new(TreeOfThoughts::new(1).with_search(Search::Breadth { beam: 0 }))),
        ("evaluate", Box::new(TreeOfThoughts::new(1).with_evaluate(Evaluate::Vote { votes: 0 }))),
        ("threshold", Box::new(TreeOfThoughts::new(1).with_search(Search::Depth { threshold: f64::NAN }))),
    ];
    for (setting, method) in wrong {
        let error = run(&*method, &model).unwrap_err();
        assert!(
            matches!(&error, Error::Setting { setting: found, .. } if found.contains(setting)),
            "{error:?}"
        );
    }
    assert_eq!(model.requests(), []);
}

#[test]
fn methods_compose() {
    let samples: Arc<dyn Reasoner> =
        Arc::new(SelfConsistency::new(PlanAndSolve::new().with_extract(Extract::Number), 3));
    let checked = VerifiedReasoner::new(samples, |_: &str, found: &Reasoned| match found.answer.as_str() {
        "12" => Verdict::pass(),
        _ => Verdict::fail("count again"),
    })
    .with_extract(Extract::Number);
    let model = ScriptedModel::new(["Answer: 7", "Answer: 7", "Answer: 12", "Answer: 12"]);
    let found = run(&checked, &model).unwrap();
    assert_eq!((found.value.answer.as_str(), found.value.revisions().len()), ("12", 2));
    let TraceEvent::Part(part) = &found.trace.events[0] else { panic!() };
    assert_eq!(
        (part.name.as_str(), part.calls().count(), found.trace.calls().count()),
        ("self-consistency", 3, 4)
    );

    // Sampling within sampling: no two calls have the same seed.
    let inner = SelfConsistency::new(number(), 3);
    let model = ScriptedModel::from_fn(|_| "12");
    run(&SelfConsistency::new(inner, 3), &model).unwrap();
    let seeds: std::collections::BTreeSet<_> = model.requests().iter().map(|request| request.seed).collect();
    assert_eq!(seeds.len(), 9);
}

#[test]
fn an_accepted_answer_is_not_revised() {
    let checked = VerifiedReasoner::new(number(), |_: &str, _: &Reasoned| Verdict::pass());
    let model = ScriptedModel::new(["Answer: 7"]);
    let found = run(&checked, &model).unwrap();
    assert_eq!((found.value.answer.as_str(), model.requests().len()), ("7", 1));
    assert!(found.value.revisions()[0].kept);
}

#[test]
fn a_revision_is_kept_only_where_the_verifier_finds_it_better() {
    // The nearer to 12 the better.
    let near = |_: &str, found: &Reasoned| {
        let distance = (found.answer.parse::<f64>().unwrap() - 12.0).abs();
        let verdict =
            if distance == 0.0 { Verdict::pass() } else { Verdict::fail(format!("off by {distance}")) };
        verdict.with_score(-distance)
    };
    let checked = VerifiedReasoner::new(number(), near).with_extract(Extract::Number).with_revisions(3);
    let model = ScriptedModel::new(["Answer: 10", "Answer: 3", "I give up", "Answer: 11"]);
    let found = run(&checked, &model).unwrap();
    assert_eq!(found.value.answer, "11");
    let kept: Vec<(&str, bool)> =
        found.value.revisions().iter().map(|revision| (revision.answer.as_str(), revision.kept)).collect();
    assert_eq!(kept, [("10", true), ("3", false), ("11", true)]);
    let requests = model.requests();
    assert!(last(&requests[1]).contains("Its answer: 10") && last(&requests[1]).contains("off by 2"));
    assert!(last(&requests[2]).contains("Its answer: 10"), "the worse revision was dropped");
    assert!(last(&requests[2]).contains("These answers failed as well: 3"), "{}", last(&requests[2]));
    let notes = notes(&found.trace);
    assert!(notes.iter().any(|note| note.contains("the revision 3 is no better")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("the revision is passed over")), "{notes:?}");
    assert_eq!(notes.last().unwrap(), &"the verifier did not accept any answer; 11 is the best");

    let strict = VerifiedReasoner::new(number(), near).with_revisions(0).strict();
    let error = run(&strict, &ScriptedModel::new(["Answer: 10"])).unwrap_err();
    assert!(
        matches!(&error, Error::NotVerified { answer, feedback } if answer == "10" && feedback == "off by 2"),
        "{error:?}"
    );
}

fn tree() -> TreeOfThoughts {
    TreeOfThoughts::new(2).with_breadth(2).with_concurrency(1).with_extract(Extract::Number)
}

#[test]
fn a_tree_is_searched_in_breadth_and_the_beam_cuts_it() {
    let model = ScriptedModel::new([
        "1. Count one cat.\n2. Count the ears.",
        "Score: 8",
        "Score: 2",
        "1. One has 4.\n2. One has 3.",
        "Score: 9",
        "Score: 1",
        "3 * 4 = 12\nAnswer: 12",
    ]);
    let found = run(&tree().with_search(Search::Breadth { beam: 1 }), &model).unwrap();
    assert_eq!(found.value.answer, "12");
    assert_eq!(found.value.rationale, "Count one cat.\nOne has 4.\n3 * 4 = 12\nAnswer: 12");
    assert_eq!(
        steps(&found.trace),
        ["generate", "evaluate", "evaluate", "generate", "evaluate", "evaluate", "answer"]
    );
    let tree = found.value.tree().unwrap();
    let states: Vec<ThoughtState> = tree.thoughts.iter().map(|thought| thought.state).collect();
    assert_eq!(
        states,
        [ThoughtState::Expanded, ThoughtState::Pruned, ThoughtState::Solved, ThoughtState::Pruned]
    );
    assert_eq!((tree.chosen, tree.stopped.as_deref()), (Some(2), None));
    assert_eq!(
        tree.to_string(),
        "* 0.80 Count one cat.\n  * 0.90 One has 4.\n  x 0.10 One has 3.\nx 0.20 Count the ears.\n"
    );
    let requests = model.requests();
    assert!(last(&requests[3]).contains("1. Count one cat."), "{}", last(&requests[3]));
    assert!(last(&requests[4]).contains("1. Count one cat.\n2. One has 4."), "{}", last(&requests[4]));
    assert!(last(&requests[6]).contains("1. Count one cat.\n2. One has 4."));
}

#[test]
fn a_tree_is_searched_in_depth_and_turns_back_below_the_threshold() {
    let model = ScriptedModel::new([
        "1. left\n2. right",
        "Score: 9",
        "Score: 6",
        // Below left all is worse than the threshold, so right comes next.
        "1. l1\n2. l2",
        "Score: 1",
        "Score: 4",
        "1. r1\n2. r2",
        "Score: 5",
        "Score: 7",
        "Answer: 12",
    ]);
    let found = run(&tree().with_search(Search::Depth { threshold: 0.5 }), &model).unwrap();
    let tree = found.value.tree().unwrap();
    assert_eq!(tree.chosen_path(), ["right", "r2"]);
    assert_eq!(found.value.answer, "12");
}

#[test]
fn sampled_thoughts_and_votes_have_seeds_of_their_own() {
    let method = TreeOfThoughts::new(1)
        .with_breadth(3)
        .with_generate(Generate::Sample)
        .with_evaluate(Evaluate::Vote { votes: 3 })
        .with_seed(7)
        .with_concurrency(1);
    let model = ScriptedModel::new([
        "Answer: 3",
        "Answer: 12",
        "Answer: 3",
        "Best choice: 2",
        "Best choice: 5",
        "The best is 2.",
    ]);
    let found = run(&method, &model).unwrap();
    assert_eq!(found.value.answer, "12");
    let tree = found.value.tree().unwrap();
    assert_eq!(tree.thoughts.iter().map(|thought| thought.value).collect::<Vec<_>>(), [0.0, 2.0 / 3.0]);
    let seeds: Vec<Option<u64>> = model.requests().iter().map(|request| request.seed).collect();
    assert_eq!(seeds, [7, 8, 9, 7, 8, 9].map(Some));
    let notes = notes(&found.trace);
    assert!(notes.iter().any(|note| note.contains("1 thoughts are passed over")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("a vote for none of the 2 choices")), "{notes:?}");
}

#[test]
fn limits_end_the_search_and_the_best_so_far_answers() {
    let replies = || ScriptedModel::new(["1. one\n2. two", "Score: 3", "Score: 6", "Answer: 12"]);
    let model = replies();
    let found = run(&tree().with_max_calls(5), &model).unwrap();
    assert_eq!(found.value.answer, "12");
    let tree_found = found.value.tree().unwrap();
    assert_eq!(tree_found.chosen_path(), ["two"]);
    assert!(tree_found.stopped.as_deref().unwrap().contains("the limit of 5"), "{tree_found}");
    assert!(notes(&found.trace).iter().any(|note| note.starts_with("the search ended early")));
    assert_eq!(model.requests().len(), 4);

    let found = run(
        &tree().with_max_thoughts(2),
        &ScriptedModel::from_fn(|request| match request.messages[0].content.contains("Suggest") {
            true => "1. one\n2. two".to_owned(),
            false => "Score: 5\nAnswer: 12".to_owned(),
        }),
    )
    .unwrap();
    assert!(found.value.tree().unwrap().stopped.as_deref().unwrap().contains("2 thoughts"));
}

#[test]
fn a_tree_without_thoughts_asks_at_once_and_a_bad_score_counts_as_nothing() {
    let model = ScriptedModel::new(["", "Answer: 12"]);
    let found = run(&tree(), &model).unwrap();
    assert_eq!(found.value.answer, "12");
    assert_eq!(
        (found.value.tree().unwrap().chosen, notes(&found.trace)),
        (None, vec!["no next step was found in the reply"])
    );

    let model = ScriptedModel::new(["1. Answer: 11\n2. Answer: 12", "It looks fine!", "Score: 1"]);
    let found = run(&TreeOfThoughts::new(1).with_breadth(2).with_concurrency(1), &model).unwrap();
    assert_eq!(found.value.answer, "12");
    assert!(notes(&found.trace).contains(&"a judgement without a score from 0 to 10 counts as 0"));
}

#[test]
fn a_method_of_ones_own_is_a_method() {
    struct Canned(Mutex<Vec<&'static str>>);

    #[async_trait]
    impl Reasoner for Canned {
        fn name(&self) -> &str {
            "canned"
        }

        async fn run_in(&self, run: &Run<'_>, _: &str) -> Result<Reasoned> {
            run.note("out of the can");
            Ok(Reasoned::new(self.0.lock().unwrap().pop().unwrap(), ""))
        }
    }

    let method = SelfConsistency::new(Canned(Mutex::new(vec!["a", "b", "A."])), 3);
    let found = run(&method, &ScriptedModel::new([""; 0])).unwrap();
    assert_eq!((found.value.answer.as_str(), found.trace.calls().count()), ("A.", 0));
}

#[test]
fn what_comes_out_can_be_sent_and_stored() {
    fn check<T: Send + Sync>() {}
    check::<SelfConsistency<ZeroShotCot>>();
    check::<TreeOfThoughts>();
    let model = ScriptedModel::new(["Answer: 12"]);
    let found = run(&SelfConsistency::new(number(), 1), &model).unwrap();
    let json = serde_json::to_value(&found.value).unwrap();
    assert_eq!(json["evidence"]["vote"]["candidates"][0]["answer"], "12");
}
