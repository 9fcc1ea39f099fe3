use std::any::type_name;
use std::fmt;
use std::sync::Arc;

use llmkit_core::{ChatRequest, LanguageModel, Message, ResponseFormat};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::PartialJson;
use super::ask::{Ask, Read, with_text};
use crate::parse::{Repaired, json_with_repairs};
use crate::{ChatPrompt, Error, Result, Run, Traced, builtin, schema};

type Check<T> = dyn Fn(&T) -> Result<(), String> + Send + Sync;

/// An answer of type `T`.
///
/// A model that is [capable](llmkit_core::Capabilities::json_schema) of it is held to the JSON schema of `T` while it writes. To any other the schema is shown, by the
/// prompt `typed/schema`. The answer is then [read](crate::parse::json), with its slips mended; where it is no `T`, or a check refuses it, the model is told what is wrong
/// and asked again. What was mended and refused is in the trace.
///
/// What is no object (a number, a list) is asked for within one, `{"answer": ..}`, where the model is held to the schema, since servers want objects.
///
/// ```
/// use llmkit_core::Message;
/// use llmkit_prompt::testing::ScriptedModel;
/// use llmkit_prompt::typed::Typed;
///
/// # pollster::block_on(async {
/// let model = ScriptedModel::new(["[150]", "I'd say: [3, 5,]"]);
/// let few = Typed::<Vec<u8>>::new().with_check(|numbers| {
///     numbers.iter().all(|n| *n < 100).then_some(()).ok_or_else(|| "expected numbers below 100".to_owned())
/// });
/// let answer = few.run(&model, vec![Message::user("Two small primes?")]).await?;
/// assert_eq!(answer.value, [3, 5]);
/// assert!(answer.trace.to_string().contains("a comma too many left out"));
/// # Ok::<(), llmkit_prompt::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Typed<T> {
    name: String,
    schema: Value,
    prompt: ChatPrompt,
    check: Option<Arc<Check<T>>>,
    ask: Ask,
}

impl<T: JsonSchema + DeserializeOwned> Default for Typed<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: JsonSchema + DeserializeOwned> Typed<T> {
    /// Answers of type `T`, asked for at most 3 times.
    pub fn new() -> Self {
        Self {
            name: T::schema_name().into_owned(),
            schema: schema::of_type::<T>(),
            prompt: builtin::prompt("typed/schema"),
            check: None,
            ask: Ask::default(),
        }
    }

    /// The JSON schema.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// Asks at most this often.
    ///
    /// # Panics
    /// If `attempts` is 0.
    pub fn with_attempts(self, attempts: usize) -> Self {
        Self { ask: self.ask.with_attempts(attempts), ..self }
    }

    /// Accepts only what `check` does not refuse. Its words are shown to the model: say what was expected.
    pub fn with_check(self, check: impl Fn(&T) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { check: Some(Arc::new(check)), ..self }
    }

    /// Shows the schema by this prompt, whose variable is `schema`. Its text is added to the last message. Built in: `typed/schema`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] when it wants other variables.
    pub fn with_prompt(self, prompt: ChatPrompt) -> Result<Self> {
        Ok(Self { prompt: prompt.supplied_by(&["schema"])?, ..self })
    }

    /// Sends this prompt after an answer that can't be used; the variable `error` says why. Built in: `typed/again`.
    ///
    /// # Errors
    /// [`Error::NotSupplied`] when it wants other variables.
    pub fn with_prompt_again(self, prompt: ChatPrompt) -> Result<Self> {
        Ok(Self { ask: self.ask.with_prompt(prompt)?, ..self })
    }

    /// Asks `model` for the answer to `messages`.
    ///
    /// # Errors
    /// [`Error::Answer`] when no attempt could be used, [`Error::Model`] when the model fails.
    pub async fn run(&self, model: &dyn LanguageModel, messages: Vec<Message>) -> Result<Traced<T>> {
        let run = Run::new(format!("typed: {}", self.name), model);
        let value = self.run_in(&run, messages).await?;
        Ok(run.finish(value))
    }

