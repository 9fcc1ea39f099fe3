use std::fmt;
use std::sync::Arc;

use llmkit_core::ToolDefinition;
use serde_json::Value;

use super::{Tool, ToolPolicy, suggest};
use crate::{Error, Result};

/// The tools of an agent, each under a name of its own.
///
/// ```
/// use llmkit_prompt::agent::{Toolbox, calculator, current_time};
///
/// let tools = Toolbox::new([calculator(), current_time()])?;
/// assert_eq!(tools.names().collect::<Vec<_>>(), ["calculator", "current_time"]);
///
/// let error = tools.with(calculator()).unwrap_err();
/// assert_eq!(error.to_string(), "tool `calculator`: expected a name of its own, found one that another tool has");
/// # Ok::<(), llmkit_prompt::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Toolbox {
    tools: Vec<Entry>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) definition: ToolDefinition,
    pub(super) policy: ToolPolicy,
    pub(super) tool: Arc<dyn Tool>,
}

impl Toolbox {
    /// The toolbox that holds `tools`. Tools of several types go in one by one: see [`with`](Self::with).
    ///
    /// # Errors
    /// As [`with`](Self::with), for the first tool that doesn't fit.
    pub fn new<T: Tool + 'static>(tools: impl IntoIterator<Item = T>) -> Result<Self> {
        tools.into_iter().try_fold(Self::default(), Self::with)
    }

    /// The toolbox with `tool` as well.
    ///
    /// # Errors
    /// [`Error::Tool`] if the name is not of 1 to 64 letters, digits, `_` and `-` (what all providers accept), if another tool has it, or
    /// if the arguments are not those of a JSON object.
    pub fn with(mut self, tool: impl Tool + 'static) -> Result<Self> {
        let definition = tool.definition();
        let name = &definition.name;
        let wrong = |expected: &str, found: String| {
            Err(Error::Tool { tool: name.clone(), expected: expected.to_owned(), found })
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            return wrong(
                "a name of 1 to 64 ASCII letters, digits, `_` and `-`",
                format!("{} bytes: {name:?}", name.len()),
            );
        }
        if self.find(name).is_some() {
            return wrong("a name of its own", "one that another tool has".to_owned());
        }
        if definition.parameters.get("type") != Some(&Value::String("object".to_owned())) {
            return wrong(
                "arguments that are a struct (a schema of type `object`)",
                definition.parameters.to_string(),
            );
        }
        self.tools.push(Entry { policy: tool.policy(), definition, tool: Arc::new(tool) });
        Ok(self)
    }

    /// The tools' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|entry| entry.definition.name.as_str())
    }

    /// What a model is told about the tools, in order.
    pub fn definitions(&self) -> Vec<ToolDefinition> {
        self.tools.iter().map(|entry| entry.definition.clone()).collect()
    }

    /// The tool of this name.
    pub fn get(&self, name: &str) -> Option<&dyn Tool> {
        self.find(name).map(|entry| entry.tool.as_ref())
    }

    /// The number of tools.
    pub fn len(&self) -> usize {
        self.tools.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// How many agents deep the deepest tool is; see [`Tool::depth`].
    pub fn depth(&self) -> usize {
        self.tools.iter().map(|entry| entry.tool.depth()).max().unwrap_or(0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.tools.iter()
    }

    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        self.tools.iter().find(|entry| entry.definition.name == name)
    }

    /// What to tell a model that asked for a tool that is not there.
    pub(super) fn unknown(&self, name: &str) -> String {
        let name: String = name.chars().take(80).collect();
        if let Some(meant) = suggest::nearest(&name, self.names()) {
            return format!("there is no tool `{name}`; did you mean `{meant}`?");
        }
        if self.is_empty() {
            return format!("there is no tool `{name}`; there are none");
        }
        let names: Vec<String> = self.names().map(|name| format!("`{name}`")).collect();
        format!("there is no tool `{name}`; the tools are {}", names.join(", "))
    }
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
