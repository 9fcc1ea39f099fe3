use std::fmt;
use std::str::FromStr;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::line;
use crate::{Error, Result};

/// The argument that stands for the document, in actions and in plans.
pub const DOCUMENT: &str = "CTX";

/// The action that every plan may use and no list defines: its arguments, one after the other. It asks no model.
pub const CONCAT: &str = "CONCAT";

/// The most parameters of an action.
const MAX_PARAMETERS: usize = 8;
/// The longest name, in characters.
const MAX_NAME: usize = 64;
/// The longest definition, in characters.
const MAX_DEFINITION: usize = 2_000;
/// The most actions of a list.
const MAX_ACTIONS: usize = 10_000;

/// Something that a model can do with a document, by name: a word of the language in which plans are written.
///
/// As text it is one line, `NAME(CTX, X): definition`; [`DOCUMENT`] among the parameters stands for the document.
///
/// ```
/// use llmkit_prompt::pearl::Action;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let action: Action = "COMPARE(CTX, X, Y): Say how X and Y differ in CTX.".parse()?;
/// assert_eq!(action.parameters(), ["CTX", "X", "Y"]);
///
/// let error = "compare CTX: Say how.".parse::<Action>().unwrap_err();
/// assert!(error.to_string().contains("column 9: expected `(` after the name of the action"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AnyAction")]
pub struct Action {
    name: String,
    parameters: Vec<String>,
    definition: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyAction {
    name: String,
    #[serde(default)]
    parameters: Vec<String>,
    definition: String,
}

impl TryFrom<AnyAction> for Action {
    type Error = Error;

    fn try_from(action: AnyAction) -> Result<Self> {
        Self::new(action.name, action.parameters, action.definition)
    }
}

impl Action {
    /// The action `name`, which takes `parameters` and does what `definition` says about them.
    ///
    /// # Errors
    /// [`Error::Action`] if a name is no identifier, a parameter is there twice, the definition is empty or has several lines,
    /// something is too long, or the name is that of [`CONCAT`] or [`DOCUMENT`].
    pub fn new<P: Into<String>>(
        name: impl Into<String>,
        parameters: impl IntoIterator<Item = P>,
        definition: impl Into<String>,
    ) -> Result<Self> {
        let action = Self {
            name: name.into(),
            parameters: parameters.into_iter().map(Into::into).collect(),
            definition: definition.into(),
        };
        match action.fault() {
            Some(reason) => Err(Error::Action { action: shortened(&action.name), reason }),
            None => Ok(action),
        }
    }

    fn fault(&self) -> Option<String> {
        if !line::is_identifier(&self.name) {
            return Some("a name is letters, digits and `_`, and begins with no digit".to_owned());
        }
        if self.name.chars().count() > MAX_NAME {
            return Some(format!("a name has at most {MAX_NAME} characters"));
        }
        if self.name == CONCAT || self.name == DOCUMENT {
            return Some("the name is taken: plans have it already".to_owned());
        }
        if self.parameters.len() > MAX_PARAMETERS {
            return Some(format!(
                "{} parameters; at most {MAX_PARAMETERS} are allowed",
                self.parameters.len()
            ));
        }
        for (index, parameter) in self.parameters.iter().enumerate() {
            if !line::is_identifier(parameter) || parameter.chars().count() > MAX_NAME {
                return Some(format!("the parameter `{}` is no short name", shortened(parameter)));
            }
            if self.parameters[..index].contains(parameter) {
                return Some(format!("the parameter `{parameter}` is there twice"));
            }
        }
        if self.definition.trim().is_empty() {
            return Some("the definition is empty: say what the action does".to_owned());
        }
        if self.definition.contains('\n') {
            return Some("the definition has several lines: write it in one".to_owned());
        }
        if self.definition.chars().count() > MAX_DEFINITION {
            return Some(format!("the definition is longer than {MAX_DEFINITION} characters"));
        }
        None
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of what it takes, in order.
    pub fn parameters(&self) -> &[String] {
        &self.parameters
    }

    /// What the model is told to do.
    pub fn definition(&self) -> &str {
        &self.definition
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.name, self.parameters.join(", "), self.definition)
    }
}

impl FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let fault = |fault: line::Fault| Error::Action { action: shortened(text), reason: fault.to_string() };
        let mut cursor = line::Cursor::new(text);
        let name = cursor.identifier("the name of an action").map_err(fault)?;
        cursor.expect('(', "after the name of the action").map_err(fault)?;
        let mut parameters = Vec::new();
        if !cursor.take(')') {
            loop {
                parameters.push(cursor.identifier("the name of a parameter").map_err(fault)?);
                if cursor.take(')') {
                    break;
                }
                cursor.expect(',', "or `)` after a parameter").map_err(fault)?;
            }
        }
        cursor.expect(':', "and a definition after the parameters").map_err(fault)?;
        Self::new(name, parameters, cursor.rest().trim())
    }
}

