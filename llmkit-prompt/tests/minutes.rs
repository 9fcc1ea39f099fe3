//! Minutes on a model with known answers: evidence, owners, dates, long transcripts.
#![allow(clippy::unwrap_used)]

use std::fs;

use llmkit_core::{Capabilities, ResponseFormat};
use llmkit_prompt::Error;
use llmkit_prompt::minutes::{
    DateRule, Evidence, Minutes, MinutesTaker, QuoteFinder, RejectedKind, Transcript, TranscriptFormat,
    Undated, Unfound, Unverified,
};
use llmkit_prompt::testing::ScriptedModel;
use pollster::block_on;
use serde_json::{Value, json};

const TALK: &str = "\
[00:00:05] Ana Ruiz: Let\u{2019}s move the launch to December 8.
[00:00:09] Ben Ode: Agreed. I'll tell the press by Friday.
[00:00:14] Ana Ruiz: And Cleo could check the 15 invoices at some point.
[00:00:20] Ben Ode: We must not sign before that.
";

fn meeting() -> chrono::NaiveDate {
    "2026-11-24".parse().unwrap()
}

fn take(taker: &MinutesTaker, transcript: &str, draft: Value) -> Minutes {
    let model = ScriptedModel::new([draft.to_string()]);
    block_on(taker.run(&model, &Transcript::parse(transcript).unwrap())).unwrap().value
}

#[test]
fn each_entry_has_its_words_speaker_and_time() {
    let draft = json!({
        "title": "Launch",
        "topics": [{"title": "Launch", "summary": "Its date.", "quote": "Let's move the launch"}],
        "decisions": [{"what": "The launch is on December 8.", "quote": "Ana Ruiz: Let's move the lunch to December 8."}],
        "action_items": [
            {"what": "Tell the press.", "owner": "I", "due": "by Friday", "quote": "I'll tell the press by Friday."},
            {"what": "Check the invoices.", "owner": "Cleo", "due": "at some point", "quote": "Cleo could check the 15 invoices"},
        ]
    });
    let minutes = take(&MinutesTaker::new().with_date(meeting()), TALK, draft);
    assert_eq!(minutes.participants, ["Ana Ruiz", "Ben Ode"]);
    let Evidence::Verified { text, range, distance, speaker, at_seconds } = &minutes.decisions[0].evidence
    else {
        panic!()
    };
    assert_eq!(text, "Let\u{2019}s move the launch to December 8");
    assert_eq!(&TALK[range.clone()], text);
    assert_eq!((*distance, speaker.as_deref(), *at_seconds), (1, Some("Ana Ruiz"), Some(5.0)));
    let [press, invoices] = minutes.action_items.as_slice() else { panic!("{minutes:?}") };
    let (owner, due) = (press.owner.as_ref().unwrap(), press.due.as_ref().unwrap());
    assert_eq!((owner.name.as_str(), owner.verified), ("Ben Ode", true));
    assert_eq!(
        (due.date.unwrap().to_string().as_str(), due.rule, due.verified),
        ("2026-11-27", Some(DateRule::Coming), true)
    );
    let (owner, due) = (invoices.owner.as_ref().unwrap(), invoices.due.as_ref().unwrap());
    assert_eq!((owner.name.as_str(), owner.verified), ("Cleo", true));
    assert_eq!((due.date, due.undated, due.verified), (None, Some(Undated::NotUnderstood), true));
    assert!(minutes.rejected.is_empty());
    let json = serde_json::to_string(&minutes).unwrap();
    assert_eq!(serde_json::from_str::<Minutes>(&json).unwrap(), minutes);
    let shown = minutes.to_markdown();
    assert!(shown.contains("- [ ] **Ben Ode**: Tell the press., due 2026-11-27 (\"by Friday\")\n  > I'll tell the press by Friday \u{2014} Ben Ode, 0:00:09\n"), "{shown}");
    assert!(shown.contains(", due \"at some point\"\n"), "{shown}");
}

