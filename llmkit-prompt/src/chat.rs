use serde::Serialize;

use crate::template::{Compiled, checked_values};
use crate::{Error, Message, Result, Role, variables};

/// A conversation with holes: a list of turns, each a [`Role`] and a template, over one set of declared variables.
///
/// A variable may occur in several turns and must occur in one. Turn `i` of the prompt `name` is called `name[i]` in errors.
/// The templates' syntax is that of [`PromptTemplate`](crate::PromptTemplate).
#[derive(Debug, Clone)]
pub struct ChatPrompt {
    name: String,
    turns: Vec<(Role, Compiled)>,
    variables: Vec<String>,
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
        let name = name.into();
        let turns = turns
            .into_iter()
            .enumerate()
            .map(|(index, (role, source))| {
                Ok((role, Compiled::new(format!("{name}[{index}]"), source.into())?))
            })
            .collect::<Result<Vec<_>>>()?;
        let variables: Vec<String> = variables.into_iter().map(Into::into).collect();
        let templates: Vec<&Compiled> = turns.iter().map(|(_, template)| template).collect();
        variables::check(&name, &templates, &variables)?;
        Ok(Self { name, turns, variables })
    }

    /// The name given to [`new`](Self::new).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The declared variables, in declared order.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The roles and the templates' texts, in order.
    pub fn turns(&self) -> impl Iterator<Item = (Role, &str)> {
        self.turns.iter().map(|(role, template)| (*role, template.source()))
    }

    /// The prompt, if all that it wants is among the variables `supplied`: for pieces whose prompt can be replaced.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] naming what it wants beyond those.
    pub fn supplied_by(self, supplied: &[&str]) -> Result<Self> {
        let wanted: Vec<String> =
            self.variables.iter().filter(|name| !supplied.contains(&name.as_str())).cloned().collect();
        if wanted.is_empty() {
            return Ok(self);
        }
        let supplied = supplied.iter().map(|name| (*name).to_owned()).collect();
        Err(Error::NotSupplied { prompt: self.name, wanted, supplied })
    }

    /// One message a turn, with the holes filled from `values`: a struct or a map with one entry a variable.
    ///
    /// # Errors
    /// As [`PromptTemplate::render`](crate::PromptTemplate::render).
    pub fn render(&self, values: impl Serialize) -> Result<Vec<Message>> {
        let values = checked_values(&self.name, &self.variables, values)?;
        self.turns.iter().map(|(role, turn)| Ok(Message::new(*role, turn.render(values.clone())?))).collect()
    }
}
