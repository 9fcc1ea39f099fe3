use std::ops::Range;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::{DateRule, Undated, Unfound};

/// The minutes of a meeting. Serialised they are JSON; [`to_markdown`](Self::to_markdown) makes a text to read.
///
/// ```
/// use llmkit_prompt::minutes::Minutes;
///
/// let minutes = Minutes { title: Some("Weekly".into()), ..Minutes::default() };
/// assert!(minutes.to_markdown().starts_with("# Weekly\n"));
/// let json = serde_json::to_string(&minutes).unwrap();
/// assert_eq!(serde_json::from_str::<Minutes>(&json).unwrap(), minutes);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Minutes {
    /// What the model calls the meeting.
    pub title: Option<String>,
    /// Its day, as it was given.
    pub date: Option<NaiveDate>,
    /// Those who speak in the transcript, in the order in which they first do.
    pub participants: Vec<String>,
    /// What it was about.
    pub topics: Vec<Topic>,
    /// What was decided.
    pub decisions: Vec<Decision>,
    /// Who does what.
    pub action_items: Vec<ActionItem>,
    /// What the model wrote down and the transcript does not show.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    /// The parts of a long transcript for which the model gave nothing that can be read.
    #[serde(default)]
    pub unread: Vec<UnreadPart>,
}

/// A part of a transcript that is not in the minutes.
///
/// ```
/// use llmkit_prompt::minutes::Minutes;
///
/// fn is_whole(minutes: &Minutes) -> bool {
///     minutes.unread.is_empty()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadPart {
    /// Which, from 1.
    pub part: usize,
    /// Of how many.
    pub parts: usize,
    /// How it begins.
    pub beginning: String,
    /// What was wrong with the model's answers.
    pub reason: String,
}

/// Something that the meeting was about.
///
/// ```
/// use llmkit_prompt::minutes::Minutes;
///
/// fn titles(minutes: &Minutes) -> Vec<&str> {
///     minutes.topics.iter().map(|topic| topic.title.as_str()).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    /// In a few words.
    pub title: String,
    /// What was said about it.
    pub summary: String,
    /// Where it came up.
    pub evidence: Evidence,
}

/// Something that was decided.
///
/// ```
/// use llmkit_prompt::minutes::Minutes;
///
/// fn all_shown(minutes: &Minutes) -> bool {
///     minutes.decisions.iter().all(|decision| decision.evidence.is_verified())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    pub what: String,
    /// Where it was decided.
    pub evidence: Evidence,
}

/// Something that somebody is to do.
///
/// ```
/// use llmkit_prompt::minutes::ActionItem;
///
/// fn line(item: &ActionItem) -> String {
///     let owner = item.owner.as_ref().map_or("nobody", |owner| &owner.name);
///     format!("{owner}: {}", item.what)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionItem {
    /// What.
    pub what: String,
    /// Who, if that was said.
    pub owner: Option<Owner>,
    /// By when, if that was said.
    pub due: Option<Due>,
    /// Where it was said.
    pub evidence: Evidence,
}

/// Who is to do something.
///
/// ```
/// use llmkit_prompt::minutes::Owner;
///
/// let owner = Owner { name: "Ana Ruiz".into(), verified: true };
/// assert_eq!(serde_json::to_string(&owner).unwrap(), r#"{"name":"Ana Ruiz","verified":true}"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The name: that of a speaker where it is one.
    pub name: String,
    /// Whether the transcript has this name.
    pub verified: bool,
}

/// By when something is to be done.
///
/// ```
/// use llmkit_prompt::minutes::Due;
///
/// fn shown(due: &Due) -> String {
///     due.date.map_or_else(|| due.text.clone(), |date| date.to_string())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The words.
    pub text: String,
    /// Whether they were said near the evidence (within three turns; anywhere, where there is no evidence).
    pub verified: bool,
    /// The day that they mean, where that is clear and they were said.
    pub date: Option<NaiveDate>,
    /// How it was found.
    pub rule: Option<DateRule>,
    /// Why there is none.
    pub undated: Option<Undated>,
}

/// What shows that something was said.
///
/// ```
/// use llmkit_prompt::minutes::{Evidence, Unfound};
///
/// let evidence = Evidence::Unverified { quote: "We agreed.".into(), reason: Unfound::NotThere };
/// assert!(!evidence.is_verified());
/// assert_eq!(evidence.text(), "We agreed.");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Evidence {
    /// The transcript says so.
    Verified {
        /// Its words, as they stand there.
        text: String,
        /// Where, in bytes of the transcript.
        range: Range<usize>,
        /// In how many characters the model's quote differs, after normalising.
        distance: usize,
        /// Who says it.
        speaker: Option<String>,
        /// When, in seconds from the beginning of the recording.
        at_seconds: Option<f64>,
    },
    /// The model says that the transcript says so, and it does not.
    Unverified {
        /// The model's quote.
        quote: String,
        /// What is wrong with it.
        reason: Unfound,
    },
}

impl Evidence {
    /// Whether the transcript says so.
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }

    /// The words of the transcript, or else the model's.
    pub fn text(&self) -> &str {
        match self {
            Self::Verified { text, .. } => text,
            Self::Unverified { quote, .. } => quote,
        }
    }
}

/// What the model wrote down and the transcript does not show.
///
/// ```
/// use llmkit_prompt::minutes::{Rejected, RejectedKind, Unfound};
///
/// let rejected = Rejected {
///     kind: RejectedKind::Decision,
///     what: "Everything is fine.".into(),
///     quote: "It is all fine.".into(),
///     reason: Unfound::NotThere,
/// };
/// assert_eq!(rejected.reason.to_string(), "the quote is not in the transcript");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// As what.
    pub kind: RejectedKind,
    /// What.
    pub what: String,
    /// The quote that should show it.
    pub quote: String,
    /// What is wrong with the quote.
    pub reason: Unfound,
}

/// As what something was written down.
///
/// ```
/// use llmkit_prompt::minutes::RejectedKind;
///
/// assert_eq!(serde_json::to_string(&RejectedKind::ActionItem).unwrap(), "\"action_item\"");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectedKind {
    /// As a topic.
    Topic,
    /// As a decision.
    Decision,
    /// As an action item.
    ActionItem,
}