#[test]
fn what_the_transcript_does_not_show_is_rejected_or_flagged() {
    let draft = json!({
        "topics": [{"title": "Weather", "summary": "Rain.", "quote": "It is going to rain all week."}],
        "decisions": [
            {"what": "Sign.", "quote": "We must sign before that."},
            {"what": "Nothing.", "quote": ""},
        ],
        "action_items": [
            {"what": "Check 50 invoices.", "quote": "And Cleo could check the 50 invoices at some point."},
            {"what": "Tell the press.", "owner": "Dora", "due": "by Monday", "quote": "I'll tell the press by Friday."},
        ]
    });
    // Half of a short quote may differ, yet no negation and no number.
    let taker = MinutesTaker::new().with_date(meeting()).with_tolerance(0.3);
    let minutes = take(&taker, TALK, draft.clone());
    let rejected: Vec<_> = minutes.rejected.iter().map(|entry| (entry.kind, entry.reason)).collect();
    assert_eq!(
        rejected,
        [
            (RejectedKind::Topic, Unfound::NotThere),
            (RejectedKind::Decision, Unfound::NegationDiffers),
            (RejectedKind::Decision, Unfound::TooShort),
            (RejectedKind::ActionItem, Unfound::NumberDiffers),
        ]
    );
    assert!(minutes.topics.is_empty() && minutes.decisions.is_empty());
    // The quote is real; the owner and the date are not, so there is no date.
    let item = &minutes.action_items[0];
    assert!(item.evidence.is_verified() && !item.owner.as_ref().unwrap().verified);
    let due = item.due.as_ref().unwrap();
    assert_eq!((due.verified, due.date), (false, None));
    let shown = minutes.to_markdown();
    assert!(
        shown.contains("**Dora** (unverified): Tell the press., due \"by Monday\" (unverified)"),
        "{shown}"
    );
    assert!(
        shown.contains(
            "- (decision) Sign. (the transcript has a negation there that the quote lacks, or the reverse)"
        ),
        "{shown}"
    );

    let flagged = take(&taker.with_unverified(Unverified::Flag), TALK, draft);
    assert!(flagged.rejected.is_empty());
    assert_eq!(
        flagged.decisions[0].evidence,
        Evidence::Unverified {
            quote: "We must sign before that.".to_owned(),
            reason: Unfound::NegationDiffers,
        }
    );
}

#[test]
fn without_the_day_of_the_meeting_relative_dates_stay_words() {
    let draft = json!({"action_items": [
        {"what": "Tell the press.", "due": "by Friday", "quote": "I'll tell the press by Friday."},
        {"what": "Nothing to be done by anybody.", "owner": "N/A", "due": "none", "quote": "We must not sign before that."},
    ]});
    let minutes = take(&MinutesTaker::new(), TALK, draft);
    let due = minutes.action_items[0].due.as_ref().unwrap();
    assert_eq!((due.date, due.undated), (None, Some(Undated::NoMeetingDate)));
    assert_eq!((&minutes.action_items[1].owner, &minutes.action_items[1].due), (&None, &None));
}

