//! Long documents: PEARL and summaries on models with known answers.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use llmkit_core::{Capabilities, ChatRequest, ChatResponse, LanguageModel, TokenCounter};
use llmkit_prompt::pearl::{
    Actions, Demonstration, LabelledQuestion, Miner, Pearl, PearlOutcome, PlainReason, Plan, Planning,
    Refiner, WordOverlap,
};
use llmkit_prompt::summary::{Strategy, Summarizer};
use llmkit_prompt::testing::ScriptedModel;
use llmkit_prompt::{Error, Role, TraceEvent};
use pollster::block_on;

fn actions() -> Actions {
    Actions::from_yaml(
        "- {name: FIND, parameters: [CTX, X], definition: Find X in CTX.}\n\
         - {name: COMPARE, parameters: [CTX, X, Y], definition: Say how X and Y differ in CTX.}",
    )
    .unwrap()
}

fn last(request: &ChatRequest) -> &str {
    &request.messages.last().unwrap().content
}

/// A model that takes a moment, and counts how many of its answers are being made at a time.
struct Busy {
    model: ScriptedModel,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Busy {
    fn new(model: ScriptedModel) -> Self {
        Self { model, now: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl LanguageModel for Busy {
    fn name(&self) -> &str {
        "busy"
    }

    fn capabilities(&self) -> Capabilities {
        self.model.capabilities()
    }

    async fn chat(&self, request: ChatRequest) -> llmkit_core::Result<ChatResponse> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        // Later answers come first, so that order cannot come from timing.
        let wait = if last(&request).contains("first") { 60 } else { 20 };
        futures_timer::Delay::new(Duration::from_millis(wait)).await;
        let answer = self.model.chat(request).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

#[test]
fn all_faults_go_back_to_the_model_at_once() {
    let model = ScriptedModel::new([
        "1. a = FIND(CTX)\n2. b = SEEK(CTX, \"x\")\n3. c = COMPARE(CTX, a, d)",
        "Sorry!\n1. a = FIND(CTX, \"x\") : the x",
    ]);
    let traced = block_on(Pearl::new(actions()).plan(&model, "Why?")).unwrap();
    let Planning::Valid { plan, attempts } = traced.value else { panic!("{:?}", traced.value) };
    assert_eq!(plan.to_string(), "1. a = FIND(CTX, \"x\") : the x\n");
    assert_eq!(attempts.len(), 1);
    let second = &model.requests()[1].messages;
    assert_eq!(second[second.len() - 2].role, Role::Assistant);
    let repair = last(&model.requests()[1]).to_owned();
    for part in [
        "attempt 1 of 8",
        "- line 1, column 8: `FIND(CTX, X)` is given 1 argument",
        "- line 2, column 8: there is no action `SEEK`",
        "- line 3, column 24: `d` is no variable of an earlier step",
    ] {
        assert!(repair.contains(part), "{part}\n{repair}");
    }
    assert!(traced.trace.to_string().contains("lines of the plan that are no steps: 1"), "{}", traced.trace);
}

#[test]
fn the_plan_prompt_shows_actions_and_demonstrations_and_not_the_document() {
    let model = ScriptedModel::new(["1. a = SUMMARIZE(CTX)", "A summary."]);
    let answer = block_on(Pearl::new(Actions::builtin()).run(&model, "SECRET", "Why?")).unwrap();
    assert_eq!(answer.value.text, "A summary.");
    let prompt = last(&model.requests()[0]).to_owned();
    assert!(!prompt.contains("SECRET") && prompt.ends_with("Question: Why?\nPlan:"), "{prompt}");
    for demonstration in Demonstration::builtin() {
        assert!(prompt.contains(demonstration.plan.trim_end()));
    }
    for action in Actions::builtin().iter() {
        assert!(prompt.contains(&action.to_string()));
    }
    // Demonstrations whose actions are not there are not shown.
    let model = ScriptedModel::new(["1. a = FIND(CTX, \"x\")"]);
    block_on(Pearl::new(actions()).plan(&model, "Why?")).unwrap();
    assert_eq!(last(&model.requests()[0]).matches("Question:").count(), 1);
}

#[test]
fn after_eight_plans_that_fail_the_answer_is_plain_and_says_so() {
    let model = ScriptedModel::from_fn(|request| match last(request) {
        prompt if prompt.starts_with("<document>") => "Because.".to_owned(),
        _ => "1. a = SEEK(CTX)".to_owned(),
    });
    let traced = block_on(Pearl::new(actions()).run(&model, "A text.", "Why?")).unwrap();
    assert_eq!(traced.value.text, "Because.");
    let PearlOutcome::Plain { why: PlainReason::NoValidPlan { attempts } } = traced.value.outcome else {
        panic!()
    };
    assert_eq!(attempts.len(), 8);
    assert_eq!(model.requests().len(), 9);
    assert_eq!(last(&model.requests()[8]), "<document>\nA text.\n</document>\n\nWhy?");
    // No request is the same as another: a model at temperature 0 gets a chance.
    let requests = model.requests();
    assert!((1..8).all(|index| requests[index] != requests[index - 1]));
    assert!(traced.trace.to_string().contains("no plan in 8 attempts"));
}

#[test]
fn independent_steps_run_side_by_side_and_are_recorded_in_order() {
    let text = "1. a = FIND(CTX, \"first\")\n2. b = FIND(CTX, \"second\")\n3. c = FIND(CTX, \"third\")\n\
                4. d = COMPARE(CTX, a, b)\n5. e = CONCAT(\"So:\", d, c)\n6. f = FIND(CTX, \"fourth\")";
    let plan = Plan::parse(text, &actions()).unwrap();
    assert_eq!(plan.levels(), [vec![0, 1, 2, 5], vec![3], vec![4]]);
    assert_eq!(plan.answers(), [4, 5]);
    let answer = |request: &ChatRequest| {
        let prompt = last(request);
        let value = |name: &str| {
            prompt.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned)
        };
        match (value("X"), value("Y")) {
            (Some(x), Some(y)) => format!("[{x} | {y}]"),
            (Some(x), None) => x.to_uppercase(),
            _ => panic!("{prompt}"),
        }
    };
    for (concurrency, most) in [(1, 1), (2, 2), (8, 4)] {
        let model = Busy::new(ScriptedModel::from_fn(answer));
        let pearl = Pearl::new(actions()).with_concurrency(concurrency);
        let traced = block_on(pearl.execute(&model, "The text.", &plan)).unwrap();
        assert_eq!(
            traced.value,
            ["FIRST", "SECOND", "THIRD", "[FIRST | SECOND]", "So:\n\n[FIRST | SECOND]\n\nTHIRD", "FOURTH"]
        );
        assert_eq!(model.most.load(Ordering::SeqCst), most);
        // CONCAT asks no model.
        assert_eq!(model.model.requests().len(), 5);
        let names: Vec<&str> = traced
            .trace
            .events
            .iter()
            .map(|event| match event {
                TraceEvent::Part(part) => part.name.split(':').next().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, ["step 1", "step 2", "step 3", "step 4", "step 5", "step 6"]);
        // The document stands first in every prompt, so that what was read of it can be shared.
        let prompts: Vec<String> =
            model.model.requests().iter().map(|request| last(request).to_owned()).collect();
        assert!(prompts.iter().all(|prompt| prompt.starts_with("<document>\nThe text.\n</document>\n")));
    }
}

#[test]
fn the_answer_is_what_nobody_used() {
    let model = ScriptedModel::new(["1. a = FIND(CTX, \"x\")\n2. b = FIND(CTX, \"y\")", "one", "two"]);
    let answer =
        block_on(Pearl::new(actions()).with_concurrency(1).run(&model, "Text.", "Why?")).unwrap().value;
    assert_eq!(answer.text, "one\n\ntwo");
}

#[test]
fn a_step_that_fails_ends_the_plan_with_its_error() {
    let model = ScriptedModel::new(["1. a = FIND(CTX, \"x\")\n2. b = FIND(CTX, \"y\")", "one"]);
    let error = block_on(Pearl::new(actions()).run(&model, "Text.", "Why?")).unwrap_err();
    assert!(matches!(&error, Error::Model(_)) && error.to_string().contains("its script is over"), "{error}");
    let other = Plan::parse("1. a = SUMMARIZE(CTX)", &Actions::builtin()).unwrap();
    let error =
        block_on(Pearl::new(actions()).execute(&ScriptedModel::new(["x"]), "Text.", &other)).unwrap_err();
    assert!(error.to_string().starts_with("action `SUMMARIZE`: the plan uses it"), "{error}");
}

#[test]
fn a_long_document_is_gone_through_part_by_part_in_each_step() {
    let document: String = (0..60).map(|k| format!("Paragraph {k} says nothing of note.\n\n")).collect();
    let model = ScriptedModel::from_fn(|request| {
        let prompt = last(request);
        if prompt.contains("part by part") {
            format!("merged {}", prompt.matches("<part>").count())
        } else {
            "found".to_owned()
        }
    })
    .with_capabilities(Capabilities::new().with_context_tokens(500));
    let plan = Plan::parse("1. a = FIND(CTX, \"notes\") : why not", &actions()).unwrap();
    let pearl = Pearl::new(actions()).with_step_tokens(50);
    let traced = block_on(pearl.execute(&model, &document, &plan)).unwrap();
    let requests = model.requests();
    let parts = requests.len() - 1;
    assert!(parts >= 2);
    assert_eq!(traced.value, [format!("merged {parts}")]);
    for request in &requests {
        let tokens: usize = request
            .messages
            .iter()
            .map(|message| llmkit_core::ApproximateTokens.count(&message.content).unwrap())
            .sum();
        assert!(tokens + 50 <= 500, "{tokens}");
    }
    assert!(last(&requests[0]).contains(&format!("This is part 1 of {parts} of the document")));
    // Together the parts are the document.
    let joined: String = requests[..parts]
        .iter()
        .map(|request| {
            last(request)
                .strip_prefix("<document>\n")
                .unwrap()
                .split("\n</document>")
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(joined, document);
    // The plain answer goes the same way.
    let pearl = pearl.with_attempts(0);
    let answer = block_on(pearl.run(&model, &document, "What is noted?")).unwrap().value;
    assert_eq!(answer.text, format!("merged {parts}"));
}

#[test]
fn questions_are_routed_if_asked_for() {
    for (word, planned) in [("DIRECT", false), ("**Direct.**", false), ("PLAN", true), ("Hm", true)] {
        let model =
            ScriptedModel::new([word, if planned { "1. a = FIND(CTX, \"x\")" } else { "plain" }, "found"]);
        let traced =
            block_on(Pearl::new(actions()).with_routing(true).run(&model, "Text.", "When?")).unwrap();
        assert_eq!(traced.value.outcome.is_planned(), planned, "{word}");
        assert_eq!(traced.value.text, if planned { "found" } else { "plain" });
        assert_eq!(traced.trace.to_string().contains("neither DIRECT nor PLAN"), word == "Hm");
    }
}

#[test]
fn mined_actions_are_merged_by_name_and_simplified_in_shards() {
    let model = ScriptedModel::new([
        "Sure:\n- `FIND_AGE(CTX, X)`: Find how old X is in CTX.\n- FIND(CTX): Find anything.\n- BROKEN(CTX: oh",
        "1. **FIND_AGE(CTX, X): Say how old X is.**\n2. FIND_PLACE(CTX, X): Find where X is in CTX.",
        "FIND(CTX, X): Find X in CTX.\nFIND_AGE(CTX, X): Find how old X is in CTX.",
        "I cannot make this shorter.",
    ]);
    let miner = Miner::new().with_known(actions()).with_shard(3).with_concurrency(1);
    let traced = block_on(miner.run(&model, &["How old is Ben?", "Where is Anna?"])).unwrap();
    let lines: Vec<String> = traced.value.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "FIND(CTX, X): Find X in CTX.",
            "FIND_AGE(CTX, X): Find how old X is in CTX.",
            "FIND_PLACE(CTX, X): Find where X is in CTX.",
        ]
    );
    let shown = traced.trace.to_string();
    assert!(shown.contains("passed over `BROKEN(CTX: oh`"), "{shown}");
    assert!(
        shown.contains("kept `FIND(CTX, X): Find X in CTX.` and dropped `FIND(CTX): Find anything.`"),
        "{shown}"
    );
    assert!(shown.contains("of shard 2 nothing came back"), "{shown}");
    // The second shard is what the first left.
    assert!(last(&model.requests()[3]).starts_with("FIND_PLACE(CTX, X)"), "{}", last(&model.requests()[3]));
}

#[test]
fn refining_keeps_the_better_plan_and_only_if_it_is_good_enough() {
    let example = |answer: &str| LabelledQuestion {
        document: "A text.".to_owned(),
        question: "Who did it?".to_owned(),
        answer: answer.to_owned(),
    };
    let script = [
        "1. a = FIND(CTX, \"one\")",
        "wrong altogether",
        "1. a = FIND(CTX, \"two\")",
        "the old butler",
        "1. a = FIND(CTX, \"three\")",
        "a butler perhaps it was not",
    ];
    let refiner = Refiner::new(Pearl::new(actions()), WordOverlap).with_accept(0.7).with_tries(3);
    // The second try is the best one and good enough: it ends there.
    let model = ScriptedModel::new(script);
    let refined = block_on(refiner.run(&model, &[example("the butler")])).unwrap().value;
    assert_eq!(refined.replays[0].scores, [Some(0.0), Some(0.8)]);
    assert_eq!(refined.replays[0].kept, Some(1));
    assert_eq!(refined.demonstrations[0].plan, "1. a = FIND(CTX, \"two\")\n");
    let told = last(&model.requests()[2]).to_owned();
    assert!(
        told.contains("wrong altogether") && told.contains("the butler") && told.contains("judged 0.00"),
        "{told}"
    );
    // Never good enough: all tries, and no demonstration.
    let model = ScriptedModel::new(script);
    let refined =
        block_on(refiner.clone().with_accept(0.9).run(&model, &[example("the butler")])).unwrap().value;
    assert_eq!(refined.replays[0].scores.len(), 3);
    assert_eq!((refined.replays[0].kept, refined.demonstrations.len()), (None, 0));
    // A worse later try does not displace a better earlier one.
    let model = ScriptedModel::new([script[2], script[3], script[4], script[5]]);
    let lenient = Refiner::new(Pearl::new(actions()), WordOverlap).with_accept(0.85).with_tries(2);
    let refined = block_on(lenient.run(&model, &[example("the butler")])).unwrap().value;
    assert!(refined.replays[0].scores[0] > refined.replays[0].scores[1]);
}

fn paragraphs(count: usize) -> String {
    (0..count).map(|k| format!("Paragraph {k:03} is one of many like it, and says so.\n\n")).collect()
}

/// Says which call it was.
fn calls() -> ScriptedModel {
    let count = AtomicUsize::new(0);
    ScriptedModel::from_fn(move |_| format!("S{}", count.fetch_add(1, Ordering::SeqCst)))
}

#[test]
fn a_document_that_fits_is_summarized_in_one_call() {
    for strategy in [Strategy::Stuff, Strategy::Refine, Strategy::MapReduce, Strategy::Tree { branch: 2 }] {
        let model = calls();
        let summary = block_on(Summarizer::new(strategy).run(&model, &paragraphs(3))).unwrap().value;
        assert_eq!((summary.text.as_str(), summary.levels), ("S0", 0));
        assert_eq!(model.requests().len(), 1);
        assert_eq!(model.requests()[0].max_tokens, Some(400));
    }
}

#[test]
fn refining_goes_from_part_to_part() {
    let model = calls();
    let summarizer = Summarizer::new(Strategy::Refine).with_context_tokens(500).with_summary_tokens(60);
    let document = paragraphs(60);
    let summary = block_on(summarizer.run(&model, &document)).unwrap().value;
    let requests = model.requests();
    assert!(summary.chunks.len() > 2);
    assert_eq!(requests.len(), summary.chunks.len());
    assert_eq!(summary.text, format!("S{}", requests.len() - 1));
    for (index, (request, range)) in requests.iter().zip(&summary.chunks).enumerate() {
        assert!(last(request).contains(document[range.clone()].trim()));
        assert_eq!(
            last(request).contains(&format!("<summary>\nS{}\n</summary>", index.wrapping_sub(1))),
            index > 0
        );
    }
    assert_eq!((summary.chunks[0].start, summary.chunks.last().unwrap().end), (0, document.len()));
}

#[test]
fn map_reduce_is_deterministic_and_side_by_side() {
    let document = paragraphs(60);
    let answer = |request: &ChatRequest| {
        let prompt = last(request);
        let found: Vec<&str> = prompt.split("Paragraph ").skip(1).map(|rest| &rest[..3]).collect();
        if found.is_empty() {
            prompt.lines().filter(|line| line.starts_with('#')).collect::<Vec<_>>().join(" ")
        } else {
            format!("#{}-{}", found[0], found.last().unwrap())
        }
    };
    let run = |concurrency| {
        let model = Busy::new(ScriptedModel::from_fn(answer));
        let summarizer = Summarizer::new(Strategy::MapReduce)
            .with_context_tokens(500)
            .with_summary_tokens(60)
            .with_concurrency(concurrency);
        let traced = block_on(summarizer.run(&model, &document)).unwrap();
        (traced, model.most.load(Ordering::SeqCst))
    };
    let ((one, most_one), (many, most_many)) = (run(1), run(3));
    assert_eq!((most_one, most_many), (1, 3));
    assert_eq!(one.value, many.value);
    assert!(one.value.text.starts_with("#000-") && one.value.text.ends_with("-059"), "{}", one.value.text);
    assert_eq!(one.value.levels, 1);
    assert!(many.trace.to_string().contains("the document has"), "{}", many.trace);
    let parts = |trace: &llmkit_prompt::Trace| -> Vec<String> {
        trace
            .events
            .iter()
            .filter_map(
                |event| if let TraceEvent::Part(part) = event { Some(part.name.clone()) } else { None },
            )
            .collect()
    };
    assert_eq!(parts(&one.trace), parts(&many.trace));
    assert!(parts(&one.trace)[0].contains("bytes 0.."));
}

#[test]
fn a_tree_has_levels_and_a_bound() {
    let document = paragraphs(60);
    let summarizer =
        Summarizer::new(Strategy::Tree { branch: 2 }).with_context_tokens(340).with_summary_tokens(60);
    let model = calls();
    let summary = block_on(summarizer.run(&model, &document)).unwrap().value;
    let parts = summary.chunks.len();
    assert!(parts > 4, "{parts}");
    assert_eq!(summary.levels, parts.next_power_of_two().trailing_zeros() as usize);
    // Each call of a tree of two branches makes one of two.
    assert_eq!(model.requests().len(), parts + parts - 1);
    let error = block_on(summarizer.clone().with_max_levels(1).run(&calls(), &document)).unwrap_err();
    assert!(matches!(error, Error::TooManyLevels { levels: 1, .. }), "{error}");
    // A model that does not keep to the length never gets done; it is stopped.
    let wordy = ScriptedModel::from_fn(|_| "word ".repeat(400));
    let error = block_on(summarizer.run(&wordy, &document)).unwrap_err();
    assert!(matches!(error, Error::TooManyLevels { levels: 0, .. }), "{error}");
    let refine = Summarizer::new(Strategy::Refine).with_context_tokens(340).with_summary_tokens(60);
    let error = block_on(refine.run(&wordy, &document)).unwrap_err();
    assert!(matches!(error, Error::DocumentTooLong { context: 340, .. }), "{error}");
}

#[test]
fn what_does_not_fit_is_an_error_and_not_cut() {
    let model = calls().with_capabilities(Capabilities::new().with_context_tokens(600));
    let error = block_on(Summarizer::new(Strategy::Stuff).run(&model, &paragraphs(60))).unwrap_err();
    assert!(matches!(error, Error::DocumentTooLong { context: 600, .. }), "{error}");
    let error =
        block_on(Summarizer::new(Strategy::MapReduce).with_context_tokens(100).run(&model, &paragraphs(60)))
            .unwrap_err();
    assert!(matches!(error, Error::NoRoom { context: 100, .. }), "{error}");
    assert!(model.requests().is_empty());
}

#[test]
fn a_cut_summary_and_an_unknown_context_are_noted() {
    let model = ScriptedModel::from_response_fn(|_| {
        Ok(ChatResponse {
            message: llmkit_core::Message::assistant("cut"),
            finish_reason: llmkit_core::FinishReason::Length,
            usage: llmkit_core::Usage::default(),
        })
    });
    let traced =
        block_on(Summarizer::new(Strategy::Tree { branch: 3 }).run(&model, &paragraphs(600))).unwrap();
    let shown = traced.trace.to_string();
    assert!(shown.contains("the answer of `part` was cut at 400 tokens"), "{shown}");
    assert!(shown.contains("taken to be 4096 tokens"), "{shown}");
}

#[test]
fn the_work_can_be_sent_to_another_thread() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let model = ScriptedModel::new(["1. a = FIND(CTX, \"x\")", "found", "S", "NONE", "A(CTX): b"]);
    let pearl = Pearl::new(actions());
    assert_eq!(block_on(is_send(pearl.run(&model, "Text.", "Why?"))).unwrap().value.text, "found");
    let summarizer = Summarizer::new(Strategy::MapReduce);
    assert_eq!(block_on(is_send(summarizer.run(&model, "Text."))).unwrap().value.text, "S");
    assert_eq!(block_on(is_send(Miner::new().run(&model, &["Why?"]))).unwrap().value.len(), 1);
    let refiner = Refiner::new(pearl, WordOverlap);
    drop(is_send(refiner.run(&model, &[])));
}
