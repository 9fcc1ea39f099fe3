use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A question and a plan for it, to show a model how to plan.
///
/// ```
/// use llmkit_prompt::pearl::{Actions, Demonstration, Plan};
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// for demonstration in Demonstration::builtin() {
///     Plan::parse(&demonstration.plan, &Actions::builtin())?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demonstration {
    /// The question.
    pub question: String,
    /// The plan, as text.
    pub plan: String,
}

impl Demonstration {
    /// Those that the crate brings, for its own [`Actions`](super::Actions): `prompts/pearl/demonstrations.yaml`.
    pub fn builtin() -> Vec<Self> {
        Self::from_yaml(include_str!("../../prompts/pearl/demonstrations.yaml"))
            .expect("a test reads the list")
    }

    /// Reads a list of `{question, plan}` from YAML (of which JSON is a part).
    ///
    /// # Errors
    /// [`Error::PearlFile`] if the text is not such a list.
    pub fn from_yaml(text: &str) -> Result<Vec<Self>> {
        serde_saphyr::from_str(text)
            .map_err(|source| Error::PearlFile { expected: "demonstrations", reason: source.to_string() })
    }
}
