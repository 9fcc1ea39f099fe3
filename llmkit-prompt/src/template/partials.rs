use std::collections::BTreeMap;
use std::sync::Arc;

use super::Escape;
use super::engine::{Engine, normalised};
use crate::{Error, Result};

/// Texts that templates take in by `{% include "name" %}`, or whose macros they take by `{% from "name" import macro %}`.
///
/// The variables that a partial uses count as those of the prompt that includes it, and are checked with them.
///
/// ```
/// use llmkit_prompt::{Partials, PromptTemplate};
/// use serde_json::json;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let partials = Partials::from([("style", "Write {{ tone }} sentences.")]);
/// let source = "Summarise:\n{{ text }}\n\n{% include \"style\" %}";
/// let template = PromptTemplate::new_with(&partials, "summary", source, ["text", "tone"])?;
/// assert_eq!(
///     template.render(json!({ "text": "A long story.", "tone": "short" }))?,
///     "Summarise:\nA long story.\n\nWrite short sentences."
/// );
///
/// let error = PromptTemplate::new_with(&partials, "summary", "\n{% include \"stile\" %}", [""; 0]).unwrap_err();
/// assert!(error.to_string().contains("summary:2: cannot `include`: there is no partial `stile`; did you mean `style`?"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partials(pub(super) BTreeMap<String, Arc<str>>);

impl Partials {
    /// No partials.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a partial, in place of any other of its name. It is read when a prompt includes it.
    pub fn insert(&mut self, name: impl Into<String>, source: impl Into<String>) {
        self.0.insert(name.into(), Arc::from(normalised(source.into())));
    }

    /// The text of a partial.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|source| &**source)
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Checks that every partial is valid Jinja and that its own includes lead somewhere.
    ///
    /// # Errors
    /// [`Error::Syntax`](crate::Error::Syntax) or [`Error::Reference`](crate::Error::Reference) for the first that is not.
    pub fn check(&self) -> Result<()> {
        self.faults().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// What is wrong with which partial.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (String, Error)> + use<> {
        let all = self.clone();
        self.clone().0.into_iter().filter_map(move |(name, source)| {
            let error = Engine::new(vec![(name.clone(), source)], &all, Escape::None).err()?;
            Some((name, error))
        })
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}

impl<N: Into<String>, S: Into<String>> FromIterator<(N, S)> for Partials {
    fn from_iter<I: IntoIterator<Item = (N, S)>>(partials: I) -> Self {
        let mut all = Self::new();
        for (name, source) in partials {
            all.insert(name, source);
        }
        all
    }
}

impl<N: Into<String>, S: Into<String>, const LENGTH: usize> From<[(N, S); LENGTH]> for Partials {
    fn from(partials: [(N, S); LENGTH]) -> Self {
        partials.into_iter().collect()
    }
}