#[test]
fn a_long_transcript_is_read_in_parts_and_what_is_there_twice_is_joined() {
    let lines: String = (0..200).map(|k| format!("Ana: Remark number {k} of this meeting.\n")).collect();
    let transcript = Transcript::parse(format!("{lines}Ben: I'll write to the bank on Monday.\n")).unwrap();
    let model = ScriptedModel::from_fn(|request| {
        let prompt = &request.messages[1].content;
        let first =
            prompt.split("Remark number ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("0");
        json!({
            "title": format!("Part from {first}"),
            "topics": [{"title": "Remarks", "summary": format!("From {first}."), "quote": format!("Remark number {first} of this meeting.")}],
            "action_items": [
                {"what": "Write to the bank", "owner": if first == "0" { "" } else { "Ben" }, "quote": "I'll write to the bank on Monday."},
                {"what": "Write to the bank.", "due": "on Monday", "quote": "write to the bank on Monday"},
            ]
        })
        .to_string()
    });
    let taker = MinutesTaker::new().with_date(meeting()).with_context_tokens(2_900).with_answer_tokens(300);
    let traced = block_on(taker.run(&model, &transcript)).unwrap();
    let parts = model.requests().len();
    assert!(parts > 1);
    let minutes = traced.value;
    assert_eq!(minutes.title.as_deref(), Some("Part from 0"));
    assert_eq!(minutes.topics.len(), 1);
    assert!(minutes.topics[0].summary.starts_with("From 0. From "), "{}", minutes.topics[0].summary);
    assert_eq!(minutes.action_items.len(), 1);
    let item = &minutes.action_items[0];
    assert_eq!(item.owner.as_ref().unwrap().name, "Ben");
    assert_eq!(item.due.as_ref().unwrap().date.unwrap().to_string(), "2026-11-30");
    let shown = traced.trace.to_string();
    assert!(
        shown.contains(&format!("cut into {parts} parts"))
            && shown.contains("joined `Write to the bank.` with"),
        "{shown}"
    );
}

#[test]
fn an_answer_that_is_no_json_is_asked_for_again_with_the_error() {
    let transcript = Transcript::parse(TALK).unwrap();
    let model = ScriptedModel::new([
        "Here are the minutes: they met.",
        "Sure!\n```json\n{\"title\": \"Launch\"}\n```",
    ]);
    let minutes = block_on(MinutesTaker::new().run(&model, &transcript)).unwrap().value;
    assert_eq!(minutes.title.as_deref(), Some("Launch"));
    let requests = model.requests();
    // A model that cannot be held to a schema is told of it.
    assert!(requests[0].messages.iter().any(|message| message.content.contains("\"action_items\"")));
    assert!(requests[1].messages.iter().any(|message| message.content == "Here are the minutes: they met."));
    let stubborn = ScriptedModel::from_fn(|_| "No.");
    let error = block_on(MinutesTaker::new().run(&stubborn, &transcript)).unwrap_err();
    assert!(!matches!(error, Error::Model(_)), "{error}");
}

#[test]
fn a_model_that_can_be_held_to_a_schema_is() {
    let model = ScriptedModel::new(["{}"]).with_capabilities(Capabilities::new().with_json_schema(true));
    block_on(MinutesTaker::new().run(&model, &Transcript::parse(TALK).unwrap())).unwrap();
    let ResponseFormat::JsonSchema { schema, .. } = &model.requests()[0].response_format else { panic!() };
    assert!(schema["properties"]["action_items"].is_object(), "{schema}");
}

#[test]
fn the_transcripts_of_the_examples_are_read_whole() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/meetings");
    let english =
        Transcript::parse(fs::read_to_string(format!("{folder}/harbor-line.txt")).unwrap()).unwrap();
    assert_eq!(english.format(), TranscriptFormat::Plain);
    assert_eq!(english.speakers(), ["Miriam Okafor", "Tomás Varga", "Lena Brandt", "Priya Nair"]);
    assert_eq!(english.turns().len(), english.text().lines().count());
    let chinese = fs::read_to_string(format!("{folder}/release-zh.txt")).unwrap();
    let draft = json!({
        "decisions": [{"what": "\u{53d1}\u{5e03}\u{63a8}\u{8fdf}", "quote": "\u{90a3}\u{5c31}\u{5b9a}\u{4e86},\u{53d1}\u{5e03}\u{63a8}\u{8fdf}\u{5230}\u{5341}\u{4e8c}\u{6708}\u{516b}\u{53f7}"}],
        "action_items": [{"what": "\u{5199}\u{63a5}\u{53e3}", "owner": "\u{9648}\u{96e8}", "due": "\u{4e0b}\u{5468}\u{4e09}\u{4e4b}\u{524d}", "quote": "\u{90a3}\u{6211}\u{4e0b}\u{5468}\u{4e09}\u{4e4b}\u{524d}\u{628a}\u{63a5}\u{53e3}\u{5199}\u{597d}"}]
    });
    let minutes = take(&MinutesTaker::new().with_date(meeting()), &chinese, draft);
    assert_eq!(minutes.participants.len(), 3);
    assert!(minutes.decisions[0].evidence.is_verified());
    let item = &minutes.action_items[0];
    assert!(item.owner.as_ref().unwrap().verified);
    assert_eq!(item.due.as_ref().unwrap().date.unwrap().to_string(), "2026-12-02");
}

