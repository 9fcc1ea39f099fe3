//! What the model wrote, held against the transcript.

use chrono::NaiveDate;

use super::draft::{Draft, DraftAction};
use super::{
    ActionItem, Decision, Due, Evidence, Minutes, Owner, QuoteFinder, Rejected, RejectedKind, Topic,
    Transcript, Undated, Unverified, dates, resolve_date, speech,
};

/// How many turns before and after the evidence a date may be said.
const NEAR: usize = 3;
/// The most entries of a kind that are taken from one part of a transcript.
const MAX_ENTRIES: usize = 100;
/// The longest text of an entry that is kept, in characters.
const MAX_ENTRY: usize = 2_000;

/// Holds drafts against a transcript.
pub(super) struct Checker<'a> {
    transcript: &'a Transcript,
    quotes: QuoteFinder,
    speakers: Vec<&'a str>,
    date: Option<NaiveDate>,
    unverified: Unverified,
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        transcript: &'a Transcript,
        tolerance: f32,
        date: Option<NaiveDate>,
        unverified: Unverified,
    ) -> Self {
        let quotes = transcript.quotes().with_tolerance(tolerance);
        Self { transcript, quotes, speakers: transcript.speakers(), date, unverified }
    }

    /// Adds what `draft` says to `minutes`, with its evidence; and says how many entries were left out because there are too many.
    pub(super) fn add(&self, draft: Draft, minutes: &mut Minutes) -> usize {
        let counts = [draft.topics.len(), draft.decisions.len(), draft.action_items.len()];
        if minutes.title.is_none() {
            minutes.title = draft.title.as_deref().and_then(said).map(str::to_owned);
        }
        for topic in draft.topics.into_iter().take(MAX_ENTRIES) {
            let Some(title) = said(&topic.title) else { continue };
            let evidence = self.evidence(&topic.quote);
            if self.keeps(RejectedKind::Topic, title, &evidence, minutes) {
                let summary = shortened(topic.summary.trim());
                minutes.topics.push(Topic { title: shortened(title), summary, evidence });
            }
        }
        for decision in draft.decisions.into_iter().take(MAX_ENTRIES) {
            let Some(what) = said(&decision.what) else { continue };
            let evidence = self.evidence(&decision.quote);
            if self.keeps(RejectedKind::Decision, what, &evidence, minutes) {
                minutes.decisions.push(Decision { what: shortened(what), evidence });
            }
        }
        for item in draft.action_items.into_iter().take(MAX_ENTRIES) {
            let Some(what) = said(&item.what) else { continue };
            let evidence = self.evidence(&item.quote);
            if self.keeps(RejectedKind::ActionItem, what, &evidence, minutes) {
                let (owner, due) = (self.owner(&item, &evidence), self.due(&item, &evidence));
                minutes.action_items.push(ActionItem { what: shortened(what), owner, due, evidence });
            }
        }
        counts.iter().map(|count| count.saturating_sub(MAX_ENTRIES)).sum()
    }

    fn keeps(&self, kind: RejectedKind, what: &str, evidence: &Evidence, minutes: &mut Minutes) -> bool {
        match evidence {
            Evidence::Unverified { quote, reason } if self.unverified == Unverified::Reject => {
                let (quote, reason) = (quote.clone(), *reason);
                minutes.rejected.push(Rejected { kind, what: shortened(what), quote, reason });
                false
            }
            _ => true,
        }
    }

    fn evidence(&self, quote: &str) -> Evidence {
        // The name before what somebody says is no part of it.
        let words = speech::without_label(quote, &self.speakers);
        match self.quotes.find(words) {
            Err(reason) => Evidence::Unverified { quote: shortened(quote), reason },
            Ok(found) => {
                let turn = self.transcript.turn_at(found.range.start);
                Evidence::Verified {
                    text: self.transcript.text()[found.range.clone()].to_owned(),
                    range: found.range,
                    distance: found.distance,
                    speaker: turn.and_then(|turn| turn.speaker.clone()),
                    at_seconds: turn.and_then(|turn| turn.start).map(|start| start.as_secs_f64()),
                }
            }
        }
    }

    /// Who is meant: a speaker by name or by a part of it, "I" for the one who says it, or somebody who is spoken of.
    fn owner(&self, item: &DraftAction, evidence: &Evidence) -> Option<Owner> {
        let name = item.owner.as_deref().and_then(said)?;
        let lower = name.to_lowercase();
        if matches!(lower.as_str(), "i" | "me" | "myself" | "我") {
            let Evidence::Verified { speaker: Some(speaker), .. } = evidence else {
                return Some(Owner { name: name.to_owned(), verified: false });
            };
            return Some(Owner { name: speaker.clone(), verified: true });
        }
        let is_part = |speaker: &&&str| {
            let speaker = speaker.to_lowercase();
            speaker == lower
                || speaker.split_whitespace().any(|word| word == lower)
                || speaker.starts_with(&format!("{lower} "))
        };
        let mut speakers = self.speakers.iter().filter(is_part);
        if let (Some(speaker), None) = (speakers.next(), speakers.next()) {
            return Some(Owner { name: (*speaker).to_owned(), verified: true });
        }
        Some(Owner { name: shortened(name), verified: self.quotes.contains(name) })
    }

    fn due(&self, item: &DraftAction, evidence: &Evidence) -> Option<Due> {
        let text = item.due.as_deref().and_then(said)?;
        let verified = match evidence {
            Evidence::Verified { range, .. } => {
                let turns = self.transcript.turns();
                let first = turns.partition_point(|turn| turn.range.end <= range.start).saturating_sub(NEAR);
                let last =
                    (turns.partition_point(|turn| turn.range.start < range.end) + NEAR).min(turns.len());
                let near: Vec<&str> = turns[first..last].iter().map(|turn| turn.spoken.as_str()).collect();
                QuoteFinder::new(&near.join(" ")).contains(text)
            }
            Evidence::Unverified { .. } => self.quotes.contains(text),
        };
        let resolved = match self.date {
            Some(date) => resolve_date(text, date),
            None => dates::stated(text).ok_or(Undated::NoMeetingDate),
        };
        // A date that nobody mentioned is none.
        let date = resolved.ok().filter(|_| verified);
        Some(Due {
            text: shortened(text),
            verified,
            date: date.map(|found| found.date),
            rule: date.map(|found| found.rule),
            undated: resolved.err(),
        })
    }
}

/// What a model says, unless that is that there is nothing to say.
fn said(text: &str) -> Option<&str> {
    const NOTHING: [&str; 17] = [
        "",
        "none",
        "null",
        "n/a",
        "na",
        "unknown",
        "unspecified",
        "not specified",
        "not stated",
        "not mentioned",
        "unassigned",
        "tbd",
        "-",
        "?",
        "无",
        "未知",
        "未提及",
    ];
    let text = text.trim();
    let bare = text.trim_matches(|letter: char| matches!(letter, '.' | '(' | ')' | '"'));
    (!NOTHING.contains(&bare.to_lowercase().as_str())).then_some(text)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_ENTRY).collect();
    if short.len() < text.len() {
        short.push('\u{2026}');
    }
    short
}
