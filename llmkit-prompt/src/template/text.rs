use serde::{Serialize, Serializer};

use super::checked::{Checked, hash};
use super::rendered::Rendered;
use super::typed::TypedTemplate;
use super::{Escape, Partials};
use crate::Result;
use crate::run::spans;

/// A text with holes, checked when it is built.
///
/// The syntax is Jinja's: `{{ value }}`, `{% if ... %}`, `{% for ... %}`, `{# comment #}`, filters, macros, includes of [`Partials`]. Every variable that
/// the template uses must be declared and every declared one used; each must be given a value when rendering, `null` where there is none.
/// Nothing is escaped unless [`with_escape`](Self::with_escape) says so. A tag alone on its line leaves no line behind (Jinja's `trim_blocks` and
/// `lstrip_blocks`), one newline at the end of the template is dropped, and line breaks are `\n`, so that templates in files read as they render.
///
/// ```
/// use llmkit_prompt::PromptTemplate;
/// use serde_json::json;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let template = PromptTemplate::new("define", "Define the word \"{{ word }}\".", ["word"])?;
/// assert_eq!(template.render(json!({ "word": "tureen" }))?, "Define the word \"tureen\".");
///
/// let error = template.render(json!({ "wrod": "tureen" })).unwrap_err();
/// assert_eq!(error.to_string(), "`define` lacks values for `word`; given: `wrod`");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PromptTemplate {
    pub(super) checked: Checked,
}

impl PromptTemplate {
    /// Compiles `source` and compares it with its declared `variables`. Errors name the template `name`.
    ///
    /// # Errors
    /// [`Error::Syntax`](crate::Error::Syntax) if the text is not valid Jinja, [`Error::Reference`](crate::Error::Reference) if it refers to other templates,
    /// [`Error::Variables`](crate::Error::Variables) if it and the declaration disagree, [`Error::Oversized`](crate::Error::Oversized) if it is longer than
    /// [`LONGEST_TEMPLATE`](crate::LONGEST_TEMPLATE).
    pub fn new<V: Into<String>>(
        name: impl Into<String>,
        source: impl Into<String>,
        variables: impl IntoIterator<Item = V>,
    ) -> Result<Self> {
        Self::new_with(&Partials::new(), name, source, variables)
    }

    /// [`new`](Self::new) for a template that includes `partials`.
    ///
    /// # Errors
    /// As `new`; [`Error::Reference`](crate::Error::Reference) for an include that leads nowhere, in a circle, or too far.
    pub fn new_with<V: Into<String>>(
        partials: &Partials,
        name: impl Into<String>,
        source: impl Into<String>,
        variables: impl IntoIterator<Item = V>,
    ) -> Result<Self> {
        let name = name.into();
        let variables = variables.into_iter().map(Into::into).collect();
        let roots = [(name.clone(), source.into())];
        Ok(Self { checked: Checked::new(partials, name, roots, variables)? })
    }

    /// Checks the template against the struct `V`, whose fields are its variables: see [`TypedTemplate`].
    ///
    /// # Errors
    /// [`Error::Variables`](crate::Error::Variables) if a variable is no field of `V`, or a field of a field is misspelt.
    pub fn typed<V: Serialize + schemars::JsonSchema>(self) -> Result<TypedTemplate<V>> {
        TypedTemplate::of(self)
    }

    /// The name given to [`new`](Self::new).
    pub fn name(&self) -> &str {
        &self.checked.name
    }

    /// The text with its holes.
    pub fn source(&self) -> &str {
        self.checked.source(0)
    }

    /// The variables that [`render`](Self::render) needs, in declared order.
    pub fn variables(&self) -> &[String] {
        &self.checked.variables
    }

    /// The template with one variable fewer: `name` has this value from now on.
    ///
    /// ```
    /// use llmkit_prompt::PromptTemplate;
    ///
    /// # fn main() -> Result<(), llmkit_prompt::Error> {
    /// let translate = PromptTemplate::new("t", "Into {{ language }}: {{ text }}", ["language", "text"])?;
    /// let french = translate.with_value("language", "French")?;
    /// assert_eq!(french.variables(), ["text"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchVariable`](crate::Error::NoSuchVariable) if the template has no such variable, [`Error::Value`](crate::Error::Value) if the value
    /// cannot be written as JSON.
    pub fn with_value(self, name: &str, value: impl Serialize) -> Result<Self> {
        Ok(Self { checked: self.checked.with_value(name, value)? })
    }

    /// The template with variables whose values come from strangers: wherever they are shown, alone or in what a filter, a loop or a macro
    /// made of them, they are marked as by [`mark_untrusted`](crate::mark_untrusted). (Numbers and truth values are not: they say nothing.)
    ///
    /// Tell the model what the marks mean: [`UNTRUSTED_NOTE`](crate::UNTRUSTED_NOTE); a [`ChatPrompt`](crate::ChatPrompt) does so by itself.
    ///
    /// # Errors
    /// [`Error::NoSuchVariable`](crate::Error::NoSuchVariable) if the template has no such variable.
    pub fn with_untrusted(self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        Ok(Self { checked: self.checked.with_untrusted(names)? })
    }

    /// The template with values escaped. Default: [`Escape::None`].
    pub fn with_escape(self, escape: Escape) -> Self {
        Self { checked: self.checked.with_escape(escape) }
    }

    /// Fills the holes from `values`: a struct or a map with one entry a variable. Entries that the template does not use are ignored,
    /// so one struct can serve several templates.
    ///
    /// # Errors
    /// [`Error::NotAMap`](crate::Error::NotAMap) if `values` is something else, [`Error::MissingValues`](crate::Error::MissingValues) if variables have no
    /// entry, [`Error::Render`](crate::Error::Render) if the template fails on the values, for instance because it uses an attribute that one lacks.
    pub fn render(&self, values: impl Serialize) -> Result<String> {
        spans::within(spans::render(self.name()), || self.checked.render(0, self.checked.values(values)?))
    }

    /// [`render`](Self::render), with where each part of the text comes from, and how many tokens it takes.
    ///
    /// # Errors
    /// As `render`.
    pub fn explain(&self, values: impl Serialize) -> Result<Rendered> {
        spans::within(spans::render(self.name()), || self.checked.explain(0, self.checked.values(values)?))
    }

    /// A fingerprint of all that decides what is rendered: the text, the partials that it includes, values given so far, escaping and which variables are
    /// untrusted; not the name. SHA-256 in 64 hexadecimal digits.
    pub fn content_hash(&self) -> String {
        hash(&self.checked.content())
    }
}

/// Templates are equal when their names and contents are.
impl PartialEq for PromptTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.checked.content() == other.checked.content()
    }
}

impl Serialize for PromptTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut content = self.checked.content();
        content["name"] = self.name().into();
        content["hash"] = self.content_hash().into();
        content.serialize(serializer)
    }
}