    /// As [`run`](Self::run), as a part of other work.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_in(&self, run: &Run<'_>, messages: Vec<Message>) -> Result<T> {
        let (request, wrapped) = self.request(run, messages)?;
        self.ask.ask(run, &self.wanted(), request, &|text| self.read(text, wrapped), None).await
    }

    /// As [`run_in`](Self::run_in), with the answer so far handed to `on_partial` whenever there is more of it: texts grow, objects and lists fill. After an answer that could not be
    /// used it begins anew.
    ///
    /// ```
    /// use llmkit_core::Message;
    /// use llmkit_prompt::Run;
    /// use llmkit_prompt::testing::ScriptedModel;
    /// use llmkit_prompt::typed::Typed;
    ///
    /// # pollster::block_on(async {
    /// let model = ScriptedModel::new([r#"["bowl", "plate"]"#]);
    /// let run = Run::new("dishes", &model);
    /// let mut seen = Vec::new();
    /// let messages = vec![Message::user("Two dishes?")];
    /// let mut show = |value: &serde_json::Value| seen.push(value.clone());
    /// let dishes = Typed::<Vec<String>>::new().stream_in(&run, messages, &mut show).await?;
    /// assert_eq!(dishes, ["bowl", "plate"]);
    /// assert_eq!(seen.last().unwrap(), &serde_json::json!(["bowl", "plate"]));
    /// # Ok::<(), llmkit_prompt::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn stream_in(
        &self,
        run: &Run<'_>,
        messages: Vec<Message>,
        on_partial: &mut (dyn FnMut(&Value) + Send),
    ) -> Result<T> {
        let (request, wrapped) = self.request(run, messages)?;
        let mut partial = PartialJson::new();
        let mut tell = |text: Option<&str>| match text {
            None => partial = PartialJson::new(),
            Some(text) => {
                // What is no strict JSON is shown as far as it was; the whole is read with mending at the end.
                if partial.push(text).is_ok()
                    && let Some(value) = partial.value()
                    && let Some(value) = if wrapped { value.get(WRAPPER) } else { Some(value) }
                {
                    on_partial(value);
                }
            }
        };
        self.ask.ask(run, &self.wanted(), request, &|text| self.read(text, wrapped), Some(&mut tell)).await
    }

    fn wanted(&self) -> String {
        format!("JSON of the type {}", self.name)
    }

    fn is_object(&self) -> bool {
        self.schema.get("type") == Some(&Value::from("object"))
    }

    /// The request, and whether its answer is within an object.
    fn request(&self, run: &Run<'_>, messages: Vec<Message>) -> Result<(ChatRequest, bool)> {
        if run.model().capabilities().json_schema {
            let wrapped = !self.is_object();
            let schema = if wrapped { wrap(&self.schema) } else { self.schema.clone() };
            let response_format = ResponseFormat::JsonSchema { name: plain(&self.name), schema };
            return Ok((ChatRequest { response_format, ..ChatRequest::new(messages) }, wrapped));
        }
        let shown = self.prompt.render(json!({ "schema": self.schema.to_string() }))?;
        let shown: Vec<&str> = shown.iter().map(|message| message.content.as_str()).collect();
        Ok((ChatRequest::new(with_text(messages, &shown.join("\n\n"))), false))
    }

    fn read(&self, text: &str, wrapped: bool) -> Result<Read<T>> {
        let read = if wrapped {
            outcome(json_with_repairs::<Wrapped<T>>(text)?, |wrapped| wrapped.answer)
        } else {
            outcome(json_with_repairs::<T>(text)?, |value| value)
        };
        if let Some(check) = &self.check {
            check(&read.value).map_err(|reason| Error::Refused { reason })?;
        }
        Ok(read)
    }
}

/// The name under which something that is no object is asked for.
const WRAPPER: &str = "answer";

#[derive(Deserialize)]
struct Wrapped<T> {
    answer: T,
}

fn wrap(schema: &Value) -> Value {
    let mut inner = schema.clone();
    // What the schema refers to is found from the outermost object.
    let definitions = inner.as_object_mut().and_then(|inner| inner.remove("$defs"));
    point_inwards(&mut inner);
    let mut outer = json!({
        "type": "object",
        "properties": { WRAPPER: inner },
        "required": [WRAPPER],
        "additionalProperties": false,
    });
    if let Some(mut definitions) = definitions {
        point_inwards(&mut definitions);
        outer["$defs"] = definitions;
    }
    outer
}

/// Lets a reference to the whole mean what is wrapped. Schemas are as deep as the program's types.
fn point_inwards(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            for (name, value) in entries {
                if name == "$ref" && value == "#" {
                    *value = format!("#/properties/{WRAPPER}").into();
                } else {
                    point_inwards(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(point_inwards),
        _ => {}
    }
}

fn outcome<R, T>(read: Repaired<R>, value: impl FnOnce(R) -> T) -> Read<T> {
    let cut_off = read.is_cut_off();
    let mut repairs: Vec<String> = read.repairs.iter().map(ToString::to_string).collect();
    if read.unlisted > 0 {
        repairs.push(format!("and {} more", read.unlisted));
    }
    let note = (!repairs.is_empty()).then(|| format!("mended the answer's JSON: {}", repairs.join("; ")));
    Read { value: value(read.value), note, cut_off }
}

/// Letters, digits, `_` and `-`, at most 64 of them, as OpenAI wants it.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(plain).take(64).collect()
}

impl<T> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed")
            .field("type", &type_name::<T>())
            .field("schema", &self.schema)
            .field("ask", &self.ask)
            .finish_non_exhaustive()
    }
}