/// The actions that a plan may use, in order, with no name twice.
///
/// The crate brings a list ([`builtin`](Self::builtin), the file `prompts/pearl/actions.yaml`); one of your own is read from YAML or
/// JSON, found in your questions by a [`Miner`](super::Miner), or written in code.
///
/// ```
/// use llmkit_prompt::pearl::Actions;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let mut actions = Actions::from_yaml(
///     "- {name: FIND_RULE, parameters: [CTX, X], definition: Find the rule that CTX states for X.}",
/// )?;
/// actions.insert("LIST_EXCEPTIONS(CTX, X): List the exceptions that CTX makes to the rule X.".parse()?)?;
/// assert_eq!(
///     actions.to_string(),
///     "FIND_RULE(CTX, X): Find the rule that CTX states for X.\n\
///      LIST_EXCEPTIONS(CTX, X): List the exceptions that CTX makes to the rule X.\n",
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Action>", into = "Vec<Action>")]
pub struct Actions {
    by_name: IndexMap<String, Action>,
}

impl TryFrom<Vec<Action>> for Actions {
    type Error = Error;

    fn try_from(list: Vec<Action>) -> Result<Self> {
        let mut actions = Self::default();
        list.into_iter().try_for_each(|action| actions.insert(action))?;
        Ok(actions)
    }
}

impl From<Actions> for Vec<Action> {
    fn from(actions: Actions) -> Self {
        actions.by_name.into_values().collect()
    }
}

impl Actions {
    /// No actions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The list that the crate brings: `prompts/pearl/actions.yaml`.
    pub fn builtin() -> Self {
        Self::from_yaml(include_str!("../../prompts/pearl/actions.yaml")).expect("a test reads the list")
    }

    /// Reads a list of `{name, parameters, definition}` from YAML (of which JSON is a part).
    ///
    /// # Errors
    /// [`Error::PearlFile`] if the text is not such a list or an action is not usable.
    pub fn from_yaml(text: &str) -> Result<Self> {
        serde_saphyr::from_str(text)
            .map_err(|source| Error::PearlFile { expected: "actions", reason: source.to_string() })
    }

    /// Adds an action at the end.
    ///
    /// # Errors
    /// [`Error::Action`] if there is one of its name, or the list is full (10,000).
    pub fn insert(&mut self, action: Action) -> Result<()> {
        let fault = |reason: &str| Error::Action { action: action.name.clone(), reason: reason.to_owned() };
        if self.by_name.contains_key(&action.name) {
            return Err(fault("the name is there twice"));
        }
        if self.by_name.len() >= MAX_ACTIONS {
            return Err(fault("the list is full: it holds 10,000 actions"));
        }
        self.by_name.insert(action.name.clone(), action);
        Ok(())
    }

    /// The action of this name.
    pub fn get(&self, name: &str) -> Option<&Action> {
        self.by_name.get(name)
    }

    /// The actions, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Action> {
        self.by_name.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|action| writeln!(f, "{action}"))
    }
}

/// Short enough for a message.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('\u{2026}');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_list_is_usable() {
        let actions = Actions::builtin();
        assert!(actions.len() >= 15, "{}", actions.len());
        for action in actions.iter() {
            assert_eq!(action.parameters()[0], DOCUMENT, "{action}");
            assert_eq!(action.to_string().parse::<Action>().unwrap(), *action);
        }
        let json = serde_json::to_string(&actions).unwrap();
        assert_eq!(serde_json::from_str::<Actions>(&json).unwrap(), actions);
        assert_eq!(Actions::from_yaml(&json).unwrap(), actions);
    }

    #[test]
    fn what_is_wrong_with_an_action_is_said() {
        let reason = |text: &str| text.parse::<Action>().unwrap_err().to_string();
        assert!(reason("FIND(CTX, CTX): x").contains("`CTX` is there twice"));
        assert!(
            reason("FIND(CTX, X:").contains("column 12: expected `,` or `)` after a parameter, found `:`")
        );
        assert!(reason("CONCAT(X): join").contains("taken"));
        assert!(reason("FIND(CTX):  ").contains("definition is empty"));
        assert!(reason("").contains("expected the name of an action, found the end"));
        let twice = "[{name: A, definition: x}, {name: A, definition: y}]";
        assert!(Actions::from_yaml(twice).unwrap_err().to_string().contains("the name is there twice"));
        let unknown = "[{name: A, definition: x, params: [CTX]}]";
        assert!(Actions::from_yaml(unknown).unwrap_err().to_string().contains("params"));
    }
}
