use std::fmt;
use std::marker::PhantomData;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;

use super::checked::Checked;
use super::rendered::{Rendered, RenderedChat};
use super::shape::Schema;
use super::suggest::closest;
use super::{ChatPrompt, PromptTemplate};
use crate::{Error, Message, Result, Role, VariableProblem};

/// A [`ChatPrompt`] whose variables are the fields of the struct `V`, so that the compiler sees to it that all are given.
///
/// The templates are compared with the struct when the prompt is built, down to the fields of its fields: those of nested structs, of the items
/// of lists that a loop walks, and those that filters name.
///
/// ```
/// use llmkit_prompt::{Role, TypedPrompt};
/// use schemars::JsonSchema;
/// use serde::Serialize;
///
/// #[derive(Serialize, JsonSchema)]
/// struct Question {
///     passages: Vec<Passage>,
///     question: String,
/// }
///
/// #[derive(Serialize, JsonSchema)]
/// struct Passage {
///     title: String,
///     text: String,
/// }
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let turn = "{% for p in passages %}\n{{ p.title }}: {{ p.text }}\n{% endfor %}\n{{ question }}";
/// let prompt = TypedPrompt::<Question>::new("answer", [(Role::User, turn)])?;
/// let passages = vec![Passage { title: "Tureens".into(), text: "They are deep.".into() }];
/// let messages = prompt.render(&Question { passages, question: "Are tureens deep?".into() })?;
/// assert_eq!(messages[0].content, "Tureens: They are deep.\nAre tureens deep?");
///
/// let slip = TypedPrompt::<Question>::new("answer", [(Role::User, turn.replace("p.text", "p.txet"))]).unwrap_err();
/// assert!(slip.to_string().contains("answer[0]:2: `p.txet` is no field; did you mean `text`?"));
/// # Ok(())
/// # }
/// ```
pub struct TypedPrompt<V> {
    prompt: ChatPrompt,
    values: PhantomData<fn(&V)>,
}

impl<V: Serialize + JsonSchema> TypedPrompt<V> {
    /// Compiles the turns and compares them with `V`, every field of which must be used.
    ///
    /// # Errors
    /// As [`ChatPrompt::new`]; [`Error::Variables`] also for fields of fields that are not there.
    pub fn new<T: Into<String>>(
        name: impl Into<String>,
        turns: impl IntoIterator<Item = (Role, T)>,
    ) -> Result<Self> {
        let schema = schema::<V>();
        let variables = variables(Schema(&schema));
        Self::of(ChatPrompt::new(name, turns, variables)?)
    }

    /// Compares a prompt with `V`, which may have fields that the prompt does not use: so one struct serves several prompts.
    ///
    /// # Errors
    /// [`Error::Variables`] if a variable is no field of `V`, or a field of a field is not there.
    pub fn of(prompt: ChatPrompt) -> Result<Self> {
        check::<V>(&prompt.checked)?;
        Ok(Self { prompt, values: PhantomData })
    }

    /// The prompt without its type.
    pub fn prompt(&self) -> &ChatPrompt {
        &self.prompt
    }

    /// One message a turn, with the holes filled.
    ///
    /// # Errors
    /// [`Error::Render`] if the template fails on the values, [`Error::MissingValues`] if `V` leaves fields out when it is written
    /// (`skip_serializing_if`).
    pub fn render(&self, values: &V) -> Result<Vec<Message>> {
        self.prompt.render(values)
    }

    /// [`render`](Self::render), with where each part of the messages comes from, and how many tokens they take.
    ///
    /// # Errors
    /// As `render`.
    pub fn explain(&self, values: &V) -> Result<RenderedChat> {
        self.prompt.explain(values)
    }
}

/// A [`PromptTemplate`] whose variables are the fields of the struct `V`; as [`TypedPrompt`], for one text.
///
/// ```
/// use llmkit_prompt::TypedTemplate;
///
/// #[derive(serde::Serialize, schemars::JsonSchema)]
/// struct Word {
///     word: String,
/// }
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let define = TypedTemplate::<Word>::new("define", "Define {{ word }}.")?;
/// assert_eq!(define.render(&Word { word: "tureen".into() })?, "Define tureen.");
/// # Ok(())
/// # }
/// ```
pub struct TypedTemplate<V> {
    template: PromptTemplate,
    values: PhantomData<fn(&V)>,
}

impl<V: Serialize + JsonSchema> TypedTemplate<V> {
    /// Compiles `source` and compares it with `V`, every field of which must be used.
    ///
    /// # Errors
    /// As [`PromptTemplate::new`]; [`Error::Variables`] also for fields of fields that are not there.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Result<Self> {
        let schema = schema::<V>();
        let variables = variables(Schema(&schema));
        Self::of(PromptTemplate::new(name, source, variables)?)
    }

    /// Compares a template with `V`, which may have fields that the template does not use.
    ///
    /// # Errors
    /// [`Error::Variables`] if a variable is no field of `V`, or a field of a field is not there.
    pub fn of(template: PromptTemplate) -> Result<Self> {
        check::<V>(&template.checked)?;
        Ok(Self { template, values: PhantomData })
    }

    /// The template without its type.
    pub fn template(&self) -> &PromptTemplate {
        &self.template
    }

    /// The text with its holes filled.
    ///
    /// # Errors
    /// As [`TypedPrompt::render`].
    pub fn render(&self, values: &V) -> Result<String> {
        self.template.render(values)
    }

    /// [`render`](Self::render), with where each part of the text comes from, and how many tokens it takes.
    ///
    /// # Errors
    /// As `render`.
    pub fn explain(&self, values: &V) -> Result<Rendered> {
        self.template.explain(values)
    }
}

// Derived, these would ask the same of `V`, of which there is no value.
impl<V> Clone for TypedPrompt<V> {
    fn clone(&self) -> Self {
        Self { prompt: self.prompt.clone(), values: PhantomData }
    }
}

impl<V> fmt::Debug for TypedPrompt<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedPrompt").field(&self.prompt).finish()
    }
}

// Derived, these would ask the same of `V`, of which there is no value.
impl<V> Clone for TypedTemplate<V> {
    fn clone(&self) -> Self {
        Self { template: self.template.clone(), values: PhantomData }
    }
}

impl<V> fmt::Debug for TypedTemplate<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedTemplate").field(&self.template).finish()
    }
}

/// The schema of what `V` looks like when it is written.
fn schema<V: JsonSchema>() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    SchemaGenerator::new(settings).into_root_schema_for::<V>().to_value()
}

fn variables(schema: Schema<'_>) -> Vec<String> {
    schema.variables().into_iter().map(str::to_owned).collect()
}

fn check<V: JsonSchema>(checked: &Checked) -> Result<()> {
    let schema = schema::<V>();
    let known = variables(Schema(&schema));
    let analysis = checked.engine.analysis_with(Schema(&schema))?;
    let missing = |name: &String| checked.variables.contains(name) && !known.contains(name);
    let mut problems: Vec<VariableProblem> = analysis
        .uses
        .iter()
        .filter(|usage| missing(&usage.name))
        .map(|usage| VariableProblem::Undeclared {
            template: usage.template.clone(),
            line: usage.line,
            name: usage.name.clone(),
            suggestion: closest(&usage.name, &known),
        })
        .collect();
    problems.extend(analysis.fields);
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Variables { prompt: checked.name.clone(), problems })
}
