use async_trait::async_trait;
use llmkit_core::{Message, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ToolPolicy;

/// Who is asked before a tool runs: a person at a terminal, a rule, another program.
///
/// A function of the question will do where the answer is at hand:
///
/// ```
/// use llmkit_prompt::agent::{Agent, Approval, Decision, Question, Toolbox, calculator};
///
/// fn careful(question: &Question<'_>) -> Decision {
///     match question.call.name.as_str() {
///         "delete" => Decision::deny("nothing may be deleted on a Friday"),
///         _ => Decision::Allow,
///     }
/// }
/// let agent = Agent::new(Toolbox::new([calculator()])?).with_approval(careful);
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[async_trait]
pub trait Approval: Send + Sync {
    /// What to do with the call in `question`. The calls of a turn are asked about one after the other, in the model's order, before any runs.
    async fn decide(&self, question: &Question<'_>) -> Decision;
}

#[async_trait]
impl<F: Fn(&Question<'_>) -> Decision + Send + Sync> Approval for F {
    async fn decide(&self, question: &Question<'_>) -> Decision {
        self(question)
    }
}

/// A call that waits for a [`Decision`].
///
/// ```
/// use llmkit_prompt::agent::{Decision, Question};
///
/// /// Allows what changes nothing.
/// fn read_only(question: &Question<'_>) -> Decision {
///     if question.policy.read_only { Decision::Allow } else { Decision::deny("this run only reads") }
/// }
/// # let _ = read_only;
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Question<'a> {
    /// What the model asks for.
    pub call: &'a ToolCall,
    /// What the tool says about itself.
    pub policy: &'a ToolPolicy,
    /// The turn of the model, from 1.
    pub step: usize,
    /// The conversation up to and including the turn that makes the call.
    pub messages: &'a [Message],
}

/// What becomes of a call.
///
/// ```
/// use llmkit_prompt::agent::Decision;
/// use serde_json::json;
///
/// let decision = Decision::deny("too expensive");
/// assert_eq!(serde_json::to_value(&decision).unwrap(), json!({"deny": {"reason": "too expensive"}}));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// The call runs.
    Allow,
    /// The call doesn't run, and the model is told why.
    Deny {
        /// Why, for the model.
        reason: String,
    },
    /// The call runs with these arguments, and the model is told so.
    Edit {
        /// The arguments, a JSON object.
        arguments: Value,
    },
    /// The agent ends here; nothing of this turn runs.
    Stop,
}

impl Decision {
    /// Denies the call for this reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny { reason: reason.into() }
    }
}

/// Which calls are put to the [`Approval`].
///
/// ```
/// use llmkit_prompt::agent::Ask;
///
/// assert_eq!(Ask::default(), Ask::Flagged);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ask {
    /// Those of tools that [need approval](ToolPolicy::needs_approval).
    #[default]
    Flagged,
    /// Those of tools that need approval, and of all that are not [read-only](ToolPolicy::read_only).
    Changes,
    /// All.
    Everything,
}

impl Ask {
    pub(super) fn covers(self, policy: &ToolPolicy) -> bool {
        match self {
            Self::Flagged => policy.needs_approval,
            Self::Changes => policy.needs_approval || !policy.read_only,
            Self::Everything => true,
        }
    }
}

/// Allows the tools of a list, and passes on or denies the others.
///
/// ```
/// use llmkit_prompt::agent::{AllowList, Decision, Question};
///
/// fn ask_somebody(_: &Question<'_>) -> Decision {
///     Decision::deny("nobody is there")
/// }
/// let approval = AllowList::new(["read_file", "list_files"]).or_else(ask_somebody);
/// # let _ = approval;
/// ```
#[derive(Debug, Clone)]
pub struct AllowList<A = Denied> {
    names: Vec<String>,
    otherwise: A,
}

/// Denies every call: what an agent does with a call that needs approval when it has nobody to ask.
///
/// ```
/// use llmkit_prompt::agent::{Agent, Ask, Denied, Toolbox, calculator};
///
/// // An agent that may only think.
/// let agent = Agent::new(Toolbox::new([calculator()])?).with_approval(Denied).with_ask(Ask::Everything);
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Denied;

impl AllowList {
    /// Allows the tools of these names and denies the others.
    pub fn new<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), otherwise: Denied }
    }

    /// The list, with `otherwise` to be asked about the others.
    pub fn or_else<A: Approval>(self, otherwise: A) -> AllowList<A> {
        AllowList { names: self.names, otherwise }
    }
}

#[async_trait]
impl<A: Approval> Approval for AllowList<A> {
    async fn decide(&self, question: &Question<'_>) -> Decision {
        if self.names.contains(&question.call.name) {
            return Decision::Allow;
        }
        self.otherwise.decide(question).await
    }
}

#[async_trait]
impl Approval for Denied {
    async fn decide(&self, question: &Question<'_>) -> Decision {
        Decision::deny(format!("`{}` may not be used without approval", question.call.name))
    }
}
