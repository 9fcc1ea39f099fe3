use serde::{Serialize, Serializer};

use super::checked::{Checked, hash};
use super::rendered::{Rendered, RenderedChat};
use super::typed::TypedPrompt;
use super::untrusted::UNTRUSTED_NOTE;
use super::{Escape, Partials};
use crate::run::spans;
use crate::{Message, Result, Role};

/// A conversation with holes: a list of turns, each a [`Role`] and a template, over one set of declared variables.
///
/// A variable may occur in several turns and must occur in one. Turn `i` of the prompt `name` is called `name[i]` in errors.
/// The templates' syntax is that of [`PromptTemplate`](crate::PromptTemplate).
///
/// ```
/// use llmkit_prompt::{ChatPrompt, Message, Role};
/// use serde_json::json;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let turns = [(Role::System, "Translate into {{ language }}."), (Role::User, "{{ text }}")];
/// let translate = ChatPrompt::new("translate", turns, ["language", "text"])?;
/// assert_eq!(
///     translate.render(json!({ "language": "French", "text": "Good morning" }))?,
///     [Message::system("Translate into French."), Message::user("Good morning")]
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ChatPrompt {
    pub(super) checked: Checked,
    roles: Vec<Role>,
    note: String,
}

impl ChatPrompt {
    /// Compiles the turns and compares them with the declared `variables`.
    ///
    /// # Errors
    /// As [`PromptTemplate::new`](crate::PromptTemplate::new), for the first turn that fails to parse, or for the variables of all
    /// turns together.
    pub fn new<T: Into<String>, V: Into<String>>(
        name: impl Into<String>,
        turns: impl IntoIterator<Item = (Role, T)>,
        variables: impl IntoIterator<Item = V>,
    ) -> Result<Self> {
        Self::new_with(&Partials::new(), name, turns, variables)
    }

    /// [`new`](Self::new) for turns that include `partials`.
    ///
    /// # Errors
    /// As `new`; [`Error::Reference`](crate::Error::Reference) for an include that leads nowhere, in a circle, or too far.
    pub fn new_with<T: Into<String>, V: Into<String>>(
        partials: &Partials,
        name: impl Into<String>,
        turns: impl IntoIterator<Item = (Role, T)>,
        variables: impl IntoIterator<Item = V>,
    ) -> Result<Self> {
        let name = name.into();
        let (roles, sources): (Vec<Role>, Vec<String>) =
            turns.into_iter().map(|(role, source)| (role, source.into())).unzip();
        let roots =
            sources.into_iter().enumerate().map(|(index, source)| (format!("{name}[{index}]"), source));
        let roots: Vec<_> = roots.collect();
        let variables = variables.into_iter().map(Into::into).collect();
        let checked = Checked::new(partials, name, roots, variables)?;
        Ok(Self { checked, roles, note: UNTRUSTED_NOTE.to_owned() })
    }

    /// Checks the prompt against the struct `V`, whose fields are its variables: see [`TypedPrompt`].
    ///
    /// # Errors
    /// [`Error::Variables`](crate::Error::Variables) if a variable is no field of `V`, or a field of a field is misspelt.
    pub fn typed<V: Serialize + schemars::JsonSchema>(self) -> Result<TypedPrompt<V>> {
        TypedPrompt::of(self)
    }

    /// The name given to [`new`](Self::new).
    pub fn name(&self) -> &str {
        &self.checked.name
    }

    /// The variables that [`render`](Self::render) needs, in declared order.
    pub fn variables(&self) -> &[String] {
        &self.checked.variables
    }

    /// The variables whose values are marked as coming from strangers.
    pub fn untrusted(&self) -> &[String] {
        &self.checked.untrusted
    }

    /// The roles and the templates' texts, in order.
    pub fn turns(&self) -> impl Iterator<Item = (Role, &str)> {
        self.roles.iter().enumerate().map(|(index, role)| (*role, self.checked.source(index)))
    }

    /// The prompt with one variable fewer: `name` has this value from now on.
    ///
    /// # Errors
    /// As [`PromptTemplate::with_value`](crate::PromptTemplate::with_value).
    pub fn with_value(self, name: &str, value: impl Serialize) -> Result<Self> {
        Ok(Self { checked: self.checked.with_value(name, value)?, ..self })
    }