fn fixture() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/documents.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn distances_are_those_of_edlib() {
    let fixture = fixture();
    let finder = QuoteFinder::new(fixture["finder"]["text"].as_str().unwrap()).with_tolerance(0.5);
    let quotes = fixture["finder"]["quotes"].as_array().unwrap();
    assert_eq!(quotes.len(), 60);
    let mut refused = Vec::new();
    for entry in quotes {
        let quote = entry["quote"].as_str().unwrap();
        match finder.find(quote) {
            Ok(found) => assert_eq!(found.distance as u64, entry["distance"].as_u64().unwrap(), "{quote}"),
            Err(reason) => refused.push((quote, reason)),
        }
    }
    // What edlib does not know: a number that is misspelt is no longer that number.
    let fourteen = "rew room. the heating. it's fourtezen degrees i there in the";
    assert_eq!(refused, [(fourteen, Unfound::NumberDiffers)]);
}

#[test]
fn captions_are_read_as_webvtt_py_reads_them() {
    for file in fixture()["captions"].as_array().unwrap() {
        let transcript = Transcript::parse(file["text"].as_str().unwrap()).unwrap();
        let read: Vec<Value> = transcript
            .turns()
            .iter()
            .map(|turn| {
                let start = turn.start.unwrap();
                let seconds = start.as_secs();
                let clock = format!(
                    "{:02}:{:02}:{:02}.{:03}",
                    seconds / 3600,
                    seconds / 60 % 60,
                    seconds % 60,
                    start.subsec_millis()
                );
                let text = turn.spoken.split_whitespace().collect::<Vec<_>>().join(" ");
                json!({ "start": clock, "voice": turn.speaker, "text": text })
            })
            .collect();
        assert_eq!(Value::from(read), file["cues"]);
        assert!(transcript.skipped_lines().is_empty());
    }
}

#[test]
fn a_draft_without_end_is_bounded() {
    let decision =
        |k| json!({"what": format!("Decision {k} about something of its own"), "quote": "x".repeat(900)});
    let draft = json!({"decisions": (0..2_000).map(decision).collect::<Vec<_>>()});
    let model = ScriptedModel::new([draft.to_string()]);
    let transcript = Transcript::parse("Ana: Well, so it is, and so on.\n".repeat(2_000)).unwrap();
    let begin = std::time::Instant::now();
    let traced = block_on(MinutesTaker::new().run(&model, &transcript)).unwrap();
    assert_eq!(traced.value.rejected.len(), 100);
    assert!(traced.trace.to_string().contains("1900 entries of a draft were left out"));
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}

#[test]
fn a_part_that_gives_nothing_is_named_and_the_others_count() {
    let lines: String = (0..200).map(|k| format!("Ana: Remark number {k} of this meeting.\n")).collect();
    let transcript = Transcript::parse(lines).unwrap();
    let model = ScriptedModel::from_fn(|request| {
        let prompt = &request.messages[1].content;
        if prompt.contains("This is part 2 of") {
            "I'd rather not.".to_owned()
        } else {
            json!({"topics": [{"title": "Remarks", "quote": "Remark number 1"}]}).to_string()
        }
    });
    let taker = MinutesTaker::new().with_context_tokens(2_900).with_answer_tokens(300).with_attempts(2);
    let minutes = block_on(taker.run(&model, &transcript)).unwrap().value;
    assert_eq!((minutes.unread.len(), minutes.unread[0].part, minutes.topics.len()), (1, 2, 1));
    assert!(minutes.unread[0].beginning.starts_with("Ana: Remark number "), "{:?}", minutes.unread);
    assert!(minutes.to_markdown().contains("of the transcript is not in here"), "{}", minutes.to_markdown());
    assert_eq!(model.requests().len(), minutes.unread[0].parts + 1);
    assert!(model.requests().iter().all(|request| request.max_tokens == Some(300)));
}

#[test]
fn the_work_can_be_sent_to_another_thread() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let model = ScriptedModel::new(["{}"]);
    let (taker, transcript) = (MinutesTaker::new(), Transcript::parse(TALK).unwrap());
    assert_eq!(block_on(is_send(taker.run(&model, &transcript))).unwrap().value.participants.len(), 2);
}
