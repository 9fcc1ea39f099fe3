use std::collections::HashSet;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use crate::mentions::mentions;
use crate::{Error, Result, variables};

/// How much work one rendering may do, in minijinja's units: about one an instruction and one for 64 bytes of text, so at most about a
/// million steps and 64 MB. A template from elsewhere can then neither hang the program nor exhaust its memory.
pub const FUEL: u64 = 1_000_000;

/// A text with holes, checked when it is built.
///
/// The syntax is Jinja's: `{{ value }}`, `{% if ... %}`, `{% for ... %}`, `{# comment #}`, filters. Every variable that the template
/// uses must be declared and every declared one used; each must be given a value when rendering, `null` where there is none.
/// Nothing is escaped. A tag alone on its line leaves no line behind (Jinja's `trim_blocks` and `lstrip_blocks`), and one newline at
/// the end of the template is dropped, so that templates in files read as they render.
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
    compiled: Compiled,
    variables: Vec<String>,
}

impl PromptTemplate {
    /// Compiles `source` and compares it with its declared `variables`. Errors name the template `name`.
    ///
    /// # Errors
    /// [`Error::Syntax`] if the text is not valid Jinja, [`Error::NotAlone`] if it refers to other templates,
    /// [`Error::Variables`] if it and the declaration disagree.
    pub fn new<V: Into<String>>(
        name: impl Into<String>,
        source: impl Into<String>,
        variables: impl IntoIterator<Item = V>,
    ) -> Result<Self> {
        let compiled = Compiled::new(name.into(), source.into())?;
        let variables: Vec<String> = variables.into_iter().map(Into::into).collect();
        variables::check(compiled.name(), &[&compiled], &variables)?;
        Ok(Self { compiled, variables })
    }

    /// The name given to [`new`](Self::new).
    pub fn name(&self) -> &str {
        self.compiled.name()
    }

    /// The text with its holes.
    pub fn source(&self) -> &str {
        self.compiled.source()
    }

    /// The declared variables, in declared order.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Fills the holes from `values`: a struct or a map with one entry a variable. Entries that the template does not use are ignored,
    /// so one struct can serve several templates.
    ///
    /// # Errors
    /// [`Error::NotAMap`] if `values` is something else, [`Error::MissingValues`] if variables have no entry, [`Error::Render`] if
    /// the template fails on the values, for instance because it uses an attribute that one lacks.
    pub fn render(&self, values: impl Serialize) -> Result<String> {
        let values = checked_values(self.name(), &self.variables, values)?;
        self.compiled.render(values)
    }
}

/// `values` as the engine's map, with an entry for each of `variables`.
pub(crate) fn checked_values(prompt: &str, variables: &[String], values: impl Serialize) -> Result<Value> {
    let values = Value::from(Serde(values));
    if values.kind() != ValueKind::Map {
        return Err(Error::NotAMap { prompt: prompt.to_owned(), found: values.kind().to_string() });
    }
    let given: Vec<String> = values.try_iter().into_iter().flatten().map(|key| key.to_string()).collect();
    let missing: Vec<String> = variables.iter().filter(|name| !given.contains(name)).cloned().collect();
    if !missing.is_empty() {
        return Err(Error::MissingValues { prompt: prompt.to_owned(), missing, given });
    }
    Ok(values)
}

/// A parsed template, before its variables are checked.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    name: String,
    source: Arc<str>,
    // Holds this one template, under `name`. Cloning a prompt shares it.
    environment: Arc<Environment<'static>>,
}

impl Compiled {
    pub(crate) fn new(name: String, source: String) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the default delimiters are valid"));
        if let Some(mention) = mentions(&source).iter().find(|mention| {
            mention.is_statement && matches!(mention.name, "include" | "import" | "from" | "extends")
        }) {
            let statement = mention.name.to_owned();
            return Err(Error::NotAlone { template: name, line: mention.line, statement });
        }
        let text = Arc::from(source.as_str());
        environment.add_template_owned(name.clone(), source).map_err(|source| Error::Syntax {
            template: name.clone(),
            line: source.line().unwrap_or(1),
            reason: reason(&source),
            source: Box::new(source),
        })?;
        Ok(Self { name, source: text, environment: Arc::new(environment) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The names that the template looks up and does not set itself, without the engine's functions.
    pub(crate) fn free_variables(&self) -> HashSet<String> {
        let mut free = self.template().undeclared_variables(false);
        free.retain(|name| !self.is_global(name));
        free
    }

    pub(crate) fn is_global(&self, name: &str) -> bool {
        self.environment.globals().any(|(global, _)| global == name)
    }

    pub(crate) fn render(&self, values: Value) -> Result<String> {
        self.template().render(values).map_err(|source| Error::Render {
            template: self.name.clone(),
            line: source.line().unwrap_or(0),
            reason: reason(&source),
            source: Box::new(source),
        })
    }

    fn template(&self) -> minijinja::Template<'_, '_> {
        self.environment.get_template(&self.name).expect("the constructor added the template under this name")
    }
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