    /// The prompt with variables whose values come from strangers: wherever they are shown, alone or in what a filter, a loop or a macro made
    /// of them, they are marked as by [`mark_untrusted`](crate::mark_untrusted). (Numbers and truth values are not: they say nothing.)
    ///
    /// What the marks mean is said by a note, [`UNTRUSTED_NOTE`](crate::UNTRUSTED_NOTE), at the end of the first system turn; without a system turn it stands
    /// before the first turn. [`with_note`](Self::with_note) changes it.
    ///
    /// # Errors
    /// [`Error::NoSuchVariable`](crate::Error::NoSuchVariable) if the prompt has no such variable.
    pub fn with_untrusted(self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        Ok(Self { checked: self.checked.with_untrusted(names)?, ..self })
    }

    /// The prompt with another note on untrusted values; with an empty one, none is added.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// The prompt with values escaped. Default: [`Escape::None`].
    pub fn with_escape(self, escape: Escape) -> Self {
        Self { checked: self.checked.with_escape(escape), ..self }
    }

    /// The prompt, if all that it wants is among the variables `supplied`: for pieces whose prompt can be replaced.
    ///
    /// # Errors
    /// [`Error::NotSupplied`](crate::Error::NotSupplied) naming what it wants beyond those.
    pub fn supplied_by(self, supplied: &[&str]) -> Result<Self> {
        self.checked.supplied_by(supplied)?;
        Ok(self)
    }

    /// One message a turn, with the holes filled from `values`: a struct or a map with one entry a variable.
    ///
    /// # Errors
    /// As [`PromptTemplate::render`](crate::PromptTemplate::render).
    pub fn render(&self, values: impl Serialize) -> Result<Vec<Message>> {
        if !self.checked.untrusted.is_empty() {
            return Ok(self.explain(values)?.into_messages());
        }
        spans::within(spans::render(self.name()), || {
            let values = self.checked.values(values)?;
            let turns = self.roles.iter().enumerate();
            turns
                .map(|(index, role)| Ok(Message::new(*role, self.checked.render(index, values.clone())?)))
                .collect()
        })
    }

    /// [`render`](Self::render), with where each part of the messages comes from, and how many tokens they take.
    ///
    /// # Errors
    /// As `render`.
    pub fn explain(&self, values: impl Serialize) -> Result<RenderedChat> {
        spans::within(spans::render(self.name()), || self.explained(values))
    }

    fn explained(&self, values: impl Serialize) -> Result<RenderedChat> {
        let values = self.checked.values(values)?;
        let turns = self.roles.iter().enumerate();
        let mut turns = turns
            .map(|(index, role)| Ok((*role, self.checked.explain(index, values.clone())?)))
            .collect::<Result<Vec<(Role, Rendered)>>>()?;
        if !self.checked.untrusted.is_empty() && !self.note.is_empty() {
            let system = turns.iter().position(|(role, _)| *role == Role::System);
            if let Some((_, turn)) = turns.get_mut(system.unwrap_or(0)) {
                turn.add_note(&self.note, system.is_some());
            }
        }
        Ok(RenderedChat::new(self.name().to_owned(), turns))
    }

    /// A fingerprint of all that decides what is rendered: roles, texts, the partials that they include, values given so far, escaping and which
    /// variables are untrusted; not the name. SHA-256 in 64 hexadecimal digits.
    pub fn content_hash(&self) -> String {
        hash(&self.content())
    }

    fn content(&self) -> serde_json::Value {
        let mut content = self.checked.content();
        content["roles"] = self.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
        content["note"] = if self.checked.untrusted.is_empty() { "" } else { self.note.as_str() }.into();
        content
    }
}

/// Prompts are equal when their names and contents are.
impl PartialEq for ChatPrompt {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.content() == other.content()
    }
}

impl Serialize for ChatPrompt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut content = self.content();
        content["name"] = self.name().into();
        content["hash"] = self.content_hash().into();
        content.serialize(serializer)
    }
}
