//! What the model writes, before anything of it is checked. The comments are what the model is told.

use schemars::JsonSchema;
use serde::Deserialize;

/// The minutes of a meeting.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[schemars(rename = "Minutes")]
pub(super) struct Draft {
    /// What the meeting could be called, in a few words.
    #[serde(default)]
    pub(super) title: Option<String>,
    /// What the meeting was about.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub(super) topics: Vec<DraftTopic>,
    /// What was decided.
    #[serde(default)]
    #[schemars(length(max = 30))]
    pub(super) decisions: Vec<DraftDecision>,
    /// Who does what.
    #[serde(default)]
    #[schemars(length(max = 30))]
    pub(super) action_items: Vec<DraftAction>,
}

/// Something that the meeting was about.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct DraftTopic {
    /// In a few words.
    pub(super) title: String,
    /// What was said about it, in a sentence or two.
    #[serde(default)]
    pub(super) summary: String,
    /// Words of the transcript in which it comes up, copied.
    #[serde(default)]
    pub(super) quote: String,
}

/// Something that was decided.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct DraftDecision {
    /// What.
    pub(super) what: String,
    /// The words of the transcript in which it is decided, copied.
    #[serde(default)]
    pub(super) quote: String,
}

/// Something that somebody is to do.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct DraftAction {
    /// What.
    pub(super) what: String,
    /// Who, by name.
    #[serde(default)]
    pub(super) owner: Option<String>,
    /// By when, in the words of the transcript.
    #[serde(default)]
    pub(super) due: Option<String>,
    /// The words of the transcript in which it is promised or asked for, copied.
    #[serde(default)]
    pub(super) quote: String,
}
